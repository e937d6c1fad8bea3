"""Libraries of an image, and the variables by which the interpreters of the image find them. Pure but for a `Listing`.

An interpreter of nixpkgs looks into its own store path alone. So an image with an interpreter and libraries has the
variable of their language (`languages`), and an image with only one of them has not. Libraries are the outputs of the
image's packages, and whatever these propagate (`nix-support/propagated-build-inputs`, as nixpkgs' builder writes it). A store
path outside the closure does not count, even where this host's store has it.

Every interpreter of the image reads the variable, also the one that runs a program of another package. Such a program must
not get the libraries of the person who runs the container. So the value for Python has a folder with a file of ours
(`GUARD`): it adds the libraries for their own version, and only where the interpreter was not started by its path in the
store, as the programs of packages do. The libraries stand in the value itself only where they can harm no program.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from proxy.image.environment.languages import LANGUAGES, Language, SearchPath, Sign
from proxy.image.root_tree import Listing
from proxy.image.tar import Entry, directory, file

#: The folder of the file that guards programs of other packages.
GUARD = "etc/nixfront/python"
_GUARD_FILE = f"{GUARD}/nixfront.pth"
_PROPAGATED = "nix-support/propagated-build-inputs"
# Linux starts no program with a longer text in its environment (MAX_ARG_STRLEN: 128 KiB).
_LONGEST_VALUE = 100_000
_MOST_NAMES = 8


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the configuration, and why the image has it."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class Libraries:
    """What the interpreters of an image need to find its libraries.

    `notes`: libraries that no interpreter of the image can use. `files`: members of the root tree.
    """

    variables: tuple[Variable, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[Entry, ...] = ()


def libraries(outputs: Sequence[str], listing: Listing, closure: Collection[str]) -> Libraries:
    """The variables, notes and files for these outputs, which are in the root tree, first-named first."""
    view = _View(listing)
    reachable = _propagated(outputs, view, closure)
    parts = [_of(language, outputs, reachable, view, closure) for language in LANGUAGES]
    return Libraries(
        tuple(variable for each in parts for variable in each.variables),
        tuple(note for each in parts for note in each.notes),
        tuple(member for each in parts for member in each.files),
    )


class _View:
    """The store, where everything but a directory has no members. Each language asks for the same directories."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._names: dict[str, list[str]] = {}

    def names(self, path: str) -> list[str]:
        """The names in a directory."""
        if path not in self._names:
            there = self._listing.kind(path) == "directory"
            self._names[path] = sorted(self._listing.children(path)) if there else []
        return self._names[path]

    def words(self, path: str) -> list[str]:
        """The words of a file, none where it is missing."""
        return self._listing.read(path).split() if self._listing.kind(path) in ("file", "executable") else []

    def real(self, path: str) -> str:
        """As `Listing.real`."""
        return self._listing.real(path)

    def versions(self, path: str, signs: Iterable[Sign]) -> list[str]:
        """The versions that a store path shows, none twice."""
        names = (
            (name, pattern)
            for folder, pattern in signs
            for name in (self.names(f"{path}/{folder}") if folder else [name_of(path)])
        )
        matches = (re.fullmatch(pattern, name) for name, pattern in names)
        return list(dict.fromkeys(match[1] for match in matches if match))


