"""Which table a package set's layers follow: the operator's, else the one that is shipped for the set, else none."""

from pathlib import Path

from proxy.errors import SettingsInvalid
from proxy.popularity import NO_TABLE, Table, read

# By the recipe of the demo set. Other sets have none: they are not ours, and change without us.
_SHIPPED = {"": "packages.table.json", "big": "packages-big.table.json"}


def choose(file: str, kind: str, recipe: str, expressions: Path) -> Table:
    """The table in the operator's file, where there is one; else that of a set of this kind and recipe, or `NO_TABLE`.

    `expressions` is the folder of ours. Raises `SettingsInvalid`.
    """
    if not file and not (kind == "demo" and recipe in _SHIPPED):
        return NO_TABLE
    chosen = Path(file) if file else expressions / "debian" / _SHIPPED[recipe]
    try:
        return read(chosen.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"layers.table: {chosen} cannot be used: {error}") from error
