"""Records of fetched revisions, one file each: a recorded revision is not fetched again while the store has it.

A record names the garbage-collector roots of its revision. Each set keeps a bounded number of revisions: what was not used
for the longest time loses its record and its roots, so Nix may collect its source.
"""

import json
import re
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from proxy.core.model import PackageSet, canonical_json, sha256_hex
from proxy.nix.sets.kinds import ConfiguredSet
from proxy.tools.files import write_whole

_BEING_MADE = 3600.0  # seconds for which a root may be without a record
_TEXTS = ("name", "expression", "revision", "source", "created", "nar_hash")  # of a package set


@dataclass(frozen=True, slots=True)
class _Record:
    """A revision, and how it was chosen; `root` is the name of its garbage-collector root."""

    package_set: PackageSet
    date: str
    kind: str
    reference: str
    root: str


class Records:
    """The records in one folder. The methods block: they read and write files."""

    def __init__(self, folder: Path, most: int) -> None:
        """`most` is how many revisions of each set are kept."""
        self._folder = folder
        self._most = most

    def root(self, chosen: ConfiguredSet, reference: str, commit: str) -> Path:
        """The garbage-collector root of a set at this reference, before its revision is certain."""
        words = [chosen.choice.url, chosen.choice.path, reference, commit]
        return self._folder / f"{chosen.key}-{sha256_hex(canonical_json(words))[:32]}"

    def recall(self, chosen: ConfiguredSet, revision: str) -> PackageSet | None:
        """The set of this revision; None where the settings have changed, or the store has lost it."""
        file = self._file(chosen, revision)
        record = _read(file)
        if record is None or record.package_set.revision != revision:
            return None
        package_set = record.package_set
        same = package_set.source == chosen.address and record.date == chosen.choice.date
        same &= record.kind == chosen.choice.kind
        same &= chosen.knows_history or chosen.allows(record.reference)
        same &= package_set.arguments.get("attribute", chosen.choice.attribute) == chosen.choice.attribute
        paths = (package_set.expression, *package_set.arguments.values())
        there = all(Path(path).exists() for path in paths if path.startswith("/"))
        if not (same and there):
            return None
        with suppress(OSError):  # else another process has just dropped it
            file.touch(exist_ok=True)
        return package_set

    def write(
        self,
        chosen: ConfiguredSet,
        package_set: PackageSet,
        reference: str,
        root: Path,
        keep: Collection[str] = (),
    ) -> set[str]:
        """Record this revision, which has `root`, and drop the oldest ones. Returns the revisions that it dropped.

        The revisions of `keep` stay. `reference`: by which the revision was chosen.
        """
        record = {
            "date": chosen.choice.date,
            "kind": chosen.choice.kind,
            "set": asdict(package_set),
            "reference": reference,
            "root": root.name,
        }
        write_whole(self._file(chosen, package_set.revision), canonical_json(record))
        return self._tidy(chosen, {package_set.revision, *keep})

    def revisions(self, chosen: ConfiguredSet) -> set[str]:
        """The revisions that have a record."""
        return set(self._files(chosen))

    def _files(self, chosen: ConfiguredSet) -> dict[str, Path]:
        """The records of a set by their revisions."""
        pattern = re.compile(rf"{re.escape(chosen.key)}-([0-9a-f]{{40}}|[0-9a-f]{{64}})\.json")
        return {
            match[1]: file
            for file in self._folder.iterdir()
            if (match := pattern.fullmatch(file.name)) is not None
        }

    def _tidy(self, chosen: ConfiguredSet, keep: Collection[str]) -> set[str]:
        """Keep as many records as are allowed, and no roots but theirs."""
        files = self._files(chosen)
        by_use = sorted(files, key=lambda revision: _modified(files[revision]))
        oldest = [revision for revision in by_use if revision not in keep]
        dropped = set(oldest[: max(0, len(files) - self._most)])
        records = {revision: _read(files[revision]) for revision in files}
        roots = {revision: record.root if record else "" for revision, record in records.items()}
        for revision in dropped:
            files[revision].unlink(missing_ok=True)
        needed = {root for revision, root in roots.items() if revision not in dropped}
        ended = {roots[revision] for revision in dropped}
        root = re.compile(rf"({re.escape(chosen.key)}-[0-9a-f]{{32}})(-[0-9]+)?")
        long_ago = time.time() - _BEING_MADE
        for file in list(self._folder.iterdir()):
            match = root.fullmatch(file.name)
            if match is None or match[1] in needed or not file.is_symlink():
                continue
            if match[1] in ended or _modified(file) < long_ago:
                file.unlink(missing_ok=True)
        return dropped

    def _file(self, chosen: ConfiguredSet, revision: str) -> Path:
        return self._folder / f"{chosen.key}-{revision}.json"


def _read(file: Path) -> _Record | None:
    """The record in a file; None where it has none, as a power failure may have it."""
    try:
        values = json.loads(file.read_bytes())
        package_set = PackageSet(**values["set"])
        words = [values[key] for key in ("date", "kind", "reference", "root")]
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return None
    texts = [getattr(package_set, name) for name in _TEXTS]
    switches = [package_set.substitutes, package_set.import_from_derivation]
    if not (
        all(isinstance(text, str) for text in (*texts, *words))
        and all(isinstance(on, bool) for on in switches)
    ):
        return None
    arguments = package_set.arguments
    if not isinstance(arguments, dict) or not all(isinstance(value, str) for value in arguments.values()):
        return None
    return _Record(package_set, *words)


def _modified(file: Path) -> float:
    try:
        return file.lstat().st_mtime
    except OSError:  # another process has just dropped it
        return 0.0
