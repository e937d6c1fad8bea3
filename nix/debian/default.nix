# A set of packages shaped like nixpkgs and made of Debian packages: for a host that reaches a Debian archive
# but neither a binary cache nor the sources of nixpkgs.
#
#   lock     absolute path of the lock, JSON (`proxy/nix/sets/debian` writes it and says what is in it)
#   builder  absolute path of the builder: a Python, patchelf and their libraries in one folder, of the lock's system
#   hereLock, hereBuilder   the same of the system of this host, where the lock is for another one; else empty
#
# One store path for each node of the lock. The .debs are fetched by Nix itself (`builtin:fetchurl`), fixed by their
# SHA-256, so a store path does not depend on the mirror. Every build runs in the sandbox with programs of the
# builder alone; the builder enters the store under its content's hash, the same on each host. Nix is lazy: a
# request fetches and builds its own closure and no more.
#
# The derivations of a lock are those that a host of its system builds, so their store paths are the same on every host. A host
# of another system has a stand-in for each of them: the same build by the builder of this host. It gives the
# same bytes, but for the store paths in them (proxy/nix/stand_ins.py puts these right).
{ system, lock, builder, hereLock ? "", hereBuilder ? "", ... }:
let
  # By Nix's name of a system: Debian's name in paths, the loader of glibc, and the number of the processor in ELF (e_machine).
  systems = {
    x86_64-linux = { multiarch = "x86_64-linux-gnu"; loader = "ld-linux-x86-64.so.2"; machine = 62; };
    aarch64-linux = { multiarch = "aarch64-linux-gnu"; loader = "ld-linux-aarch64.so.1"; machine = 183; };
  };

  read = file: builtins.fromJSON (builtins.readFile (/. + file));
  data = read lock;
  target = systems.${data.system};

  toolsOf = data: folder:
    let
      by = {
        inherit (data) system;
        # The lock has the hash, so an evaluation does not read the folder again once the store has it.
        tools = builtins.path {
          path = /. + folder;
          name = "debian-builder";
          sha256 = data.builder.hash;
        };
      };
    in
    by // { bytecode = bytecodeOf by; };
  own = toolsOf data builder;
  here = if hereLock == "" then own else toolsOf (read hereLock) hereBuilder;

  code = builtins.path {
    path = ./.;
    name = "debian-build";
    filter = path: _: builtins.match ".*[.]py" path != null;
  };

  loaderOf = by: "${by.tools}/lib/${systems.${by.system}.loader}";
  python = by: [ "--library-path" "${by.tools}/lib" "${by.tools}/bin/python3.11" "-S" ];

  # The modules that a build imports, compiled. Without it each build compiles them anew, which takes longer than all else that it does.
  bytecodeOf = by: derivation {
    inherit (by) system tools;
    name = "debian-builder-bytecode";
    builder = loaderOf by;
    args = python by ++ [ "${code}/compiled.py" ];
    PYTHONHOME = by.tools;
    PYTHONPYCACHEPREFIX = builtins.placeholder "out";
    # `inputs` reads them when a module imports it; this derivation builds no package.
    closure = "";
    glibc = "";
    shell = "";
    loader = "";
    machine = 0;
    multiarch = "";
    run = "";
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

  build = by: built: name: node:
    derivation {
      inherit (by) system tools;
      inherit (target) multiarch machine;
      name = storeName "${name}-${node.version}";
      builder = loaderOf by;
      args = python by ++ [ "-B" "${code}/build.py" ];
      PYTHONHOME = by.tools;
      PYTHONPYCACHEPREFIX = by.bytecode;
      run = loaderOf by;
      disallowedReferences = [ by.tools by.bytecode code ];
      debs = map fetch node.debs;
      deps = map (dep: built.${dep}) node.deps;
      names = closureOf node.deps;
      closure = map (dep: built.${dep}) (closureOf node.deps);
      # Scripts need a shell and programs need the loader, whether or not Debian says so (both are Essential there).
      shell = if builtins.elem name beneathShell then "" else built.bash;
      glibc = if name == "glibc" then "" else built.glibc;
      loader = target.loader;
      fixups = builtins.toJSON node.fixups;
    };
  buildAll = by: let built = builtins.mapAttrs (build by built) data.nodes; in built;
  nodes = buildAll own;
  standIns = buildAll here;

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
      # What may be in its closure: each store path, and its stand-in.
      nixfrontClosure = map (name: { for = nodes.${name}; standIn = standIns.${name}; }) (closureOf [ node "bash" "glibc" ]);
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
assert builtins.elem system [ own.system here.system ]
  || throw "the Debian package set is made for ${data.system}, not for ${system}";
builtins.foldl' place { } (builtins.attrNames data.attributes)
