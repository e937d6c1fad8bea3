# An image without a proxy: built by Nix alone, with the digests that the proxy pushes under layers.compression: none.
#
#   nix-build nix/build-registry-image.nix --argstr name hello --argstr packages '["hello"]'
#
# What comes out is one JSON document:
#   name, tag        `tag` is by default `contents-` and 12 digits of the hash of the outputs
#   outputs          this hash
#   manifest         the manifest; manifestLocation: the file that has it, byte for byte
#   layerLocations   { DIGEST = { path; size; mediaType; ... }; }: for the config and each layer, the file of the store that
#                    serves it. Layers are not compressed; for each of them there are diffId and storePaths too.
# The output `image` (nix-build -A image) is the folder of those files, as skopeo reads it: `skopeo copy dir:result-image ...`.
#
# With `systems` it is an index (`skopeo copy --all dir:...`), and instead of layerLocations the document has
#   images           the document of each image, by platform
#
# Lists and sets may be JSON text (--argstr packages '["git"]') or as values (--arg packages '[ "git" ]').
#
#   packages        attribute paths, resolved like a puller's; or derivations
#   contents        store paths, or derivations: more that is linked into the root
#   extraCommands   bash, run on the root tree before its layer is made; see config/images.nix
#   uid, gid        who owns the files of the root layer
#   maxLayers       as layers.most of the settings, whose default is another
#   system          the Nix system of the image. This host makes the images of other systems too; their packages come from where
#                   Nix gets them, and extraCommands run on that system
#   systems         the Nix systems of an index, in the order of image.platforms: the set has to be a path or a function, and
#                   packages and contents are names or store paths
#   set             the package set: a path, a function or a set; setArguments: the arguments of that function.
#                   Default: <nixpkgs>, or that of `channel` (a channel's name, or a commit)
#   always          attributes of every image, where the set has them: packages.always of the settings
#   format          docker or oci: image.format of the settings
#   table           a file: layers.table of the settings (the demo set's own is debian/packages.table.json)
#   policy          as in default.nix; what it leaves out is as strict as the settings' defaults
#   origin          { name; revision; source; created; narHash; } of the set, for the labels and dates of the image
#   named           whether the image is like those of images.file, with this `name`. By default it is, if it has contents,
#                   extraCommands, uid or gid, which a path of packages cannot have
#
# `proxy/image/` makes the layers, as it does for a pull. It runs under the set's own python3 and nothing else.
{ name
, tag ? null
, packages ? [ ]
, contents ? [ ]
, extraCommands ? ""
, uid ? 0
, gid ? 0
, maxLayers ? 24
, channel ? null
, set ? null
, setArguments ? { }
, system ? builtins.currentSystem
, systems ? [ ]
, always ? [ "cacert" "iana-etc" ]
, format ? "docker"
, table ? null
, policy ? { }
, origin ? { }
, named ? null
}@arguments:
let
  value = argument: if builtins.isString argument then builtins.fromJSON argument else argument;

  # --- the package set --------------------------------------------------------------------------------------

  channelUrl =
    if builtins.match "[0-9a-f]{40}" channel != null then "https://github.com/NixOS/nixpkgs/archive/${channel}.tar.gz"
    else "https://nixos.org/channels/${channel}/nixexprs.tar.xz";
  source =
    if set != null then set
    else if channel != null then builtins.fetchTarball channelUrl
    else <nixpkgs>;
  isFile = builtins.isPath source || builtins.isString source;
  lists = builtins.listToAttrs (map (key: { name = key; value = [ ]; }) [
    "allowUnfree" "allowInsecure" "allowBroken" "denyPackages" "denyLicenses" "onlyPackages" "onlyLicenses"
  ]);
  strict = lists // value policy;
  load = system:
    if isFile then
      import ./load.nix {
        expression = toString source;
        arguments = value setArguments;
        inherit system;
        policy = strict;
      }
    else if builtins.isFunction source then
      source (builtins.intersectAttrs (builtins.functionArgs source) ({ inherit system; } // value setArguments))
    else source;
  host = builtins.currentSystem or system; # pure evaluation does not say it

  stated = /. + "${toString source}/.git-revision"; # what a channel of nixpkgs says of itself
  about = {
    name = if set == null then "nixpkgs" else "path";
    revision = if isFile && builtins.pathExists stated then builtins.replaceStrings [ "\n" ] [ "" ] (builtins.readFile stated) else "";
    source = "";
    created = "1980-01-01T00:00:00Z";
    narHash = "";
  } // value origin;

  # --- what is in the image ---------------------------------------------------------------------------------

  on = system: {
    resolve = import ./resolve.nix (load system);
    describe = import ./describe.nix { policy = strict // { inherit system; }; byClient = true; };
  };
  here = on host;
  there = if system == host then here else on system;
  find = at: wanted:
    if builtins.isString wanted then at.resolve { typed = wanted; path = import ./attribute-path.nix wanted; }
    else { kind = "attribute"; typed = wanted.name; attribute = wanted.name; value = wanted; };
  problem = result: {
    missing = "no package ${result.typed}";
    ambiguous = "${result.typed} could be ${builtins.concatStringsSep " and " result.names}, which differ only in case";
    no-package = "${result.typed} is no package but a ${result.type or "value"}";
    refused = "${result.name or ""} is refused (${result.reason or ""}: ${builtins.concatStringsSep ", " (result.what or [ ])}); see `policy`";
  }.${result.kind};

  # Facts for Python, and beside them the derivations of the outputs.
  item = at: wanted:
    let found = find at wanted; facts = at.describe found; in
    if facts.kind != "package" then facts
    else facts // { derivations = map (output: found.value.${output.name} or found.value) facts.outputs; };
  package = at: wanted: let found = item at wanted; in if found.kind == "package" then found else throw (problem found);
  content = wanted:
    if !builtins.isString wanted then package there wanted
    else {
      attribute = wanted;
      name = builtins.substring 33 (-1) (baseNameOf wanted);
      outputs = [ { name = "out"; path = wanted; } ];
      mainProgram = "";
      version = "";
      derivations = [ (builtins.storePath wanted) ];
    };
  optional = builtins.filter (found: found.kind == "package") (map (item there) (value always));
  inImage = map (package there) (value packages) ++ map content (value contents) ++ optional;
  tools = if extraCommands == "" then [ ] else map (package there) [ "bash" "coreutils" ];
  python = "${builtins.head (package here "python3").derivations}/bin/python3";
  # Nix starts a builder under its last name alone. A Python that was not built for its place in the store finds its library
  # by its full name, so `env` starts it, where the set has one.
  env = item here "coreutils";
  start = if env.kind == "package" then [ "${builtins.head env.derivations}/bin/env" python ] else [ python ];

  derivationsOf = builtins.concatMap (found: found.derivations);
  facts = map (found: { inherit (found) attribute name outputs mainProgram version; });

  isNamed = if named != null then named else value contents != [ ] || extraCommands != "" || value uid != 0 || value gid != 0;
  request = {
    inherit name tag format system extraCommands;
    maxLayers = value maxLayers;
    owner = [ (value uid) (value gid) ];
    named = isNamed;
    packages = facts inImage;
    tools = facts tools;
    origin = about;
    table = if table == null then null else builtins.path { path = /. + toString table; name = "table.json"; };
    systems = value systems;
  };

  # --- the builds -------------------------------------------------------------------------------------------

  # Here is `nix/` of a checkout, or `proxy/expressions` of an installed package.
  above = if builtins.pathExists ../image/nix_build.py then ../.. else ./..;
  modules = [
    "__init__" "core/__init__" "core/errors" "core/foreign" "core/model" "core/platforms" "core/text" "image/__init__" "image/base"
    "image/environment/__init__" "image/environment/data" "image/environment/languages" "image/environment/libraries"
    "image/layer_table" "image/layering" "image/manifest" "image/nix_build" "image/place_listing" "image/recipe" "image/root_tree" "image/store_tree" "image/tar"
  ];
  wantedFiles = [ "proxy" "proxy/core" "proxy/image" "proxy/image/environment" ] ++ map (module: "proxy/${module}.py") modules;
  code = builtins.path {
    path = above;
    name = "nixfront";
    filter = path: _: builtins.elem (builtins.substring (builtins.stringLength (toString above) + 1) (-1) path) wantedFiles;
  };
  run = step: attributes: derivation ({
    name = "${builtins.replaceStrings [ "/" ":" ] [ "-" "-" ] name}${if step == "tree" then "-tree" else ""}";
    system = host;
    inherit request step;
    __structuredAttrs = true;
    builder = builtins.head start;
    args = builtins.tail start ++ [ "-B" "-c" "import sys; sys.path.insert(0, '${code}'); from proxy.image.nix_build import main; main()" ];
    preferLocalBuild = true;
  } // attributes);

  tree = run "tree" { exportReferencesGraph.graph = derivationsOf inImage; };
  changed = import ./commands.nix {
    inherit system;
    tree = "${tree}/tree";
    modes = "${tree}/modes";
    script = extraCommands;
    bash = "${builtins.head (derivationsOf tools)}/bin/bash";
    path = builtins.concatStringsSep ":" (map (found: "${found}/bin") (derivationsOf tools));
    inputs = derivationsOf inImage;
  };
  images = map (system: import ./build-registry-image.nix (arguments // { inherit system; systems = [ ]; })) (value systems);
  isOfOneSystem = !(isFile || builtins.isFunction source);
in
if value systems != [ ] then
  if isOfOneSystem then throw "systems needs a package set that is a path or a function: a value has one system"
  else run "index" {
    outputs = [ "out" "image" ];
    images = map (image: { document = "${image}"; folder = "${image.image}"; }) images;
  }
else run "image" {
  outputs = [ "out" "image" ];
  exportReferencesGraph.graph = derivationsOf inImage ++ (if extraCommands == "" then [ ] else [ changed ]);
  changed = if extraCommands == "" then null else changed;
}
