# A request (shape: see default.nix) -> the package set that it names.
asked:
let
  inherit (asked) policy;
  allowed = list: name: builtins.elem "*" list || builtins.elem name list;
  nonfree = package:
    let found = package.meta.license or [ ]; in
    builtins.filter (l: builtins.isAttrs l && !(l.free or true)) (if builtins.isList found then found else [ found ]);
  licenseName = license: license.spdxId or license.shortName or license.fullName or "";
  imported = import (/. + asked.expression);
  offered = asked.arguments // {
    inherit (asked) system;
    # nixpkgs checks by itself too, and offers no other way than its own settings to be told what is allowed.
    config = {
      allowUnfree = builtins.elem "*" policy.allowUnfree;
      allowUnfreePredicate = package: builtins.all (l: allowed policy.allowUnfree (licenseName l)) (nonfree package);
      allowBroken = policy.allowBroken != [ ];
      permittedInsecurePackages = policy.allowInsecure;
    } // (if builtins.elem "*" policy.allowInsecure then { allowInsecurePredicate = _: true; } else { });
    overlays = [ ];
  };
in
if builtins.isFunction imported then
  imported (builtins.intersectAttrs (builtins.functionArgs imported) offered)
else
  imported
