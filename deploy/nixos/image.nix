# The container image of nixfront as a named image: nixfront makes its own image. deploy/nixos/make-image builds it and lays the
# source of nixfront beside this file, as a file of images may read its own folder alone.
{ pkgs, ... }:
let
  nixfront = pkgs.callPackage ./package.nix { source = ./source; };
  programs = [ nixfront pkgs.nix pkgs.bash pkgs.coreutils pkgs.gitMinimal pkgs.cacert ];
in
{
  nixfront = {
    packages = programs;
    # /registration: what Nix must know of the store paths of the image, so that it can use and keep them.
    contents = [ (pkgs.closureInfo { rootPaths = programs; }) ];
    # An empty Nix store database takes the registration once. A container that has no database of its own starts here.
    extraCommands = ''
      mkdir -p var/lib/nixfront
      cat > start <<'END'
      #!/bin/sh
      set -eu
      [ -e /nix/var/nix/db/db.sqlite ] || nix-store --load-db </registration
      exec nixfront "$@"
      END
      chmod 755 start
    '';
    entrypoint = [ "/start" ];
    cmd = [ "serve" ];
    env = {
      NIX_CONFIG = "sandbox = false";
      NIXFRONT_DATA_DIR = "/var/lib/nixfront";
      NIXFRONT_HTTP_ADDR = "0.0.0.0:8080";
      NIXFRONT_LOG_FORMAT = "json";
    };
    exposedPorts = [ 8080 ];
    labels."org.opencontainers.image.title" = "nixfront";
  };
}
