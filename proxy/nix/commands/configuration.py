"""What the operator's own files of Nix set. Nix has no settings for "unless the operator said so", so these files answer it.

The files are those that Nix reads (its manual: nix.conf, "Configuration file"), with what they include. Everything here blocks.
"""

import re
from collections.abc import Mapping
from pathlib import Path

_SETTING = re.compile(r"\s*([\w-]+)\s*=")
_INCLUDE = re.compile(r"\s*!?include\s+(\S+)")
_DEEPEST = 10  # files that include one another


def names(environment: Mapping[str, str]) -> frozenset[str]:
    """The names of the settings in the operator's files and in `NIX_CONFIG`. A file that cannot be read has none."""
    settings: set[str] = set()
    _collect(environment.get("NIX_CONFIG", ""), Path("/"), settings, _DEEPEST)
    for file in _files(environment):
        _read(file, settings, _DEEPEST)
    return frozenset(settings)


def _files(environment: Mapping[str, str]) -> list[Path]:
    system = Path(environment.get("NIX_CONF_DIR") or "/etc/nix", "nix.conf")
    if listed := environment.get("NIX_USER_CONF_FILES"):
        return [system, *map(Path, filter(None, listed.split(":")))]
    home = Path(environment.get("HOME", "/"))
    own = environment.get("XDG_CONFIG_HOME") or str(home / ".config")
    shared = environment.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    folders = filter(None, (own, *shared.split(":")))
    return [system, *(Path(folder, "nix/nix.conf") for folder in folders)]


def _read(file: Path, settings: set[str], deepest: int) -> None:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    _collect(text, file.parent, settings, deepest)


def _collect(text: str, folder: Path, settings: set[str], deepest: int) -> None:
    for line in text.splitlines():
        if setting := _SETTING.match(line):
            settings.add(setting[1].removeprefix("extra-"))
        elif (include := _INCLUDE.match(line)) and deepest:
            _read(folder / include[1], settings, deepest - 1)
