# Fetches the source of a package set and says what it is. Only this expression may use the network, and nothing of a
# client's request reaches it but a tag.
#
#   source: JSON of an attribute set for builtins.fetchTree, for example
#     { "type": "tarball", "url": "https://..." } or { "type": "git", "url": "...", "ref": "main" }
#   prefix: the folder that holds the Nix store ("" for the system's own)
#
# result: { path; narHash; revision; lastModified; archive; }
#   revision is "" and lastModified (seconds) 0 where the source has none. archive is the store path of the packed tarball:
#   the caller reads the date from it, because Nix 2.8 keeps no date of a tarball.
{ source, prefix }:
let
  wanted = builtins.fromJSON source;
  archive =
    if wanted.type == "tarball" then builtins.fetchurl { inherit (wanted) url; name = "archive"; } else "";
  local = builtins.unsafeDiscardStringContext archive;
  tree = builtins.fetchTree (
    if wanted.type == "tarball" then { type = "tarball"; url = "file://${prefix}${local}"; } else wanted
  );
in
{
  path = builtins.unsafeDiscardStringContext tree.outPath;
  inherit (tree) narHash;
  revision = tree.rev or "";
  lastModified = tree.lastModified or 0;
  archive = local;
}
