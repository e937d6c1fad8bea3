# A package set whose author means harm, for tests. Small: Nix or a builder makes what is large.
{ system }:
let
  make = name: script: makeWith name { } script;
  makeWith = name: attributes: script: derivation ({
    inherit name system script;
    builder = "/bin/sh";
    args = [ "-euc" ''eval "$script"'' ];
    PATH = "/usr/bin:/bin:/usr/sbin:/sbin";
  } // attributes);
  program = name: make name "mkdir -p $out/bin; echo ${name} > $out/bin/${name}; chmod +x $out/bin/${name}";

  double = text: count: if count == 0 then text else double (text + text) (count - 1);
  megabyte = double "megabyte" 17;
  many = builtins.genList (number: number);
  times = count: action: builtins.foldl' (_: action) 0 (many count);
  control = builtins.fromJSON ''"\u001b[2J\u0007\u009b"'';
in
rec {
  # what a policy has to see through
  secretapp = program "secretapp" // {
    src = program "secretapp-src";
    unwrapped = program "secretapp-unwrapped";
    drvAttrs.src = secretapp.src;
    meta.license = { free = false; shortName = "secret"; };
  };
  deniedpkg = program "deniedpkg" // { src = program "source"; };
  pkgs = { inherit deniedpkg secretapp interpreter; };
  interpreter = program "interpreter" // {
    pkgs = { inherit secretapp; library = program "library"; };
    meta.license.spdxId = "MIT";
  };
  insecure = program "insecure" // { src = program "insecure-src"; meta.knownVulnerabilities = [ "CVE-2026-0001" ]; };

  # evaluations without an end or a bound
  eatsMemory = let grow = list: if builtins.length list < 0 then list else grow (list ++ list); in grow [ 1 ];
  recurses = let down = number: 1 + down (number + 1); in down 0;
  neverEnds = times 100000 (_: times 100000 (_: builtins.hashString "sha256" megabyte));
  printsLog = times 1000 (_: builtins.trace megabyte 0);
  printsNames = builtins.listToAttrs (map (n: { name = "${toString n}${megabyte}"; value = n; }) (many 100));
  throwsMegabyte = throw "so much: ${megabyte}";

  # meta and names
  metaList = program "meta-list" // { meta = [ "MIT" ]; };
  metaFunction = program "meta-function" // { meta = _: { }; };
  licenceFunction = program "licence-function" // { meta.license = _: { free = true; }; };
  freeIsText = program "free-is-text" // { meta.license.free = "yes"; };
  vulnerabilitiesText = program "vulnerabilities-text" // { meta.knownVulnerabilities = "CVE-2026-0002"; };
  vulnerabilitiesFunction = program "vulnerabilities-function" // { meta.knownVulnerabilities = [ (_: 1) ]; };
  programFunction = program "program-function" // { meta = { mainProgram = _: 1; description = { }; }; };
  throwsDescription = program "throws-description" // { meta.description = throw "no description"; };
  throwsLicence = program "throws-licence" // { meta.license = throw "no licence"; };
  longDescription = program "long-description" // { meta = { description = megabyte; mainProgram = megabyte; }; };
  controlLicence = program "control-licence" // { meta.license = { free = false; shortName = control; }; };
  controlDescription = program "control-description" // { meta.description = control; };
  controlName = program "control-name" // { name = "x${control}"; };
  nameFunction = program "name-function" // { name = _: 1; };
  versionList = program "version-list" // { version = [ 1 ]; pname = 5; };
  latin = program "latin" // { meta.description = builtins.substring 0 1 "é"; };
  ${control} = program "control";

  # values that would be arguments of Nix, or files of this host
  option = { type = "derivation"; name = "option"; drvPath = ""; outPath = "--option"; };
  hostFile = { type = "derivation"; name = "host-file"; drvPath = ""; outPath = "/etc/passwd"; };
  climbs = { type = "derivation"; name = "climbs"; inherit (deniedpkg) drvPath; outPath = "${deniedpkg.outPath}/../../../etc"; };
  outputNames = program "output-names" // { meta.outputsToInstall = [ "out,../x" ]; };

  # evaluations and builders that read this host
  fetchesFolder = program (builtins.readFile (builtins.fetchTree { type = "path"; path = "/etc"; } + "/hostname"));
  fetchesFlake = program (builtins.getFlake "path:/etc").outPath;
  readsFile = program (builtins.readFile /etc/hostname);
  environment = makeWith "environment" {
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" "nothing has this hash";
    impureEnvVars = [ "AWS_SECRET_ACCESS_KEY" "OTEL_EXPORTER_OTLP_HEADERS" "NIX_CONFIG" "HOME" ];
  } "echo aws=$AWS_SECRET_ACCESS_KEY otel=$OTEL_EXPORTER_OTLP_HEADERS home=$HOME; echo $NIX_CONFIG; false";

  # a root tree without an end: its links are 2^40 ways to the same files
  endless = make "endless" ''
    mkdir -p $out/etc; cd $out/etc; i=0
    while [ $i -lt 40 ]; do mkdir d$i; ln -s ../d$((i+1)) d$i/a; ln -s ../d$((i+1)) d$i/b; i=$((i+1)); done; mkdir d40
  '';

  # names a store path that it does not need
  private = make "private" "mkdir -p $out/share/inside; echo x > $out/share/inside/private-name";
  peeks = derivation {
    name = "peeks"; inherit system; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
    target = builtins.unsafeDiscardStringContext private.outPath;
    args = [ "-ec" "mkdir -p $out/share $out/nix-support; ln -s $target/share $out/share/theirs; echo $target > $out/nix-support/propagated-user-env-packages" ];
  };

  # what a store path can hold
  manyFiles = make "many-files" "mkdir -p $out/share/many $out/bin; cd $out/share/many; seq 50000 | split -l 1 -a 5; cd $out/bin; seq 1000 | split -l 1";
  setuid = make "setuid" "mkdir -p $out/bin; echo x > $out/bin/setuid; chmod 755 $out/bin/setuid; chmod 6755 $out/bin/setuid || true";
  fifo = make "fifo" "mkdir -p $out; mkfifo $out/fifo";
  socket = make "socket" ''mkdir -p $out; perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => "$ENV{out}/s", Listen => 1) or die' '';
  device = make "device" "mkdir -p $out; mknod $out/null c 1 3";
  cases = make "cases" "mkdir -p $out/bin $out/share; for n in readme README ReadMe; do echo $n > $out/share/$n; echo $n > $out/bin/$n; done; chmod +x $out/bin/*";
  sparse = make "sparse" "mkdir -p $out; truncate -s 300M $out/sparse; echo end >> $out/sparse";
  names = make "names" ''
    mkdir -p $out/bin $out/share
    for n in 'new\nline' 'bell\a' 'clear\033[2J' '--rf' '...' '~' 'a\\b' 'c\tr\r'; do
      name=$(printf -- "$n."); name=''${name%.}
      echo x > "$out/share/$name"; echo x > "$out/bin/$name"; chmod +x "$out/bin/$name"
    done
  '';
}
