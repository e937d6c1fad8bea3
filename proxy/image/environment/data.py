"""Data in `/share` where programs look for it: links, the file of fontconfig, and variables. Pure but for a `Listing`.

Packages of nixpkgs look into their own store path, and programs from elsewhere look into `/usr/share` or `/etc`. The root tree has
the data of all packages in `/share`.
"""

from collections.abc import Collection, Iterable

from proxy.image.environment.libraries import Variable, name_of
from proxy.image.root_tree import Listing
from proxy.image.tar import SYMLINK, Entry, directory, file, symlink

# A path that programs expect -> the data of the root tree that it is a link to.
_LINKS = {
    # zoneinfo of Python (PEP 615) and the C libraries of most distributions; the C library of nixpkgs
    "usr/share/zoneinfo": "share/zoneinfo",
    "etc/zoneinfo": "share/zoneinfo",
    # the default of fontconfig, and of the file that Debian ships
    "usr/share/fonts": "share/fonts",
    # the pages of man-db for a program in /bin
    "usr/share/man": "share/man",
    # the places of ncurses from other distributions
    "usr/share/terminfo": "share/terminfo",
}
_FONTS = "share/fonts"
_FONTS_FILE = "etc/fonts/fonts.conf"
# Where a C library of Debian looks for C.UTF-8. That of nixpkgs looks into its own store path.
_LOCALE = "lib/locale/C.utf8"
_C_LIBRARY = "glibc"


def with_links(members: Iterable[Entry], listing: Listing, closure: Collection[str]) -> tuple[Entry, ...]:
    """The members of a root tree with the links to its data, in the order of an archive."""
    tree = {member.path: member for member in members}
    for path, source in _LINKS.items():
        if source in tree:
            _put(tree, symlink(path, f"/{source}"), listing)
    if _FONTS in tree:
        _put_fonts_file(tree, listing)
    for path in sorted(closure):
        if is_c_library(path) and listing.kind(f"{path}/{_LOCALE}") == "directory":
            _put(tree, symlink(f"usr/{_LOCALE}", f"{path}/{_LOCALE}"), listing)
            break
    return tuple(sorted(tree.values(), key=lambda member: member.path.split("/")))


def is_c_library(path: str) -> bool:
    """Whether `with_links` looks into this store path, though the root tree may have nothing of it."""
    return name_of(path).startswith(_C_LIBRARY)


def variables(members: Collection[Entry]) -> tuple[Variable, ...]:
    """The variables that lead to the data of this root tree."""
    paths = {member.path for member in members}
    places = []
    if any(path.startswith("share/") for path in paths):
        places.append(Variable("XDG_DATA_DIRS", "/share", "the packages have data in /share"))
    if "share/terminfo" in paths:
        places.append(
            Variable("TERMINFO_DIRS", "/share/terminfo", "the packages have terminals in /share/terminfo")
        )
    if {"share/man", "bin/man"} <= paths:  # an empty part stands for the places that man knows
        places.append(Variable("MANPATH", "/share/man:", "the image has man, and pages in /share/man"))
    return tuple(places)


def _put_fonts_file(tree: dict[str, Entry], listing: Listing) -> None:
    """The file of fontconfig, which names `/share/fonts` and includes the file that a package has, or its folder."""
    _open(tree, "etc/fonts", listing)
    theirs = tree.pop(_FONTS_FILE, None)
    include = theirs.target if theirs and theirs.kind == SYMLINK else "conf.d"
    text = f"""<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>/{_FONTS}</dir>
  <dir prefix="xdg">fonts</dir>
  <cachedir>/var/cache/fontconfig</cachedir>
  <cachedir prefix="xdg">fontconfig</cachedir>
  <include ignore_missing="yes">{include}</include>
</fontconfig>
"""
    _put(tree, file(_FONTS_FILE, text.encode()), listing)


def _put(tree: dict[str, Entry], member: Entry, listing: Listing) -> None:
    """Add a member where the tree has nothing at its path, with the directories above it."""
    parts = member.path.split("/")
    for depth in range(1, len(parts)):
        _open(tree, "/".join(parts[:depth]), listing)
    tree.setdefault(member.path, member)


def _open(tree: dict[str, Entry], path: str, listing: Listing) -> None:
    """Make this path a directory. A link to a directory of a package becomes links to all that is in it."""
    member = tree.get(path)
    if member is None or member.kind == SYMLINK:
        tree[path] = directory(path)
    if member is not None and member.kind == SYMLINK and listing.kind(member.target) == "directory":
        for name in listing.children(member.target):
            tree.setdefault(f"{path}/{name}", symlink(f"{path}/{name}", f"{member.target}/{name}"))
