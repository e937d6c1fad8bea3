# The packages of a flake as a package set. `flake` is the path of its source: nixfront has fetched it before, with all inputs
# of its lock file. `attribute` is the output that holds packages by system. `nixfrontArguments` has a path for each node of the
# lock file: `"inputs.KEY"`.
#
# This is what `builtins.getFlake` does, without that builtin: it copies every folder of the host that a flake names.
{ flake, attribute, system, nixfrontArguments }:
let
  file = "${flake}/flake.lock";
  lock =
    if builtins.pathExists (/. + file) then builtins.fromJSON (builtins.readFile (/. + file))
    else { root = "root"; nodes.root = { }; };

  # The node that an input of a node is: a key, or a path of inputs from the root.
  resolve = spec: if builtins.isList spec then builtins.foldl' follow lock.root spec else spec;
  follow = key: name: resolve lock.nodes.${key}.inputs.${name};

  tree = key: locked:
    let
      isRoot = key == lock.root;
      path = /. + (if isRoot then flake else nixfrontArguments."inputs.${key}");
      hash = if !isRoot && locked ? narHash then { sha256 = locked.narHash; } else { };
      seconds = locked.lastModified or 1; # the date of every file of the store
    in
    {
      outPath = builtins.path ({ inherit path; name = "source"; } // hash);
      lastModified = seconds;
      lastModifiedDate = date seconds;
    }
    // (if locked ? narHash then { inherit (locked) narHash; } else { })
    // (if locked ? rev then { inherit (locked) rev; shortRev = builtins.substring 0 7 locked.rev; } else { })
    // (if locked ? revCount then { inherit (locked) revCount; } else { });

  nodes = builtins.mapAttrs
    (key: node:
      let
        locked = if key == lock.root then { } else node.locked or { };
        source = tree key locked;
        outPath = source.outPath + (if locked ? dir then "/${locked.dir}" else "");
        inputs = builtins.mapAttrs (_: spec: nodes.${resolve spec}) (node.inputs or { });
        outputs = (import (outPath + "/flake.nix")).outputs (inputs // { self = result; });
        result = outputs // source // { inherit outPath inputs outputs; sourceInfo = source; _type = "flake"; };
      in
      if node.flake or true then result else source)
    lock.nodes;

  # Seconds since the epoch as YYYYMMDDhhmmss. Years begin in March here, so that leap days end them.
  date = seconds:
    let
      day = seconds / 86400 + 719468;
      era = day / 146097;
      dayOfEra = day - era * 146097;
      yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146096) / 365;
      dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100);
      monthFromMarch = (5 * dayOfYear + 2) / 153;
      month = monthFromMarch + (if monthFromMarch < 10 then 3 else -9);
      year = yearOfEra + era * 400 + (if month <= 2 then 1 else 0);
      ofDay = seconds - seconds / 86400 * 86400;
      two = number: (if number < 10 then "0" else "") + toString number;
      hour = ofDay / 3600;
    in
    toString year + builtins.concatStringsSep "" (map two [
      month
      (dayOfYear - (153 * monthFromMarch + 2) / 5 + 1)
      hour
      (ofDay / 60 - hour * 60)
      (ofDay - ofDay / 60 * 60)
    ]);

  inherit (nodes.${lock.root}) outputs;
  bySystem = outputs.${attribute} or (throw "the flake has no output ${attribute}");
in
bySystem.${system} or (throw "the flake has no ${attribute} for ${system}")
