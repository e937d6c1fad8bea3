# Fetches the source of a package set and says what it is. The only expression that may use the network,
# and no word of a puller's request reaches it.
#
#   source: JSON of an attribute set for builtins.fetchTree, for example
#     { "type": "tarball", "url": "https://..." } or { "type": "git", "url": "...", "ref": "main" }
#   prefix: where the file system of the Nix store is mounted ("" for the system's own)
#
# result: { path; narHash; revision; lastModified; archive; }
#   revision is "" and lastModified (seconds) 0 where unknown; archive is the store path of a tarball as it was fetched,
#   from which the caller reads a date: Nix 2.8 keeps none of a tarball's.
{ source, prefix }:
let
  asked = builtins.fromJSON source;
  archive =
    if asked.type == "tarball" then builtins.fetchurl { inherit (asked) url; name = "archive"; } else "";
  local = builtins.unsafeDiscardStringContext archive;
  tree = builtins.fetchTree (
    if asked.type == "tarball" then { type = "tarball"; url = "file://${prefix}${local}"; } else asked
  );
in
{
  path = builtins.unsafeDiscardStringContext tree.outPath;
  inherit (tree) narHash;
  revision = tree.rev or "";
  lastModified = tree.lastModified or 0;
  archive = local;
}
