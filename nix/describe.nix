# A result of `resolve.nix` -> the facts about a package that an image needs, or why the operator's policy refuses it
# (shapes: see default.nix). Nix evaluates nothing more of a package that the policy refuses.
#
#   byClient   whether a client named the package; otherwise it is the operator's own wish
#
# The policy judges every derivation on the attribute path, outermost first, and the first refusal counts: `secret.src` is as
# unfree as `secret`. What a package says in `meta` may be of any type; what is no text counts as absent where nothing
# depends on it, and ends the evaluation where the policy does.
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
  # A text for people, or "" where there is none.
  text = value:
    let tried = builtins.tryEval (if builtins.isString value then builtins.substring 0 1000 value else ""); in
    if tried.success then plain tried.value else "";
  # The same for one text or a list of texts, without those that are no texts.
  texts = value:
    let
      list = if builtins.isList value then value else [ value ];
      count = builtins.length list;
    in
    builtins.filter (t: t != "") (map text (builtins.genList (builtins.elemAt list) (if count < 100 then count else 100)));

  licenseName = license:
    if builtins.isString license then license
    else license.spdxId or license.shortName or license.fullName or "";
  licensesOf = meta: let l = meta.license or [ ]; in if builtins.isList l then l else [ l ];
  licenseNamesOf = meta: builtins.filter (l: l != "") (map licenseName (licensesOf meta));

  allowed = list: name: builtins.elem "*" list || builtins.elem name list;
  # The `only` lists bound what clients name, and not the operator's own wish.
  limited = only: byClient && only != [ ];
  pnameOf = value: value.pname or (builtins.parseDrvName value.name).name;

  # The attribute, and each attribute path that its path ends with: `pkgs.hello` is `hello` too.
  endings = attribute:
    let parts = builtins.filter builtins.isString (builtins.split "[.]" attribute); in
    builtins.genList (skip: builtins.concatStringsSep "." (dropped skip parts)) (builtins.length parts);
  dropped = count: list: builtins.genList (i: builtins.elemAt list (count + i)) (builtins.length list - count);

  # Why the policy refuses a derivation of the path; null where it does not.
  judge = { attribute, value }:
    let
      meta = value.meta or { };
      pname = pnameOf value;
      licenseNames = licenseNamesOf meta;
      nonfree = builtins.filter (l: !(l.free or true)) (builtins.filter builtins.isAttrs (licensesOf meta));
      unfree = builtins.filter (name: !allowed policy.allowUnfree name) (map licenseName nonfree);
      vulnerabilities = meta.knownVulnerabilities or [ ];
      # A listed path allows all of itself.
      unlisted = limited policy.onlyPackages
        && builtins.all (name: !builtins.elem name policy.onlyPackages) [ result.attribute attribute pname value.name ];
      # Several licences hold together, so each has to be listed.
      unlistedLicense = limited policy.onlyLicenses
        && (licenseNames == [ ] || builtins.any (name: !builtins.elem name policy.onlyLicenses) licenseNames);
      denied = builtins.filter (name: builtins.elem name policy.denyPackages) (endings attribute ++ [ pname value.name ]);
      deniedLicenses = builtins.filter (name: builtins.elem name policy.denyLicenses) licenseNames;
      platforms = meta.platforms or [ ];
      refuse = reason: what: { inherit reason; name = text value.name; what = map text what; };
    in
    if denied != [ ] then refuse "denied" denied
    else if deniedLicenses != [ ] then refuse "denied-license" deniedLicenses
    else if unlisted then refuse "not-listed" [ ]
    else if unlistedLicense then refuse "not-listed-license" licenseNames
    else if unfree != [ ] then refuse "unfree" unfree
    else if vulnerabilities != [ ] && !allowed policy.allowInsecure value.name then
      refuse "insecure" (if builtins.isList vulnerabilities then vulnerabilities else [ vulnerabilities ])
    else if (meta.broken or false) && !allowed policy.allowBroken pname then refuse "broken" [ pname ]
    else if platforms != [ ] && builtins.all builtins.isString platforms && !builtins.elem policy.system platforms then
      refuse "unsupported" platforms
    else null;
  path = result.above or [ ] ++ [ { inherit (result) attribute; inherit value; } ];
  refusals = builtins.filter (refusal: refusal != null) (map judge path);
in
if result.kind != "attribute" then result
else if !(builtins.isAttrs value && value.type or null == "derivation") then {
  kind = "no-package";
  inherit (result) typed attribute;
  type = builtins.typeOf value;
}
else if refusals != [ ] then {
  kind = "refused";
  inherit (result) typed attribute;
  inherit (builtins.head refusals) name reason what;
}
else {
  kind = "package";
  inherit (result) typed attribute;
  inherit (value) name;
  pname = pnameOf value;
  drvPath = plain value.drvPath;
  outputs = map output outputNames;
  mainProgram = text (meta.mainProgram or "");
  version = text (value.version or (builtins.parseDrvName value.name).version);
  description = text (meta.description or "");
  license = text (builtins.concatStringsSep " AND " (licenseNamesOf meta));
  licenses = texts (licenseNamesOf meta);
  homepage = let pages = texts (meta.homepage or [ ]); in if pages == [ ] then "" else builtins.head pages;
  vulnerabilities = texts (meta.knownVulnerabilities or [ ]);
}
