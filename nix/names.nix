# The names of a package set's attributes, for search and suggestions: what can be put into an image at the top level,
# and one level below wherever the set says that there is more (`recurseForDerivations`, `...Packages`).
#
#   request: as in default.nix, and `look`: which values to look at. "all" leaves out what is no package or refuses to
#            be evaluated, but a single value that aborts ends it all; the caller then asks again with "none", which
#            looks at no value, and with the name of each set that it cares for, whose names alone are then listed.
#
# result: [ "git" "python3Packages.numpy" ... ]
{ request }:
let
  asked = builtins.fromJSON request;
  packages = import ./load.nix asked;
  isPackage = value: builtins.isAttrs value && value.type or null == "derivation";
  goesOn = name: value:
    builtins.isAttrs value
    && (value.recurseForDerivations or false || isSet name);
  below = name:
    let tried = builtins.tryEval packages.${name}; in
    if !tried.success then [ ]
    else if isPackage tried.value then [ name ]
    else if goesOn name tried.value then
      map (inner: "${name}.${inner}")
        (builtins.filter (inner: inner != "recurseForDerivations") (builtins.attrNames tried.value))
    else [ ];
  isSet = name: builtins.match ".*Packages" name != null;
in
if asked.look == "all" then builtins.concatMap below (builtins.attrNames packages)
else if asked.look == "none" then builtins.attrNames packages
else below asked.look
