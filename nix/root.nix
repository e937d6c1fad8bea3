# The root tree of a named image, changed by the operator's extraCommands: the one derivation of nixfront's own, and there is
# none without such commands.
#
#   nix-build nix/root.nix --argstr request FILE
#
# FILE holds JSON:
#   system   "x86_64-linux", ...
#   tree     absolute path of a folder: the merged root tree
#   modes    [ "1777" "tmp" ... ]: mode and path of what is neither 0755 (directories) nor 0644 (files)
#   script   the commands, for bash
#   bash     the program, in a store path; path: where the script finds its programs, in store paths
#   inputs   store paths that the tree and the script name, and those of `bash` and `path`
#
# result: a store path with `tree`, the root as the script left it, and `modes`, which has a mode and a path for each member
# of it, all ended by NUL: Nix itself keeps of a mode only whether a file is executable.
#
# Not restricted, as it names store paths (builtins.storePath); but no set of packages and no word of a puller's comes here.
{ request }:
let
  asked = builtins.fromJSON (builtins.readFile (/. + request));
in
derivation {
  name = "nixfront-root";
  inherit (asked) system script;
  # The hash of a tree of symlinks is that of their texts, and a script's text may be longer than a variable may be.
  tree = builtins.path { name = "nixfront-tree"; path = /. + asked.tree; };
  modes = builtins.toFile "nixfront-modes" (builtins.concatStringsSep "\n" (asked.modes ++ [ "" ]));
  passAsFile = [ "script" ];
  inputs = map builtins.storePath asked.inputs;
  builder = asked.bash;
  args = [ "-euo" "pipefail" ./root.sh ];
  PATH = asked.path;
  LC_ALL = "C";
  preferLocalBuild = true;
  allowSubstitutes = false;
}
