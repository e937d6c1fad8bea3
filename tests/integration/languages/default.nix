# Libraries in the layout of nixpkgs, and interpreters that look into their own store path alone, as those of nixpkgs do. The
# interpreters are the host's: a container of such an image gets the host's /usr, /lib/x86_64-linux-gnu and /lib64 as volumes.
{ system }:
let
  make = attributes: derivation ({
    inherit system;
    builder = "/bin/sh";
    args = [ "-euc" ''eval "$script"'' ];
    PATH = "/usr/bin:/bin";
  } // attributes);

  # As `buildPythonPackage` of nixpkgs: modules, and what they propagate, the interpreter with them.
  module = python: name: text: propagated: make {
    inherit name text;
    propagated = propagated ++ [ python ];
    script = ''
      folder=$out/lib/${python.libPrefix}/site-packages/''${name%-*}
      mkdir -p $folder $out/nix-support
      printf '%s\n' "$text" > $folder/__init__.py
      echo $propagated > $out/nix-support/propagated-build-inputs
    '';
  };
  shared = name: folder: file: text: make {
    inherit name text;
    script = ''
      mkdir -p $out/${folder}
      printf '%s\n' "$text" > $out/${folder}/${file}
    '';
  };
in
rec {
  coreutils = make {
    name = "coreutils-9.0";
    script = "mkdir -p $out/bin; for n in env sh; do ln -s /usr/bin/$n $out/bin/$n; done";
  };

  # A Python of its own, with the host's standard library, and what nixpkgs' `sitecustomize` does.
  python3 = make {
    name = "python3-3.11.9";
    script = ''
      mkdir -p $out/bin $out/lib/python3.11/site-packages
      cp /usr/bin/python3.11 $out/bin/python3.11
      ln -s python3.11 $out/bin/python3
      for path in /usr/lib/python3.11/*; do
        case $path in */sitecustomize.py) ;; *) ln -s $path $out/lib/python3.11/ ;; esac
      done
      printf '%s\n' 'import os, site' \
        'for path in filter(None, os.environ.pop("NIX_PYTHONPATH", "").split(":")):' \
        '    site.addsitedir(path)' > $out/lib/python3.11/sitecustomize.py
    '';
  } // { libPrefix = "python3.11"; };

  python3Packages = {
    requests = module python3 "requests-2" "import urllib; import idna; text = idna.text" [ idna ];
    idna = idna;
    old = module (python3 // { libPrefix = "python3.12"; }) "old-1" "" [ ];
  };
  idna = module python3 "idna-3" "text = 'idna 3'" [ ];
  # A program that brings another version of a library.
  tool =
    let own = module python3 "idna-1" "text = 'idna 1'" [ ]; in
    make {
      name = "tool-1";
      inherit own;
      text = ''
        #!${python3}/bin/python3.11
        import site
        site.addsitedir("${own}/lib/python3.11/site-packages")
        import idna
        print(idna.text)
      '';
      script = "mkdir -p $out/bin; printf '%s' \"$text\" > $out/bin/tool; chmod +x $out/bin/tool";
    };
  # As `python3.withPackages`: an interpreter that sets the variable itself.
  withIdna = make {
    name = "python3-3.11.9-env";
    script = ''
      mkdir -p $out/bin
      printf '#!/usr/bin/sh\nNIX_PYTHONPATH=%s exec %s "$@"\n' ${idna}/lib/python3.11/site-packages ${python3}/bin/python3.11 \
        > $out/bin/python3.11
      chmod +x $out/bin/python3.11
      ln -s python3.11 $out/bin/python3
    '';
  };

  perl = make { name = "perl-5"; script = "mkdir -p $out/bin; ln -s /usr/bin/perl $out/bin/perl"; };
  perlPackages.Greet = shared "perl-Greet-1" "lib/perl5/site_perl" "Greet.pm" "package Greet; sub text { 'from perl' } 1;";
  nodejs = make { name = "nodejs-22"; script = "mkdir -p $out/bin; ln -s /usr/bin/node $out/bin/node"; };
  nodePackages.greet = shared "greet-1" "lib/node_modules/greet" "index.js" "module.exports = 'from node'";
  lua = make { name = "lua-5.4.6"; script = "mkdir -p $out/bin; ln -s /usr/bin/lua5.4 $out/bin/lua"; };
  luaPackages.greet = shared "lua5.4-greet-1" "share/lua/5.4" "greet.lua" "return 'from lua'";

  # As nixpkgs' Ruby: the version of its folder is the one in `gemPath`.
  ruby = make { name = "ruby-3.1.2"; script = "mkdir -p $out/bin $out/lib/ruby/3.1.0; ln -s /usr/bin/ruby3.1 $out/bin/ruby"; };
  rubyPackages.greet = make {
    name = "ruby3.1-greet-1";
    script = ''
      folder=$out/lib/ruby/gems/3.1.0
      mkdir -p $folder/specifications $folder/gems/greet-1/lib
      echo 'Gem::Specification.new("greet", "1") { |gem| gem.summary = "greets" }' > $folder/specifications/greet-1.gemspec
      echo 'GREETING = "from ruby"' > $folder/gems/greet-1/lib/greet.rb
    '';
  };
  # As nixpkgs' R: a script that sets R_HOME. Debian's own script takes no R_HOME, and reads files of /etc.
  R = make {
    name = "R-4.2.2";
    script = ''
      mkdir -p $out/bin $out/lib/R/etc
      for name in bin lib library modules; do ln -s /usr/lib/R/$name $out/lib/R/; done
      echo R_DEFAULT_PACKAGES=NULL > $out/lib/R/etc/Renviron # the default ones need files of /etc
      libraries=/usr/lib/x86_64-linux-gnu
      printf '#!/usr/bin/sh\nR_HOME=%s LD_LIBRARY_PATH=%s exec /usr/lib/R/bin/exec/R "$@"\n' \
        $out/lib/R /usr/lib/R/lib:$libraries/blas:$libraries/lapack > $out/bin/R
      chmod +x $out/bin/R
    '';
  };
  rPackages.greet = make {
    name = "r-greet-1";
    text = ''
      out <- file.path(Sys.getenv("out"), "library", "greet")
      tools:::.install_package_description(".", out)
      tools:::.install_package_namespace_info(".", out)
      tools:::makeLazyLoadDB(list2env(list(text = "from R")), file.path(out, "R", "greet"))
    '';
    script = ''
      mkdir -p $out/library/greet/R
      printf 'Package: greet\nVersion: 1.0\n' > DESCRIPTION
      echo 'export(text)' > NAMESPACE
      cp DESCRIPTION NAMESPACE $out/library/greet
      cp /usr/share/R/share/R/nspackloader.R $out/library/greet/R/greet
      printf '%s' "$text" > install.R
      ${R}/bin/R -s -f install.R
    '';
  };

  # Data in the places of nixpkgs' packages, made by the host's programs.
  tzdata = make {
    name = "tzdata-1";
    script = "mkdir -p $out/share/zoneinfo; echo 'Zone Nowhere 5:45 - NOW' | /usr/sbin/zic -d $out/share/zoneinfo -";
  };
  ncurses = make {
    name = "ncurses-1";
    script = "mkdir -p $out/share/terminfo; echo 'greet-terminal|for tests,cols#42,' | tic -x -o $out/share/terminfo -";
  };
  font = make {
    name = "font-1";
    script = "mkdir -p $out/share/fonts; cp $(find /usr/share/fonts -name '*.ttf' | sort | head -n 1) $out/share/fonts/greet.ttf";
  };
  # An application, a page of the manual, and users.
  greet = make {
    name = "greet-1";
    script = ''
      mkdir -p $out/etc $out/share/applications $out/share/man/man1
      printf '[Desktop Entry]\nType=Application\nName=Greet\nExec=env\n' > $out/share/applications/greet.desktop
      echo '.TH GREET 1' > $out/share/man/man1/greet.1
      printf 'root:x:0:0::/elsewhere:/bin/sh\ngreet:x:71:71::/var/lib/greet:/bin/sh\n' > $out/etc/passwd
      printf 'greet:x:71:\nvideo:x:26:\n' > $out/etc/group
    '';
  };
  # As nixpkgs' man: its configuration is its own.
  man = make {
    name = "man-db-2.11";
    script = ''
      mkdir -p $out/bin
      printf '#!/usr/bin/sh\nexec /usr/bin/man -C /nonexistent "$@"\n' > $out/bin/man
      chmod +x $out/bin/man
    '';
  };
  # A name that deletes /nix in every engine.
  deletes = make { name = "deletes-1"; script = "mkdir -p $out/bin; echo > $out/.wh.nix"; };
  nix = make { name = "nix-2.18.1"; script = "mkdir -p $out/bin; for n in nix nix-store; do ln -s /usr/bin/env $out/bin/$n; done"; };
}
