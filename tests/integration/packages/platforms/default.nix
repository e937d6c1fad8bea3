# A package set for every system, whose packages this host's own builder makes: no test emulates a processor.
{ system, config ? { }, overlays ? [ ] }:
let
  make = attributes: derivation ({
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-euc" ''eval "$script"'' ];
    PATH = "/usr/bin:/bin";
  } // attributes);

  program = name: make {
    name = "${name}-1.0";
    inherit needs;
    script = ''
      mkdir -p $out/bin
      printf '#!/bin/sh\necho %s for ${system} with %s\n' ${name} "$needs" > $out/bin/${name}
      chmod +x $out/bin/${name}
    '';
  };
  needs = make { name = "data-1.0"; script = "mkdir -p $out/share; echo data > $out/share/data"; };
  isArm = system == "aarch64-linux";
in
{
  hello = program "hello";
  other = program "other";
  onlyAmd = program "only-amd" // { meta.platforms = [ "x86_64-linux" ]; };
  nowhere = program "nowhere" // { meta.platforms = [ "riscv64-linux" ]; };
  mixed = program "mixed" // (if isArm then { meta.broken = true; } else { meta.platforms = [ "riscv64-linux" ]; });
  failing = if isArm then make { name = "failing-1.0"; script = "echo no; exit 1"; } else program "failing";
  foreign = if isArm then make { name = "foreign-1.0"; system = "s390x-linux"; script = "true"; } else program "foreign";
}
