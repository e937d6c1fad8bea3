# The one entry from Python into Nix: a request as JSON in, a result as JSON out.
#
#   nix-instantiate --eval --strict --json --read-write-mode nix/default.nix --argstr request JSON
#
# request:
#   expression   absolute path of the package set: a set, or a function that yields one
#   arguments    { name = string; } for that function, which gets those of them that it takes
#   system       "x86_64-linux", ...
#   attributes   [ { typed = "python3packages.numpy"; path = [ "python3packages" "numpy" ]; } ]: attribute paths as the
#                client typed them, and their parts
#   policy       { allowUnfree; allowInsecure; allowBroken; denyPackages; denyLicenses; onlyPackages; onlyLicenses; }: lists
#                of names; "*" in an `allow` list allows everything; an empty `only` list is no limit
#   optional     as `attributes`, for packages that the result leaves out where the set lacks them
#   listed       the attributes (as `at` below; "" is the set itself) whose names the caller has
#
# result: { results; names; }
#   names = { AT = "NAME ..."; }: the attributes of the first few `at` of missing packages, without those in `listed`; one text,
#           because it may have a hundred thousand names, and a name with a space is no name that a client can spell
#   results has one entry for each attribute, in the order of the request (optional ones last):
#   { kind = "package"; typed; attribute; name; pname; drvPath; outputs = [ { name; path; } ]; mainProgram; version; description; license;
#   licenses = [ NAME ... ]; homepage; vulnerabilities = [ TEXT ... ]; }
#   { kind = "missing"; typed; at; part; depth; }        `at`, the first `depth` parts of the path, has no attribute `part`
#   { kind = "ambiguous"; typed; at; part; names; }      `names` all spell `part` when case is ignored
#   { kind = "refused"; typed; attribute; name; reason; what; }    by the policy; `reason` is "denied", "denied-license",
#                                                        "not-listed", "not-listed-license", "unfree", "insecure",
#                                                        "broken" or "unsupported"
#   { kind = "no-package"; typed; attribute; type; }     the attribute is there, but it is no derivation
#
# Evaluation writes the .drv files and builds nothing. Names reach this file as data, never as Nix source text.
{ request }:
let
  question = builtins.fromJSON request;
  policy = question.policy // { inherit (question) system; };

  packages = import ./load.nix question;
  resolve = import ./resolve.nix packages;

  describe = byClient: attribute: import ./describe.nix { inherit policy byClient; } (resolve attribute);
  results =
    map (describe true) question.attributes
    ++ builtins.filter (result: result.kind == "package") (map (describe false) question.optional);

  # Many wrong names of one set cost one list of its names, and many sets cost three.
  isMissing = result: result.kind == "missing";
  fresh = builtins.filter (result: isMissing result && !builtins.elem result.at question.listed) results;
  levels = builtins.groupBy (result: result.at) fresh;
  first = builtins.genList (builtins.elemAt (builtins.attrNames levels)) (
    let count = builtins.length (builtins.attrNames levels); in if count < 3 then count else 3
  );
  namesOf = at: { name = at; value = builtins.concatStringsSep " " (builtins.head levels.${at}).names; };
in
{
  results = map (result: if isMissing result then removeAttrs result [ "names" ] else result) results;
  names = builtins.listToAttrs (map namesOf first);
}
