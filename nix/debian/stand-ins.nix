# What this host can build in place of packages of the set that are for another system (see default.nix).
#
#   request, JSON:
#     arguments   those of default.nix
#     names       the names of packages: "hello-2.10-3"
#
# result: [ { path; drvPath; standIn; standInDrv; } ]: of each store path that may be in the closure of these packages, its
#         derivation, and the store path and derivation of the stand-in
{ request }:
let
  question = builtins.fromJSON request;
  system = (builtins.fromJSON (builtins.readFile (/. + question.arguments.lock))).system;
  set = import ./default.nix (question.arguments // { inherit system; });
  plain = builtins.unsafeDiscardStringContext;
  isPackage = value: value.type or null == "derivation";
  packages = builtins.concatMap (value: if isPackage value then [ value ] else builtins.attrValues value) (builtins.attrValues set);
  wanted = builtins.filter (package: builtins.elem package.name question.names) packages;
  pair = { for, standIn }: {
    path = plain for.outPath;
    drvPath = plain for.drvPath;
    standIn = plain standIn.outPath;
    standInDrv = plain standIn.drvPath;
  };
  byPath = builtins.groupBy (pair: pair.path) (map pair (builtins.concatMap (package: package.nixfrontClosure) wanted));
in
map builtins.head (builtins.attrValues byPath)
