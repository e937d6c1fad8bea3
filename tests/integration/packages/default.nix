# A small package set in the shape of nixpkgs, for tests: each package is built in milliseconds by the host's shell
# (the tests let Nix's sandbox see /bin and /usr), and each stands for one thing that packages do.
{ system, config ? { }, overlays ? [ ] }:
let
  make = attributes: derivation ({
    inherit system;
    builder = "/bin/sh";
    args = [ "-euc" ''eval "$script"'' ];
    PATH = "/usr/bin:/bin";
  } // attributes);

  library = name: make {
    inherit name;
    script = "mkdir -p $out/lib; echo ${name} > $out/lib/lib${name}.so";
  };
  program = name: needs: make {
    name = "${name}-1.0";
    inherit needs;
    script = ''
      mkdir -p $out/bin $out/share/${name} $out/share/doc
      printf '#!/bin/sh\necho %s %s\n' ${name} "$needs" > $out/bin/${name}
      chmod +x $out/bin/${name}
      echo ${name} > $out/share/${name}/data
      echo ${name} > $out/share/doc/${name}
    '';
  };
  # Programs that work: those of the host.
  hostPrograms = name: programs: make {
    inherit name;
    script = ''
      mkdir -p $out/bin
      for n in ${programs}; do printf '#!/bin/sh\nexec /usr/bin/%s "$@"\n' $n > $out/bin/$n; chmod +x $out/bin/$n; done
    '';
  };
  many = builtins.genList (number: library "part${toString number}-1.0") 130;
in
rec {
  common = library "common-1.0";
  hello = program "hello" [ common ] // { meta = { description = "Says hello"; license.spdxId = "MIT"; homepage = "https://example.org/hello"; }; };
  alpha = program "alpha" [ common ];
  beta = program "beta" [ common hello ];

  # names
  camelCase.innerPackage = program "inner" [ ];
  _7zz = program "7zz" [ ];
  twice = program "twice" [ ];
  Twice = throw "an exact match comes first";
  sameName = twice;
  samenamE = twice;
  notAPackage = { description = "only a set"; };

  "gtk+" = program "gtk" [ ];
  "libstdc++" = library "libstdc";
  a___b = program "ab" [ ];
  "lua5.4" = program "lua" [ ];
  haskellPackages.ShellCheck = program "shellcheck" [ ];
  python3Packages = { numpy = library "numpy"; Numeric_Py = library "numericpy"; recurseForDerivations = true; };
  deep.er.and.Deeper = program "deeper" [ ];
  circle = { inherit circle hello; };
  aFunction = { lib }: hello;
  aList = [ hello ];
  aNumber = 1;
  aNull = null;
  someFile = ./default.nix;

  # what a policy looks at
  unfree = program "unfree" [ ] // { meta.license = { free = false; shortName = "unfreeRedistributable"; }; };
  halfFree = program "half-free" [ ] // { meta.license = [ { spdxId = "MIT"; } { free = false; fullName = "Secret Licence"; } ]; };
  copyleft = program "copyleft" [ ] // { meta.license = [ { spdxId = "GPL-3.0-or-later"; } { spdxId = "MIT"; } ]; };
  insecure = program "insecure" [ ] // { meta.knownVulnerabilities = [ "CVE-2026-0001: opens the door" ]; };
  markedBroken = program "marked-broken" [ ] // { meta.broken = true; };
  otherSystem = program "other-system" [ ] // { meta.platforms = [ "riscv64-linux" "x86_64-darwin" ]; };
  thrownUnfree = throw "Package ‘thrown-1.0’ in /some/where/default.nix:1 has an unfree license (‘unfree’), refusing to evaluate.";
  asserting = assert 1 == 2; hello;
  aborting = abort "this is how it aborts";
  loop = let x = x; in x;
  importing = import (make { name = "imported"; script = "echo '{ hello }: hello' > $out"; }) { inherit hello; };
  reading = builtins.readFile /etc/hostname;
  fetching = builtins.fetchurl "http://127.0.0.1:1/nothing";
  noSystem = derivation { name = "nosystem"; builder = "/bin/sh"; };

  # what the meta-packages and every image ask for
  bashInteractive = make {
    name = "bash-interactive-5.0";
    script = "mkdir -p $out/bin; for n in bash sh; do echo $n > $out/bin/$n; chmod +x $out/bin/$n; done";
  };
  coreutils = hostPrograms "coreutils-9.0" "cat chmod cp env ln ls mkdir mv printf readlink rm stat touch";
  bash = hostPrograms "bash-5.0" "bash sh";
  gnugrep = program "grep" [ ];
  findutils = program "find" [ ];
  git = program "git" [ ];
  getent = program "getent" [ ];
  gnutar = program "tar" [ ];
  gnused = program "sed" [ ];
  gawk = program "awk" [ ];
  procps = program "ps" [ ];
  gzip = program "gzip" [ ];
  diffutils = program "diff" [ ];
  less = program "less" [ ];
  curl = program "curl" [ ];
  strace = program "strace" [ ];
  nix = hostPrograms "nix-2.8.0" "nix nix-store";
  # As in nixpkgs: the outputs to install have no libraries, and the loader is in lib.
  glibc = make {
    name = "glibc-2.0";
    outputs = [ "out" "bin" ];
    script = "mkdir -p $out/lib $bin/bin; for n in ld-linux-x86-64.so.2 libc.so.6; do echo $n > $out/lib/$n; chmod +x $out/lib/$n; done";
  } // { meta.outputsToInstall = [ "bin" ]; };
  gcc-unwrapped.lib = library "stdc++";
  zlib = library "z";
  openssl.out = library "ssl";
  tzdata = make { name = "tzdata-2026"; script = "mkdir -p $out/share/zoneinfo/Europe; echo x > $out/share/zoneinfo/Europe/Berlin"; };
  glibcLocales = make { name = "locales-2"; script = "mkdir -p $out/lib/locale; echo x > $out/lib/locale/locale-archive"; };
  moreutils = program "sponge" [ ];
  nano = program "nano" [ ];
  cacert = make {
    name = "nss-cacert-3.0";
    script = "mkdir -p $out/etc/ssl/certs; echo certificates > $out/etc/ssl/certs/ca-bundle.crt";
  };

  # shapes of outputs
  several = make {
    name = "several-1.0";
    outputs = [ "out" "doc" "dev" ];
    script = "mkdir -p $out/bin $doc/share/doc/several $dev/include; echo x > $out/bin/several; chmod +x $out/bin/several";
  } // { meta.outputsToInstall = [ "out" "doc" ]; };
  singleProgram = make { name = "single-program"; script = "echo run > $out; chmod +x $out"; };
  singleFile = make { name = "single-file"; script = "echo data > $out"; };
  conflicting = make {
    name = "conflicting-1.0";
    script = "mkdir -p $out/bin; for n in alpha other; do echo mine > $out/bin/$n; chmod +x $out/bin/$n; done";
  };
  propagating = make {
    name = "propagating-1.0";
    script = "mkdir -p $out/nix-support $out/bin; echo ${alpha} > $out/nix-support/propagated-user-env-packages";
  };
  odd = make {
    name = "odd-1.0";
    script = ''
      mkdir -p $out/empty $out/share
      ln -s missing $out/share/dangling
      ln -s ../share $out/empty/up
      name=$(printf 'n%.0s' $(seq 200))
      mkdir -p $out/share/$name; echo long > $out/share/$name/$name
      printf x > "$out/share/sp ace"
      printf x > "$out/share/$(printf '\303\251t\303\251')"
      printf x > "$out/share/$(printf 'latin\351')"
      ln -s . $out/share/loop
      ln -s /var/lib $out/state
    '';
  };
  whiteout = make { name = "whiteout-1.0"; script = "mkdir $out; touch $out/.wh.nix"; };
  whiteoutInside = make { name = "whiteout-inside-1.0"; script = "mkdir -p $out/share/deep; touch $out/share/deep/.wh..wh..opq"; };
  large = make { name = "large-1.0"; script = "mkdir $out; yes nixfront | head -c 5000000 > $out/data"; };
  # More bytes than are sent in one request, compressed too.
  noise = make {
    name = "noise-1.0";
    script = "mkdir $out; perl -e 'srand(7); print pack(q(L), rand(2**32)) for 1..500000' > $out/data";
  };
  manyParts = make { name = "many-parts-1.0"; parts = many; script = "mkdir -p $out; echo $parts > $out/parts"; };

  # failures and time
  broken = make { name = "broken-1.0"; script = "echo this is how it failed >&2; exit 3"; };
  needsBroken = program "needs-broken" [ broken ];
  refused = throw "refused has been removed, use hello";
  talkative = make { name = "talkative-1.0"; script = "seq 1 60000 >&2; mkdir $out"; };
  slow = make { name = "slow-1.0"; script = "sleep 2; mkdir $out; echo slow > $out/data"; };
  slowCtr = make { name = "slow-ctr"; script = "sleep 2; mkdir $out; echo ctr > $out/data"; };
  slowPodman = make { name = "slow-podman"; script = "sleep 2; mkdir $out; echo podman > $out/data"; };
  endless = make { name = "endless-1.0"; script = "echo this is how far it came >&2; sleep 600"; };
  # These wait until a test lets them go on: tests/support/wait.py.
  gated = make { name = "gated-1.0"; script = "until [ -e /gate/open ]; do sleep 0.05; done; mkdir $out; echo gated > $out/data"; };
  failsGated = make { name = "fails-gated-1.0"; script = "until [ -e /gate/open ]; do sleep 0.05; done; echo this is how it failed >&2; exit 3"; };
  thinking =
    let numbers = builtins.genList (x: x) 2500; count = builtins.foldl' (sum: _: sum + 1) 0;
    in assert builtins.foldl' (sum: _: sum + count numbers) 0 numbers == 6250000; slow;
}
