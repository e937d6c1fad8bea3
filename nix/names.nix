# The names of a package set's attributes, for search and suggestions: the packages of the top level, and one level below
# wherever the set says that there is more (`recurseForDerivations`, `...Packages`). A copy of the whole set is left out, as
# nixpkgs has for other systems and compilers: it has every name again, and a pull chooses systems by a meta-package.
#
#   request: as in default.nix, and `look`: which values to look at. "all" leaves out what is no package or refuses to
#            be evaluated, but a single value that aborts ends the whole evaluation. The caller then asks again with "none",
#            which looks at no value, and with the name of each set, which lists the names of that set alone.
#            "facts" looks at what packages say of themselves too.
#
# result: { git = null; "python3Packages.numpy" = null; ... }; for "facts", without the names that say nothing,
#         { git = [ VERSION DESCRIPTION LICENSE MAIN-PROGRAM ]; ... }
{ request }:
let
  question = builtins.fromJSON request;
  packages = import ./load.nix question;
  isPackage = value: builtins.isAttrs value && value.type or null == "derivation";
  isSet = name: builtins.match ".*Packages" name != null;
  # Only the whole of nixpkgs has these, in itself as in its copies.
  isCopy = name: value:
    builtins.elem name [ "pkgs" "buildPackages" "targetPackages" "__splicedPackages" ]
    || value ? __splicedPackages || (value ? buildPackages && value ? targetPackages);
  goesOn = name: value:
    builtins.isAttrs value
    && (value.recurseForDerivations or false || isSet name)
    && !isCopy name value;
  # The names in a set; an attribute of these names says something about the set itself.
  inside = value: builtins.filter (name: name != "recurseForDerivations") (builtins.attrNames value);
  below = name:
    let tried = builtins.tryEval packages.${name}; in
    if !tried.success then [ ]
    else if isPackage tried.value then [ name ]
    else if goesOn name tried.value then map (inner: "${name}.${inner}") (inside tried.value)
    else [ ];

  # A text for people, "" where it is none or cannot be evaluated.
  text = value:
    let tried = builtins.tryEval (if builtins.isString value then builtins.substring 0 200 value else ""); in
    if tried.success then builtins.unsafeDiscardStringContext tried.value else "";
  licenseName = license:
    if builtins.isAttrs license then text (license.spdxId or license.shortName or license.fullName or "") else text license;
  licenses = meta:
    let
      listed = meta.license or [ ];
      tried = builtins.tryEval (map licenseName (if builtins.isList listed then listed else [ listed ]));
    in
    if tried.success then builtins.concatStringsSep " AND " (builtins.filter (name: name != "") tried.value) else "";
  # What a package says of itself; null for other values, and where that cannot be evaluated.
  factsOf = value:
    let
      tried = builtins.tryEval (
        let meta = value.meta or { }; in
        if !isPackage value then null
        else if !builtins.isAttrs meta then null
        else [
          (text (value.version or (builtins.parseDrvName value.name).version))
          (text (meta.description or ""))
          (licenses meta)
          (text (meta.mainProgram or ""))
        ]
      );
    in
    if tried.success then tried.value else null;
  facts = name: value:
    let
      inner = builtins.tryEval (if isPackage value || !goesOn name value then { } else value);
      pair = path: value: { name = path; value = factsOf value; };
    in
    [ (pair name value) ]
    ++ (if !inner.success then [ ] else map (key: pair "${name}.${key}" inner.value.${key}) (inside inner.value));

  named = names: builtins.listToAttrs (map (name: { inherit name; value = null; }) names);
in
if question.look == "all" then named (builtins.concatMap below (builtins.attrNames packages))
else if question.look == "facts" then
  builtins.listToAttrs (builtins.filter (pair: pair.value != null) (
    builtins.concatMap (name: facts name packages.${name}) (builtins.attrNames packages)
  ))
else if question.look == "none" then named (builtins.attrNames packages)
else named (below question.look)
