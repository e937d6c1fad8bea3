# A set of packages shaped like nixpkgs and made of Debian packages: for a host that reaches a Debian archive
# but neither a binary cache nor the sources of nixpkgs.
#
#   lock     absolute path of the lock, JSON (proxy/debian.py writes it and says what is in it)
#   builder  absolute path of the builder: a Python, patchelf and their libraries in one folder
#
# One store path for each node of the lock. The .debs are fetched by Nix itself (`builtin:fetchurl`), fixed by their
# SHA-256, so a store path does not depend on the mirror. Every build runs in the sandbox with programs of the
# builder alone; the builder enters the store under its content's hash, the same on each host. Nix is lazy: a
# request fetches and builds its own closure and no more.
{ system, lock, builder, ... }:
let
  data = builtins.fromJSON (builtins.readFile (/. + lock));

  # The hash is known, so an evaluation does not read the folder again once the store has it.
  tools = builtins.path {
    path = /. + builder;
    name = "debian-builder";
    sha256 = data.builder.hash;
  };

  code = builtins.path {
    path = ./.;
    name = "debian-build";
    filter = path: _: builtins.match ".*[.]py" path != null;
  };

  storeName = builtins.replaceStrings [ "~" ":" "%" ] [ "-" "-" "-" ];

  fetch = deb: derivation {
    name = storeName (baseNameOf deb.url);
    system = "builtin";
    builder = "builtin:fetchurl";
    inherit (deb) url;
    outputHash = deb.sha256;
    outputHashAlgo = "sha256";
    outputHashMode = "flat";
    preferLocalBuild = true;
  };

  closureOf = names: map (item: item.key) (builtins.genericClosure {
    startSet = map (key: { inherit key; }) names;
    operator = item: map (key: { inherit key; }) data.nodes.${item.key}.deps;
  });
  beneathShell = closureOf [ "bash" ];

  build = name: node: derivation {
    inherit system;
    name = storeName "${name}-${node.version}";
    builder = "${tools}/lib/ld-linux-x86-64.so.2";
    args = [ "--library-path" "${tools}/lib" "${tools}/bin/python3.11" "-B" "-S" "${code}/build.py" ];
    PYTHONHOME = tools;
    inherit tools;
    disallowedReferences = [ tools code ];
    debs = map fetch node.debs;
    deps = map (dep: nodes.${dep}) node.deps;
    names = closureOf node.deps;
    closure = map (dep: nodes.${dep}) (closureOf node.deps);
    # Scripts need a shell and programs need the loader, whether or not Debian says so (both are Essential there).
    shell = if builtins.elem name beneathShell then "" else nodes.bash;
    glibc = if name == "glibc" then "" else nodes.glibc;
    fixups = builtins.toJSON node.fixups;
  };
  nodes = builtins.mapAttrs build data.nodes;

  package = { node, program, ... }:
    let
      facts = data.nodes.${node};
      upstream = builtins.match "(.*)-[^-]*" facts.version;
    in
    nodes.${node} // {
      pname = node;
      # As nixpkgs has it: without the revision that Debian adds.
      version = if upstream == null then facts.version else builtins.head upstream;
      meta = { inherit (facts) description; } // (if program == "" then { } else { mainProgram = program; });
    };

  # { "python3Packages.numpy" = P; } -> { python3Packages.numpy = P; }
  place = set: path:
    let
      parts = builtins.filter builtins.isString (builtins.split "[.]" path);
      first = builtins.head parts;
      value = package data.attributes.${path};
    in
    if builtins.length parts == 1 then set // { ${first} = value; }
    else set // { ${first} = set.${first} or { } // { ${builtins.elemAt parts 1} = value; }; };
in
assert system == data.system || throw "the Debian package set is made for ${data.system}, not for ${system}";
builtins.foldl' place { } (builtins.attrNames data.attributes)
