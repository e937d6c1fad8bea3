# The root tree of a named image, changed by the operator's extraCommands (commands.nix), as the proxy asks for it.
#
#   nix-build nix/root.nix --argstr request FILE
#
# FILE holds JSON:
#   system   "x86_64-linux", ...
#   tree     absolute path of a folder: the merged root tree
#   modes    [ "1777 tmp" ... ]: as in commands.nix
#   script   the commands; bash: the program, in a store path; path: where the script finds its programs, in store paths
#   inputs   store paths: those that the tree and the script name, and those of `bash` and `path`
#
# Not restricted, as it names store paths (builtins.storePath); but no set of packages and no word of a puller's comes here.
{ request }:
let
  asked = builtins.fromJSON (builtins.readFile (/. + request));
in
import ./commands.nix {
  inherit (asked) system script bash path;
  # As files of the store: an argument may not be as long as they may be.
  tree = builtins.path { name = "nixfront-tree"; path = /. + asked.tree; };
  modes = builtins.toFile "nixfront-modes" (builtins.concatStringsSep "\n" (asked.modes ++ [ "" ]));
  inputs = map builtins.storePath asked.inputs;
}
