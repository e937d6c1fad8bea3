# The packages of a flake as a package set. `flake` is the store path of its source: nixfront has fetched it before, with all
# inputs of its lock file. `attribute` is the output that holds packages by system.
{ flake, attribute, system }:
let
  outputs = builtins.getFlake "path:${flake}";
  bySystem = outputs.${attribute} or (throw "the flake has no output ${attribute}");
in
bySystem.${system} or (throw "the flake has no ${attribute} for ${system}")
