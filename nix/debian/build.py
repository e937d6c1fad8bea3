"""One store path out of Debian packages: runs in the Nix sandbox, under the builder's own Python.

Unpacks the .debs, folds /usr into the top, then makes the files find each other in the store: symlinks, ELF
interpreters and rpaths, first lines of scripts, and the fix-ups of `packages.json`. No shell is run.

Rules of this program: the output depends on its environment (`inputs`) and nothing else. Every listing is sorted and
every choice between two candidates is total, so that two builds give the same bytes.
"""

import json
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path
from typing import BinaryIO

import fixups
from elf import index_libraries, repair_elf
from inputs import MULTIARCH, closure, environment, out, regular_files, shell, walk

TOPS = ("bin", "sbin", "lib", "lib64", "etc", "opt")
# Documentation, translations (there is no locale to use them in), and what only an init system or a shell log-in reads.
PRUNED = re.compile(
    "(share/(doc|doc-base|man|info|locale|lintian|linda|bug|menu|apport|bash-completion|zsh|pixmaps|applications)"
    "|lib/(systemd|tmpfiles.d|sysusers.d)"
    "|etc/(init.d|cron[.a-z]*|logrotate.d|apparmor.d|default|bash_completion.d|profile.d))(/|$)"
)


def main() -> None:
    """Make `out`."""
    out.mkdir()
    for deb in environment["debs"].split():
        unpack(Path(deb))
    for link in [path for path in walk(out) if path.is_symlink()]:
        repair_link(link)
    libraries = index_libraries()
    for path in regular_files():
        repair_elf(path, libraries)
    fixups.apply(json.loads(environment["fixups"]))
    place_modules()
    for path in regular_files():
        repair_script(path)
    # What Debian declares is kept with the package, whether or not its bytes name it: Nix scans for references.
    fixups.record("propagated-build-inputs", environment["deps"].split())


# --- unpacking --------------------------------------------------------------------------------------------


def unpack(deb: Path) -> None:
    """The files of a .deb that belong into a store path, put into `out`."""
    with deb.open("rb") as file:
        seek_member(file, b"data.tar")
        with tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                name = folded(member.name)
                if name is None or PRUNED.match(name):
                    continue
                member.name = name
                if member.islnk():
                    member.linkname = str(out / (folded(member.linkname) or ""))
                executable = member.isdir() or member.mode & 0o100
                member.mode = 0o755 if executable else 0o644  # the store knows no other mode
                member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                if member.islnk():  # Nix stores hard links as two files
                    shutil.copy(member.linkname, out / name)
                else:
                    tar.extract(member, out)


def seek_member(file: BinaryIO, prefix: bytes) -> None:
    """Leave `file` at the content of the first member of the `ar` archive with such a name.

    ar(5): a magic line, then for each member a header of 60 bytes, name first, size at 48; even offsets.
    """
    if file.read(8) != b"!<arch>\n":
        sys.exit(f"{file.name} is no .deb")
    while header := file.read(60):
        if header.startswith(prefix):
            return
        size = int(header[48:58])
        file.seek(size + size % 2, os.SEEK_CUR)
    sys.exit(f"{file.name} holds no {prefix.decode()}")


def folded(name: str) -> str | None:
    """`./usr/bin/x` -> `bin/x`; None for what no store path holds (`/var`, `/run`, the top itself)."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if parts[:1] == ["usr"]:
        parts = parts[1:]
    elif parts[:1] and parts[0] not in TOPS:
        return None
    return "/".join(parts) or None


# --- modules ----------------------------------------------------------------------------------------------


def place_modules() -> None:
    """Links to the modules of Python and Perl from where packages of nixpkgs have them.

    Perl looks for a folder with its version in each folder of PERL5LIB; Debian has such modules elsewhere.
    """
    python = out / "lib/python3/dist-packages"
    for stdlib in sorted(path.parent for root in closure for path in root.glob("lib/python3.*/os.py")):
        if python.is_dir():
            fixups.replace_link(out / "lib" / stdlib.name / "site-packages", python)
    for folder in (out / "share/perl5").glob("*"):
        fixups.replace_link(out / "lib/perl5/site_perl" / folder.name, folder)
    for folder in (out / MULTIARCH / "perl5").glob("5.*"):
        fixups.replace_link(out / f"lib/perl5/site_perl/{folder.name}.0", folder)


# --- symlinks ---------------------------------------------------------------------------------------------


def repair_link(link: Path) -> None:
    """Point a symlink to where its target is in the store; drop one that only update-alternatives would fill."""
    target = str(link.readlink())
    if not target.startswith("/") and os.path.lexists(link.parent / target):
        return
    inside = link.relative_to(out).parent
    for base in ("/usr", "/"):  # the package may have held the link in either
        name = folded(os.path.normpath(Path(base, inside, target)))
        for root in [out, *closure]:
            found = root / name if name else link
            if found != link and os.path.lexists(found):
                link.unlink()
                link.symlink_to(found)
                return
    if target.startswith("/etc/alternatives"):
        link.unlink()


# --- scripts ----------------------------------------------------------------------------------------------


def repair_script(path: Path) -> None:
    """Let a script's first line name an interpreter in the store; Perl also hears where its modules are."""
    if not path.stat().st_mode & 0o100:
        return
    with path.open("rb") as file:
        if file.read(2) != b"#!":
            return
        text = b"#!" + file.read()
    line = re.match(rb"#! *(/\S*/)(?:env +)?([^\s/-]\S*)", text)
    if not line or line[1].startswith(b"/nix/"):
        return
    name = line[2].decode()
    interpreter = program(name)
    if interpreter is None:
        return
    first, newline, rest = text[line.end() :].partition(b"\n")
    if name == "perl":
        modules = [str(found) for root in [out, *closure] if (found := root / "share/perl5").is_dir()]
        if modules:
            rest = f"use lib qw({' '.join(modules)});\n".encode() + rest
    path.write_bytes(f"#!{interpreter}".encode() + first + newline + rest)


def program(name: str) -> Path | None:
    """Where in the store a script's interpreter is."""
    if name in ("sh", "dash", "bash"):
        found = shell / "bin" / ("bash" if name == "bash" else "sh")
        return found if os.path.lexists(found) else None
    candidates = (root / "bin" / name for root in [*closure, out])
    return next((path for path in candidates if os.path.lexists(path)), None)


if __name__ == "__main__":
    main()
