"""The names of an earlier `search`: for `packages.time_to_live`, a search needs no Nix and no network.

Everything here blocks, and loads little.
"""

import time
from contextlib import suppress
from pathlib import Path

from proxy import __version__
from proxy.core.model import canonical_json, sha256_hex
from proxy.settings import Settings
from proxy.tools import name_file
from proxy.tools.files import keep_newest
from proxy.tools.name_index import NameIndex

_MOST = 8  # files


def recall(settings: Settings, package_set: str, tag: str) -> NameIndex | None:
    """The packages of the set at this tag; None where no search found them within the time to live."""
    file = _file(settings, package_set, tag)
    try:
        age = time.time() - file.stat().st_mtime
    except OSError:
        return None
    return name_file.read(file) if 0 <= age < settings.packages.time_to_live else None


def keep(settings: Settings, package_set: str, tag: str, index: NameIndex) -> None:
    """Keep the packages for the next search, where this user may write."""
    file = _file(settings, package_set, tag)
    with suppress(OSError):
        name_file.write(file, map(index.facts, range(len(index))))
        keep_newest(file.parent, "search-*.tsv", _MOST)


def _file(settings: Settings, package_set: str, tag: str) -> Path:
    """The file of these names. What decides about them is in its name."""
    source = settings.package_sources[package_set].model_dump(mode="json")
    key = sha256_hex(canonical_json([__version__, settings.system, source, tag]))
    return settings.data_dir / "sets" / f"search-{key[:32]}.tsv"
