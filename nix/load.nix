# A request (shape: see default.nix) -> the package set that it names.
asked:
let
  imported = import (/. + asked.expression);
  offered = asked.arguments // {
    inherit (asked) system;
    # nixpkgs checks by itself too, and offers no other way than its own settings to be told what is allowed.
    config = {
      allowUnfree = asked.policy.allowUnfree != [ ];
      allowBroken = asked.policy.allowBroken != [ ];
      permittedInsecurePackages = asked.policy.allowInsecure;
    };
    overlays = [ ];
  };
in
if builtins.isFunction imported then
  imported (builtins.intersectAttrs (builtins.functionArgs imported) offered)
else
  imported
