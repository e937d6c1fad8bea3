# The root tree of a named image, changed by the operator's extraCommands (commands.nix), as nixfront itself builds it.
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
# This evaluation is not restricted, as it names store paths (builtins.storePath). It reads no package set, and nothing that
# a client typed.
{ request }:
let
  question = builtins.fromJSON (builtins.readFile (/. + request));
in
import ./commands.nix {
  inherit (question) system script bash path;
  # Files of the store, because they may be longer than an argument may be.
  tree = builtins.path { name = "nixfront-tree"; path = /. + question.tree; };
  modes = builtins.toFile "nixfront-modes" (builtins.concatStringsSep "\n" (question.modes ++ [ "" ]));
  inputs = map builtins.storePath question.inputs;
}
