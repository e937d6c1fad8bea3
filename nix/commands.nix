# The root tree of an image, changed by extraCommands: the one derivation of nixfront's own that a pull may build.
#
#   tree     folder: the merged root tree; it may name store paths, which are `inputs`
#   modes    file, a line for each member whose mode is neither 0755 (directories) nor 0644 (files): "1777 tmp"
#   script   the commands, for bash; bash: the program; path: where the script finds its programs
#
# result: a store path with `tree`, the root as the script left it, and `modes`, which has a mode and a path for each member
# of it, each ended by NUL: Nix itself keeps of a mode only whether a file is executable.
{ system, tree, modes, script, bash, path, inputs }:
derivation {
  name = "nixfront-root";
  inherit system tree modes script inputs;
  passAsFile = [ "script" ]; # a variable may not be as long as a script may be
  builder = bash;
  args = [ "-euo" "pipefail" ./commands.sh ];
  PATH = path;
  LC_ALL = "C";
  preferLocalBuild = true;
  allowSubstitutes = false;
}
