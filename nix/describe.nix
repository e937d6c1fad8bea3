# What `resolve.nix` found -> the facts about a package that an image needs (shape: see default.nix).
found:
let
  inherit (found) value;
  meta = value.meta or { };

  # An output named by the path (`openssl.dev`) is meant alone; otherwise what the package says is to be installed.
  outputNames =
    if value.outputSpecified or false then [ value.outputName ]
    else meta.outputsToInstall or [ (value.outputName or "out") ];

  plain = builtins.unsafeDiscardStringContext;
  output = name: { inherit name; path = plain (value.${name} or value).outPath; };

  licenseName = license:
    if builtins.isString license then license
    else license.spdxId or license.shortName or license.fullName or "";
  licenses = let l = meta.license or [ ]; in if builtins.isList l then l else [ l ];

  pname = value.pname or (builtins.parseDrvName value.name).name;
in
if found.kind != "found" then found
else if !(builtins.isAttrs value && value.type or null == "derivation") then {
  kind = "no-package";
  inherit (found) typed attribute;
  type = builtins.typeOf value;
}
else {
  kind = "package";
  inherit (found) typed attribute;
  inherit (value) name;
  inherit pname;
  drvPath = plain value.drvPath;
  outputs = map output outputNames;
  mainProgram = meta.mainProgram or "";
  description = if builtins.isString (meta.description or null) then meta.description else "";
  license = builtins.concatStringsSep " AND " (builtins.filter (l: l != "") (map licenseName licenses));
}
