"""The builder of the Debian package set: a Python, patchelf and their libraries, unpacked into one folder.

A build of the set runs nothing else, so nothing of the host enters the sandbox. The folder has only what `build.py` uses. It
goes into the Nix store of each host, and must be the same there.

apt fetches the files, and not Nix: Nix needs this folder to unpack any .deb, so it has to exist before the first build. apt
has already reached the archive, perhaps by proxies that only its own configuration names. Both would check the hash.
"""

import os
import re
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

from debian.debfile import DebFile

#: The Debian packages of the builder.
PACKAGES = (
    "libbz2-1.0",
    "libc6",
    "libexpat1",
    "libgcc-s1",
    "liblzma5",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libstdc++6",
    "patchelf",
    "python3.11-minimal",
    "zlib1g",
)

_PROGRAMS = re.compile(r"usr/bin/(python3\.11|patchelf)")
_LIBRARIES = re.compile(
    r"(usr/)?lib/\w+-linux-gnu/"
    r"((ld-linux-[\w-]+|libc|libm|libdl|libpthread|libutil|libbz2|libexpat|libgcc_s|liblzma|libstdc\+\+|libz)\.so\.[0-9.]+)"
)
_MODULES = re.compile(r"usr/(lib/python3\.11/.*)")
_UNUSED_MODULES = re.compile(
    r"lib/python3\.11/"
    r"(__pycache__|asyncio|concurrent|config-|ctypes|curses|dbm|distutils|email|ensurepip|html|http|idlelib|lib2to3"
    r"|multiprocessing|pydoc|sqlite3|test|tkinter|tomllib|turtle|unittest|venv|wsgiref|xml|zoneinfo"
    r"|sitecustomize|_sysconfigdata|lib-dynload/_(asyncio|codecs|ctypes|curses|dbm|decimal|elementtree|hashlib|sqlite|ssl|test|xx))"
)


def place(name: str) -> str | None:
    """Where a member of a .deb belongs in the builder; None for a member that it does not need.

    All libraries share one folder, because the loader searches only one.
    """
    name = name.removeprefix("./")
    if _PROGRAMS.fullmatch(name):
        return name.removeprefix("usr/")
    if library := _LIBRARIES.fullmatch(name):
        return f"lib/{library[2]}"
    module = _MODULES.fullmatch(name)
    return module[1] if module and not _UNUSED_MODULES.match(module[1]) else None


def unpack(debs: Iterable[Path], folder: Path) -> None:
    """Unpack the .debs into `folder`, which appears whole or not at all, also after a power failure."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for deb in sorted(debs):
        package = DebFile(str(deb))
        with package.data.tgz() as tar:
            for member in tar:
                name = place(member.name)
                if name is not None and (member.isfile() or member.issym()):
                    _write(tar, member, part / name)
        package.close()
    os.sync()  # once for some thousand files; a damaged one would fail every build
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    """A file (its executable bit is all that a Nix store keeps of its mode) or a symlink between two libraries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        path.symlink_to(os.path.basename(member.linkname))  # noqa: PTH119 - a text, not a path of this host
        return
    content = tar.extractfile(member)
    assert content is not None  # noqa: S101 - it is a file
    with content, path.open("wb") as file:
        shutil.copyfileobj(content, file)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)