def _propagated(outputs: Sequence[str], view: _View, closure: Collection[str]) -> list[str]:
    """The outputs, then all that they propagate, nearest first."""
    ordered = dict.fromkeys(outputs)
    pending = list(ordered)
    for path in pending:
        new = [
            word for word in view.words(f"{path}/{_PROPAGATED}") if word in closure and word not in ordered
        ]
        ordered |= dict.fromkeys(new)
        pending += dict.fromkeys(new)
    return list(ordered)


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder of a library that an interpreter of this version can use."""

    library: str
    version: str
    folder: str


def _of(
    language: Language,
    outputs: Sequence[str],
    reachable: Sequence[str],
    view: _View,
    closure: Collection[str],
) -> Libraries:
    """What one language needs."""
    interpreters = [path for path in outputs if _is_interpreter(language, path, view)]
    if not interpreters:
        return Libraries()
    distinct = dict.fromkeys(v for path in interpreters for v in view.versions(path, language.interpreters))
    versions = list(distinct) if language.together else list(distinct)[:1]
    others = [path for path in reachable if not _is_interpreter(language, path, view)]
    places = {
        search: [place for path in others for place in _places(language, search, path, versions, view)]
        for search in language.paths
    }
    usable = dict.fromkeys(place.library for each in places.values() for place in each)
    names = ", ".join(name_of(path) for path in interpreters)
    reason = f"{names} finds {_few([name_of(path) for path in usable])}"
    notes = [
        f"{name_of(path)} is for {language.name} {_numbers(theirs)}, and the image has {_numbers(versions)} ({names})"
        for path in outputs
        if path in others and path not in usable and (theirs := view.versions(path, language.libraries))
    ]
    variables: list[Variable] = []
    files: list[Entry] = []
    for search, each in places.items():
        value = _value(search, dict.fromkeys(place.folder for place in each))
        long = len(value) > _LONGEST_VALUE
        if language.guard and each:
            alone = long or not _harmless(language, search, versions, view, closure)
            value, long = f"/{GUARD}" if alone else f"{value}:/{GUARD}", False
            files += _guard(search.variable, each)
        if long:
            notes.append(f"{search.variable} would have {len(value)} characters, which is too long for Linux")
        elif each:
            variables.append(Variable(search.variable, value, reason))
    return Libraries(tuple(variables), tuple(notes), tuple(files))


def _is_interpreter(language: Language, path: str, view: _View) -> bool:
    return any(re.fullmatch(language.program, name) for name in view.names(f"{path}/bin"))


def _places(
    language: Language, search: SearchPath, path: str, versions: Sequence[str], view: _View
) -> Iterator[_Place]:
    """The folders of a store path that these versions of the interpreter can use; every version, where theirs is unknown."""
    theirs = view.versions(path, language.libraries)
    if "{}" not in search.folder and not theirs:
        theirs = list(versions[:1]) or [""]
    usable = [version for version in theirs if version in versions or not versions]
    folders = {f"{path}/{search.folder.format(version)}": version for version in reversed(usable)}
    for folder, version in folders.items():
        if view.names(folder):
            yield _Place(path, version, folder)


def _value(search: SearchPath, folders: Iterable[str]) -> str:
    entries = [f"{folder}{pattern}" for folder in folders for pattern in search.patterns]
    return search.separator.join(entries if not search.start else [search.start, *entries])


def _harmless(
    language: Language, search: SearchPath, versions: Sequence[str], view: _View, closure: Collection[str]
) -> bool:
    """Whether no program of the closure could get another library than its own.

    It could where the closure has libraries for another version, or two libraries with one name.
    """
    owners: dict[str, str] = {}
    for path in sorted(closure):
        for version in view.versions(path, language.libraries):
            if [version] != list(versions):
                return False
            folder = f"{path}/{search.folder.format(version)}"
            for name in view.names(folder):
                real = view.real(f"{folder}/{name}")
                if name != "__pycache__" and owners.setdefault(name, real) != real:
                    return False
    return True


def _guard(variable: str, places: Sequence[_Place]) -> tuple[Entry, ...]:
    """The folder of the guard, and the file in it, which `site` of Python runs line by line.

    nixpkgs' `sitecustomize` takes the variable out of the environment; the last line lets child processes have it.
    """
    lines = []
    for version in dict.fromkeys(place.version for place in places):
        folders = list(dict.fromkeys(place.folder for place in places if place.version == version))
        lines.append(
            "import site, sys; "
            '("pypy" if hasattr(sys, "pypy_version_info") else "python") + "%d.%d" % sys.version_info[:2] == '
            f'"{version}" and not sys.executable.startswith("/nix/store/") and '
            f"list(map(site.addsitedir, filter(lambda path: path not in sys.path, {folders})))\n"
        )
    lines.append(f'import os; os.environ.setdefault("{variable}", "/{GUARD}")\n')
    above = GUARD.split("/")
    return (
        *(directory("/".join(above[:depth])) for depth in range(2, len(above) + 1)),
        file(_GUARD_FILE, "".join(lines).encode()),
    )


def _numbers(versions: Sequence[str]) -> str:
    return " and ".join(re.sub(r"^[a-z]+", "", version) for version in versions) or "an unknown version"


def _few(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def name_of(path: str) -> str:
    """The name of a store path, without its hash."""
    return path.rpartition("/")[2].partition("-")[2]
