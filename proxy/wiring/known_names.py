"""The names that an earlier `search` found: for `packages.time_to_live`, a search needs no Nix and no network.

Everything here blocks, and loads little.
"""

import json
import time
from contextlib import suppress
from pathlib import Path

from proxy import __version__
from proxy.core.model import canonical_json, sha256_hex
from proxy.settings import Settings
from proxy.tools.files import keep_newest, write_whole

_MOST = 8  # files


def recall(settings: Settings, package_set: str, tag: str) -> tuple[str, ...] | None:
    """The names of the set at this tag; None where no search found them within the time to live."""
    file = _file(settings, package_set, tag)
    try:
        age = time.time() - file.stat().st_mtime
        names = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list and 0 <= age < settings.packages.time_to_live else None


def keep(settings: Settings, package_set: str, tag: str, names: tuple[str, ...]) -> None:
    """Keep the names for the next search, where this user may write."""
    file = _file(settings, package_set, tag)
    with suppress(OSError):
        write_whole(file, canonical_json(names))
        keep_newest(file.parent, "search-*.json", _MOST)


def _file(settings: Settings, package_set: str, tag: str) -> Path:
    """The file of these names. What decides about them is in its name."""
    source = settings.package_sources[package_set].model_dump(mode="json")
    key = sha256_hex(canonical_json([__version__, settings.system, source, tag]))
    return settings.data_dir / "sets" / f"search-{key[:32]}.json"
