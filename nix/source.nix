# Fetches the source of a package set and says what it is. The only expression that may use the network,
# and no word of a puller's request reaches it.
#
#   source: JSON of an attribute set for builtins.fetchTree, for example
#     { "type": "tarball", "url": "https://..." } or { "type": "git", "url": "...", "ref": "main" }
#
# result: { path; narHash; revision; lastModified; }   revision is "" and lastModified (seconds) 0 where unknown
{ source }:
let
  tree = builtins.fetchTree (builtins.fromJSON source);
in
{
  path = builtins.unsafeDiscardStringContext tree.outPath;
  inherit (tree) narHash;
  revision = tree.rev or "";
  lastModified = tree.lastModified or 0;
}
