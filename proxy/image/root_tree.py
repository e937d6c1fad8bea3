"""Outputs of packages -> the image's root: a tree of symlinks into the store, and a few files of our own.

Rules of this file: it reads the store only through a `Listing`, and its result depends on nothing else.
The outputs come in the order of the request. If two of them have the same file, the first-named wins
and the collision is reported. A directory is real if several outputs have it, if `base` has it, or if people copy into it
(`_is_real`); other directories of one output are symlinks. BuildKit copies no directory onto a symlink, and docker's older
builder puts the directory in its place, without the package's files. This needs no Nix build (`buildEnv` fails on equal
priorities, drops packages that are a single file, and may turn `/etc` itself into a link into the read-only store).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from proxy.core.errors import STORE_CURE, PackageUnusable, StoreUnreadable
from proxy.core.model import Package, PackageSet
from proxy.image import base
from proxy.image.tar import Entry, directory, symlink

Kind = Literal["directory", "executable", "file"]

_STORE = "/nix/store/"
_OURS = "the image's own directory"
_OUR_LINES = "the image's own file"

#: How many names deep a directory is real though only one package has it: `share/nginx/html` is, what is in it are links.
#: A file that others add to a program has its place there: kind, program, part of the program, as in
#: `lib/python3.13/site-packages`, `share/bash-completion/completions`, `share/fonts/truetype`. /etc is real all the way down.
_REAL_DEPTH = 3
#: A directory with more members than this stays a link, for each member would be one in a layer that nobody shares.
_MOST_MEMBERS = 1000
# Links of a package can make a small tree endless: each of them is another way to the same files.
_LARGEST = 100_000  # members and collisions of the whole tree
_DEEPEST = 100  # directories in one another
_SHOWN = 60  # characters of a path in a message


class Listing(Protocol):
    """A view of the store; symlinks are followed."""

    def kind(self, path: str) -> Kind | None:
        """The kind of file at this path, None if there is none."""

    def children(self, path: str) -> Mapping[str, Kind]:
        """The members of this directory by name, and their kinds; dangling symlinks count as files."""

    def read(self, path: str) -> str:
        """The text of a small file."""

    def real(self, path: str) -> str:
        """The same place without symlinks on the way."""


@dataclass(frozen=True, slots=True)
class Collision:
    """Two outputs have this path of the root: the image gets that of `winner` and not that of `loser`."""

    path: str
    winner: str
    loser: str


@dataclass(frozen=True, slots=True)
class Root:
    """The members of the last layer, every directory before its members, and the collisions."""

    entries: tuple[Entry, ...]
    collisions: tuple[Collision, ...]


def merge(packages: Sequence[Package], package_set: PackageSet, listing: Listing, user: str = "") -> Root:
    """The root tree of the packages, first-named first; `user` (`UID:GID`) gets a name and a home in it.

    Raises `PackageUnusable` if a package is a single file and no program or has a text that is too large, or if the tree is;
    `StoreUnreadable` if a package is gone.
    """
    outputs = outputs_of(packages, listing)
    view = _View(listing, outputs)
    collisions: list[Collision] = []
    members: dict[str, Entry] = {}
    _merge_directory("", [(output, frozenset()) for output in outputs], view, members, collisions)

    for name, mode in base.DIRECTORIES.items():
        members[name] = directory(name, mode)
    texts = [
        (path, listing.read(f"{output}/{path}"))
        for path in base.JOINED
        for output in outputs
        if view.is_file(f"{output}/{path}")
    ]
    for entry in base.members(package_set, user, texts):
        members.setdefault(entry.path, entry)
    for entry in base.aliases(members):
        above = entry.path.rpartition("/")[0]
        members.setdefault(above, directory(above))
        members[entry.path] = entry
    entries = sorted(members.values(), key=lambda entry: entry.path.split("/"))
    return Root(tuple(entries), tuple(collisions))


def main_program(package: Package, listing: Listing) -> str | None:
    """The program that `docker run` starts for this package, absolute in the image, or None.

    That is `meta.mainProgram` of the package, else a program with the package's name, else its only program.
    """
    outputs = [output for _, output in package.outputs]
    view = _View(listing, outputs)
    programs = [
        name
        for output in outputs
        if view.children(output).get("bin") == "directory"
        for name, kind in view.children(f"{output}/bin").items()
        if kind == "executable"
    ]
    own_name = package.attribute.rpartition(".")[2]
    for name in (package.main_program, _name_of(package), own_name):
        if name in programs:
            return f"/bin/{name}"
    visible = [name for name in programs if not name.startswith(".")]
    return f"/bin/{visible[0]}" if len(visible) == 1 else None


class _View:
    """The outputs as directories: an output that is a single program looks like a directory with that program in `bin`."""

    def __init__(self, listing: Listing, outputs: Sequence[str]) -> None:
        """Raises `PackageUnusable` if an output is a single file and no program, `StoreUnreadable` if it is not there."""
        self._listing = listing
        self._directories: dict[str, Mapping[str, Kind]] = {}
        self._targets: dict[str, str] = {}
        for output in outputs:
            if listing.kind(output) == "directory":
                continue
            name = output.rpartition("/")[2].partition("-")[2]
            if listing.kind(output) is None:
                raise StoreUnreadable(f"{output} is not where Nix says that it is; {STORE_CURE}")
            if listing.kind(output) != "executable":
                raise PackageUnusable(
                    f"{name} is a single file ({output}) and no program, so it has no place in an image's root; "
                    "ask for a package that has a directory, or for one that uses this file"
                )
            self._directories |= {output: {"bin": "directory"}, f"{output}/bin": {name: "executable"}}
            self._targets[f"{output}/bin/{name}"] = output

    def children(self, path: str) -> Mapping[str, Kind]:
        """The members of this directory by name, and their kinds."""
        return self._directories.get(path) or self._listing.children(path)

    def real(self, path: str) -> str:
        """The same place without symlinks on the way."""
        return path if path in self._directories else self._listing.real(path)

    def is_file(self, path: str) -> bool:
        """Whether a file is there, and inside the store."""
        return self._listing.kind(path) in ("file", "executable")

    def target(self, path: str) -> str:
        """The target of a link to this path."""
        return self._targets.get(path, path)


def _name_of(package: Package) -> str:
    """The package's name without its version. Nix divides them at the first dash that has no letter after it."""
    parts = package.name.split("-")
    for number, part in enumerate(parts[1:], start=1):
        if not part[:1].isalpha():
            return "-".join(parts[:number])
    return package.name


