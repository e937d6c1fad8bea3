"""Records of fetched revisions, one file each: a recorded revision needs no network while the store has it."""

import json
from dataclasses import asdict
from pathlib import Path

from proxy.core.model import PackageSet, canonical_json
from proxy.nix.sets.configured import ConfiguredSet
from proxy.tools.files import write_whole


class Records:
    """The records in one folder. The methods block: they read and write files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recall(self, chosen: ConfiguredSet, revision: str) -> PackageSet | None:
        """The set of this revision; None where the settings have changed, or the store has lost it."""
        try:
            record = json.loads(self._file(chosen, revision).read_bytes())
            package_set = PackageSet(**record["set"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        same = package_set.source == chosen.address and record["date"] == chosen.choice.date
        same &= package_set.arguments.get("attribute", chosen.choice.attribute) == chosen.choice.attribute
        paths = (package_set.expression, *package_set.arguments.values())
        there = all(Path(path).exists() for path in paths if path.startswith("/"))
        return package_set if same and there else None

    def write(self, chosen: ConfiguredSet, package_set: PackageSet) -> None:
        """Record this revision of the set."""
        record = {"date": chosen.choice.date, "set": asdict(package_set)}
        write_whole(self._file(chosen, package_set.revision), canonical_json(record))

    def _file(self, chosen: ConfiguredSet, revision: str) -> Path:
        return self._folder / f"{chosen.key}-{revision}.json"
