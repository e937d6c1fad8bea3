# The names of a package set's attributes, for search and suggestions: the packages of the top level, and one level below
# wherever the set says that there is more (`recurseForDerivations`, `...Packages`).
#
#   request: as in default.nix, and `look`: which values to look at. "all" leaves out what is no package or refuses to
#            be evaluated, but a single value that aborts ends the whole evaluation. The caller then asks again with "none",
#            which looks at no value, and with the name of each set, which lists the names of that set alone.
#            "descriptions" looks at what packages say of themselves too.
#
# result: [ "git" "python3Packages.numpy" ... ]; for "descriptions" { git = "Distributed version control system"; ... },
#         without the names that say nothing
{ request }:
let
  question = builtins.fromJSON request;
  packages = import ./load.nix question;
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
  # What a package says of itself, "" for other values and where that cannot be evaluated.
  description = value:
    let
      text = value.meta.description or "";
      tried = builtins.tryEval (
        if isPackage value && builtins.isString text
        then builtins.unsafeDiscardStringContext (builtins.substring 0 200 text) else ""
      );
    in
    if tried.success then tried.value else "";
  descriptions = name: value:
    let
      inner = builtins.tryEval (if isPackage value || !goesOn name value then { } else value);
      pair = path: value: { name = path; value = description value; };
    in
    [ (pair name value) ]
    ++ (if !inner.success then [ ] else map (key: pair "${name}.${key}" inner.value.${key}) (builtins.attrNames inner.value));
  isSet = name: builtins.match ".*Packages" name != null;
in
if question.look == "all" then builtins.concatMap below (builtins.attrNames packages)
else if question.look == "descriptions" then
  builtins.listToAttrs (builtins.filter (pair: pair.value != "") (
    builtins.concatMap (name: descriptions name packages.${name}) (builtins.attrNames packages)
  ))
else if question.look == "none" then builtins.attrNames packages
else below question.look
