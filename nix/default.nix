# The one entry from Python into Nix: a request as JSON in, a result as JSON out.
#
#   nix-instantiate --eval --strict --json --read-write-mode nix/default.nix --argstr request JSON
#
# request:
#   expression   absolute path of the package set: a set, or a function that yields one
#   arguments    { name = string; } given to that function, those of them that it takes
#   system       "x86_64-linux", ...
#   attributes   [ { typed = "python3packages.numpy"; path = [ "python3packages" "numpy" ]; } ]: attribute paths as they
#                were typed, and their parts
#   policy       { allowUnfree; allowInsecure; allowBroken; denyPackages; denyLicenses; onlyPackages; onlyLicenses; }: lists
#                of names; "*" in an allowing one is everything; an `only` one that is empty is no limit
#   optional     the same, for packages that are simply left out where the set has none
#
# result: one list entry for each attribute, in the order of the request (optional ones last):
#   { kind = "package"; typed; attribute; name; pname; drvPath; outputs = [ { name; path; } ]; mainProgram; description; license; }
#   { kind = "missing"; typed; at; part; names; }        `part` is not among `names`, the attributes of `at`
#   { kind = "ambiguous"; typed; at; part; names; }      `names` all spell `part` when case is ignored
#   { kind = "refused"; typed; attribute; name; reason; what; }    by the policy; `reason` is "denied", "denied-license",
#                                                        "not-listed", "not-listed-license", "unfree", "insecure",
#                                                        "broken" or "unsupported"
#   { kind = "no-package"; typed; attribute; type; }     the attribute is there, but it is no derivation
#
# Evaluation writes the .drv files and builds nothing. Names reach this file as data, never as Nix source text.
{ request }:
let
  asked = builtins.fromJSON request;
  resolve = import ./resolve.nix;
  policy = asked.policy // { inherit (asked) system; };

  packages = import ./load.nix asked;

  describe = named: attribute: import ./describe.nix { inherit policy; asked = named; } (resolve packages attribute);
in
map (describe true) asked.attributes
++ builtins.filter (result: result.kind == "package") (map (describe false) asked.optional)
