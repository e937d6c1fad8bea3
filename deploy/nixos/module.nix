# nixfront as a service of NixOS:
#
#   imports = [ ./nixfront/deploy/nixos/module.nix ];
#   services.nixfront = { enable = true; settings.packages.kind = "nixpkgs"; };
#
# `settings` is config/nixfront.yml as an attribute set; passwords belong in `environmentFile`.
{ config, lib, pkgs, ... }:
let
  cfg = config.services.nixfront;
  file = pkgs.writeText "nixfront.yml" (builtins.toJSON cfg.settings); # every JSON text is YAML
in
{
  options.services.nixfront = {
    enable = lib.mkEnableOption "nixfront, a registry proxy that makes images with Nix";
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      description = "The nixfront to run.";
    };
    settings = lib.mkOption {
      type = lib.types.attrs;
      default = { };
      example = { http.addr = "0.0.0.0:8080"; registry.url = "http://127.0.0.1:5000"; };
      description = "The settings, as in config/nixfront.yml.";
    };
    environmentFile = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      description = "A file of variables, NIXFRONT_REGISTRY_PASSWORD=... among them, that only root can read.";
    };
    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether others may connect to http.addr.";
    };
  };

  config = lib.mkIf cfg.enable {
    users.users.nixfront = { isSystemUser = true; group = "nixfront"; home = "/var/lib/nixfront"; };
    users.groups.nixfront = { };
    nix.settings.trusted-users = [ "nixfront" ];
    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [
      (lib.toInt (lib.last (lib.splitString ":" (cfg.settings.http.addr or "127.0.0.1:8080"))))
    ];
    systemd.services.nixfront = {
      description = "nixfront: builds container images when they are pulled";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" "nix-daemon.socket" "docker-registry.service" ];
      environment = { NIXFRONT_DATA_DIR = "/var/lib/nixfront"; NIX_REMOTE = "daemon"; };
      serviceConfig = {
        Type = "exec";
        User = "nixfront";
        Group = "nixfront";
        ExecStart = "${cfg.package}/bin/nixfront serve --config ${file}";
        StateDirectory = "nixfront";
        StateDirectoryMode = "0750";
        Restart = "on-failure";
        TimeoutStopSec = 40;
        LimitNOFILE = 65536;
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateTmp = true;
        PrivateDevices = true;
        NoNewPrivileges = true;
        RestrictAddressFamilies = [ "AF_UNIX" "AF_INET" "AF_INET6" ];
        CapabilityBoundingSet = "";
        SystemCallArchitectures = "native";
        UMask = "0027";
      } // lib.optionalAttrs (cfg.environmentFile != null) { EnvironmentFile = cfg.environmentFile; };
    };
  };
}