def outputs_of(packages: Sequence[Package], listing: Listing) -> list[str]:
    """The outputs of the packages, then those that they propagate (`propagated-user-env-packages`), nothing twice."""
    ordered = dict.fromkeys(path for package in packages for _, path in package.outputs)
    pending = list(ordered)
    while pending:
        file_of_paths = f"{pending.pop(0)}/nix-support/propagated-user-env-packages"
        if listing.kind(file_of_paths) is not None:
            new = [path for path in listing.read(file_of_paths).split() if path not in ordered]
            new = [path for path in new if path.startswith(_STORE) and listing.kind(path) is not None]
            ordered.update(dict.fromkeys(new))
            pending += new
    return list(ordered)


def _merge_directory(
    at: str,
    sources: Sequence[tuple[str, frozenset[str]]],
    view: _View,
    members: dict[str, Entry],
    collisions: list[Collision],
) -> None:
    """Add directory `at` of the root to `members`, merged from `sources`; the first source wins.

    A source is a path and the real paths of the directories above it. A link back into one of these
    (`bin/X11 -> .`) counts as a file.
    """
    if len(members) + len(collisions) > _LARGEST or at.count("/") >= _DEEPEST:
        raise PackageUnusable(
            f"the files of these packages together are more than {_LARGEST} links, or {_DEEPEST} folders deep, at "
            f"/{at[:_SHOWN]}; ask for fewer packages in one image"
        )
    candidates: dict[str, list[tuple[str, Kind]]] = {}
    inside: dict[str, frozenset[str]] = {}
    for source, above in sources:
        real = above | {view.real(source)}
        for name, kind in view.children(source).items():
            path = f"{source}/{name}"
            inside[path] = real
            circular = kind == "directory" and view.real(path) in real
            candidates.setdefault(name, []).append((path, "file" if circular else kind))
    for name in sorted(candidates):
        path = f"{at}/{name}" if at else name
        if path in base.NOT_FROM_PACKAGES:
            continue
        (winner, kind), *others = candidates[name]
        if path in base.DIRECTORIES:
            winner, kind, others = _OURS, "directory", candidates[name]
        if path in base.JOINED:
            winner = _OUR_LINES
            losers = [source for source, _ in candidates[name] if not view.is_file(source)]
        elif kind == "directory":
            directories = [source for source, kind in candidates[name] if kind == "directory"]
            losers = [source for source, kind in others if kind != "directory"]
            if len(directories) == 1 and not _is_real(path, directories[0], view):
                members[path] = symlink(path, winner)
            else:
                members[path] = directory(path)
                _merge_directory(
                    path, [(source, inside[source]) for source in directories], view, members, collisions
                )
        else:
            members[path] = symlink(path, view.target(winner))
            losers = [source for source, _ in others]
        collisions += [Collision(path, view.target(winner), view.target(source)) for source in losers]


def _is_real(path: str, source: str, view: _View) -> bool:
    """Whether a directory that only `source` has is real, so that people can copy into it."""
    names = path.split("/")
    if path in base.DIRECTORIES or len(names) == 1:
        return True
    shallow = names[0] == "etc" or len(names) <= _REAL_DEPTH
    return shallow and len(view.children(source)) <= _MOST_MEMBERS
