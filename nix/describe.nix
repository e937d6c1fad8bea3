# A result of `resolve.nix` -> the facts about a package that an image needs, or why the operator's policy refuses it
# (shapes: see default.nix). Nix evaluates nothing more of a package that the policy refuses.
#
#   byClient   whether a client named the package; otherwise it is the operator's own wish
{ byClient, policy }: result:
let
  inherit (result) value;
  meta = value.meta or { };

  # A path may name one output (`openssl.dev`); otherwise the package says which outputs to install.
  outputNames =
    if value.outputSpecified or false then [ value.outputName ]
    else meta.outputsToInstall or [ (value.outputName or "out") ];

  plain = builtins.unsafeDiscardStringContext;
  output = name: { inherit name; path = plain (value.${name} or value).outPath; };

  licenseName = license:
    if builtins.isString license then license
    else license.spdxId or license.shortName or license.fullName or "";
  licenses = let l = meta.license or [ ]; in if builtins.isList l then l else [ l ];
  licenseNames = builtins.filter (l: l != "") (map licenseName licenses);

  allowed = list: name: builtins.elem "*" list || builtins.elem name list;
  nonfree = builtins.filter (l: !(l.free or true)) (builtins.filter builtins.isAttrs licenses);
  unfree = builtins.filter (name: !allowed policy.allowUnfree name) (map licenseName nonfree);
  vulnerabilities = meta.knownVulnerabilities or [ ];
  # The `only` lists bound what clients name, and not the operator's own wish.
  limited = only: byClient && only != [ ];
  unlisted = limited policy.onlyPackages
    && builtins.all (name: !builtins.elem name policy.onlyPackages) [ result.attribute pname value.name ];
  # Several licences hold together, so each has to be listed.
  unlistedLicense = limited policy.onlyLicenses
    && (licenseNames == [ ] || builtins.any (name: !builtins.elem name policy.onlyLicenses) licenseNames);
  denied = builtins.filter (name: builtins.elem name policy.denyPackages) [ result.attribute pname value.name ];
  deniedLicenses = builtins.filter (name: builtins.elem name policy.denyLicenses) licenseNames;
  platforms = meta.platforms or [ ];

  refusals =
    if denied != [ ] then { reason = "denied"; what = denied; }
    else if deniedLicenses != [ ] then { reason = "denied-license"; what = deniedLicenses; }
    else if unlisted then { reason = "not-listed"; what = [ ]; }
    else if unlistedLicense then { reason = "not-listed-license"; what = licenseNames; }
    else if unfree != [ ] then { reason = "unfree"; what = unfree; }
    else if vulnerabilities != [ ] && !allowed policy.allowInsecure value.name then {
      reason = "insecure";
      what = vulnerabilities;
    }
    else if (meta.broken or false) && !allowed policy.allowBroken pname then { reason = "broken"; what = [ value.name ]; }
    else if platforms != [ ] && builtins.all builtins.isString platforms && !builtins.elem policy.system platforms then {
      reason = "unsupported";
      what = platforms;
    }
    else null;

  pname = value.pname or (builtins.parseDrvName value.name).name;
in
if result.kind != "attribute" then result
else if !(builtins.isAttrs value && value.type or null == "derivation") then {
  kind = "no-package";
  inherit (result) typed attribute;
  type = builtins.typeOf value;
}
else if refusals != null then {
  kind = "refused";
  inherit (result) typed attribute;
  inherit (value) name;
  inherit (refusals) reason what;
}
else {
  kind = "package";
  inherit (result) typed attribute;
  inherit (value) name;
  inherit pname;
  drvPath = plain value.drvPath;
  outputs = map output outputNames;
  mainProgram = meta.mainProgram or "";
  description = if builtins.isString (meta.description or null) then meta.description else "";
  license = builtins.concatStringsSep " AND " licenseNames;
}
