"""The names of an earlier `search`: for `packages.time_to_live`, a search needs no Nix and no network.

The next search with the same settings does not even read these: a small file recalls what they meant. Everything here blocks,
and loads little.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy import __version__
from proxy.core.model import canonical_json, sha256_hex
from proxy.tools import name_file
from proxy.tools.data_folder import data_folder
from proxy.tools.files import keep_newest, write_whole
from proxy.tools.name_index import NameIndex

if TYPE_CHECKING:
    from proxy.settings import Settings

_MOST = 8  # files of either kind
_VARIABLES = "NIXFRONT_"
#: The settings that decide which names there are. Only their values are in a key: others may be secrets.
_OF_NAMES = ("NIXFRONT_PACKAGES_", "NIXFRONT_SETS", "NIXFRONT_DATA_DIR")


@dataclass(frozen=True, slots=True)
class Question:
    """Whose names a search looks through, in the words of the command line; `demo` is its option."""

    config: Path | None
    environment: Mapping[str, str]
    demo: bool
    package_set: str
    tag: str


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the settings made of a question. `sets`: the names of all sets but the default one."""

    index: NameIndex
    kind: str
    sets: Sequence[str] = ()


def recall(settings: "Settings", package_set: str, tag: str) -> NameIndex | None:
    """The packages of the set at this tag; None where no search found them within the time to live."""
    return _read(_names_file(settings, package_set, tag), settings.packages.time_to_live)


def keep(settings: "Settings", package_set: str, tag: str, index: NameIndex) -> None:
    """Keep the packages for the next search, where this user may write."""
    file = _names_file(settings, package_set, tag)
    with suppress(OSError):
        name_file.write(file, map(index.facts, range(len(index))))
        keep_newest(file.parent, "search-*.tsv", _MOST)


def recall_meaning(question: Question) -> Meaning | None:
    """What an earlier search kept of the same question, without a look into its settings; None if there is none, or it is old."""
    try:
        file = _meaning_file(question)
        fields = json.loads(file.read_bytes())
        kind, names, seconds = fields["kind"], fields["names"], fields["seconds"]
        index = _read(file.parent / Path(names).name, float(seconds))
        sets = tuple(map(str, fields["sets"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return None if index is None else Meaning(index, str(kind), sets)


def keep_meaning(question: Question, settings: "Settings") -> None:
    """Keep what the settings make of a question, where this user may write."""
    names = _names_file(settings, question.package_set, question.tag)
    fields = {
        "kind": settings.package_sources[question.package_set].kind,
        "names": names.name,
        "sets": list(settings.sets),
        "seconds": settings.packages.time_to_live,
    }
    with suppress(OSError, ValueError):
        file = _meaning_file(question)
        if file.parent == names.parent:
            write_whole(file, canonical_json(fields))
            keep_newest(file.parent, "meaning-*.json", _MOST)


def _read(file: Path, seconds: float) -> NameIndex | None:
    """The names of a file that is not older."""
    try:
        age = time.time() - file.stat().st_mtime
    except OSError:
        return None
    return name_file.read(file) if 0 <= age < seconds else None


def _names_file(settings: "Settings", package_set: str, tag: str) -> Path:
    """The file of these names. What decides about them is in its name."""
    source = settings.package_sources[package_set].model_dump(mode="json")
    key = sha256_hex(canonical_json([__version__, settings.system, source, tag]))
    return settings.data_dir / "sets" / f"search-{key[:32]}.tsv"


def _meaning_file(question: Question) -> Path:
    """The file of a question. All that a setting may come from is in its name. Raises `OSError` and `ValueError`."""
    variables = {
        name: value if name.startswith(_OF_NAMES) else ""
        for name, value in question.environment.items()
        if name.startswith(_VARIABLES)
    }
    config: list[int | str] = []
    if question.config is not None:
        status = question.config.stat()
        config = [str(question.config.absolute()), status.st_ino, status.st_size, status.st_mtime_ns]
    parts = [
        __version__,
        os.uname().machine,
        config,
        variables,
        question.demo,
        question.package_set,
        question.tag,
    ]
    folder = data_folder(_configured_folder(question))
    return folder / "sets" / f"meaning-{sha256_hex(canonical_json(parts))[:32]}.json"


def _configured_folder(question: Question) -> str:
    """The setting `data.dir`. Raises `OSError` and `ValueError`."""
    variable = f"{_VARIABLES}DATA_DIR"
    if question.config is None or variable in question.environment:
        return question.environment.get(variable, "")
    import yaml  # takes as long as the rest

    try:
        text = question.config.read_text(encoding="utf-8")
        tree: Any = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
        return str((tree.get("data") or {}).get("dir") or "")
    except (yaml.YAMLError, AttributeError) as error:
        raise ValueError(f"{question.config} has no sections: {error}") from error
