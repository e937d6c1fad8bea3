# A request (shape: see default.nix) -> the package set that it names.
question:
let
  inherit (question) policy;
  allowed = list: name: builtins.elem "*" list || builtins.elem name list;
  nonfree = package:
    let licenses = package.meta.license or [ ]; in
    builtins.filter (l: builtins.isAttrs l && !(l.free or true)) (if builtins.isList licenses then licenses else [ licenses ]);
  licenseName = license: license.spdxId or license.shortName or license.fullName or "";
  imported = import (/. + question.expression);
  offered = question.arguments // {
    inherit (question) system;
    # nixpkgs also checks by itself, and only its own settings can allow something.
    config = {
      allowUnfree = builtins.elem "*" policy.allowUnfree;
      allowUnfreePredicate = package: builtins.all (l: allowed policy.allowUnfree (licenseName l)) (nonfree package);
      allowBroken = policy.allowBroken != [ ];
      permittedInsecurePackages = policy.allowInsecure;
    } // (if builtins.elem "*" policy.allowInsecure then { allowInsecurePredicate = _: true; } else { });
    overlays = [ ];
    nixfrontArguments = question.arguments; # for locked-flake.nix
  };
in
if builtins.isFunction imported then
  imported (builtins.intersectAttrs (builtins.functionArgs imported) offered)
else
  imported
