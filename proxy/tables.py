"""Which table a package set's layers follow: the one that the operator names, else none."""

from pathlib import Path

from proxy.errors import SettingsInvalid
from proxy.popularity import NO_TABLE, Table, read


def choose(file: str) -> Table:
    """The table in the operator's file; `NO_TABLE` where there is no file. Raises `SettingsInvalid`."""
    if not file:
        return NO_TABLE
    try:
        return read(Path(file).read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"layers.table: {file} cannot be used: {error}") from error
