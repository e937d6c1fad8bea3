"""Commands that an operator runs beside a service that `tests.support.front` started, and the age of its images."""

import asyncio
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from proxy import cli
from tests.support.front import PACKAGES


class Command:
    """`nixfront SUBCOMMAND`, in this process, with the settings of `front`."""

    def __init__(self, folder: Path, registry: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self._capsys = capsys
        for name, value in {
            "DATA_DIR": str(folder / "data"),
            "REGISTRY_URL": registry,
            "NIX_STORE": str(folder / "store"),
            "PACKAGES_KIND": "path",
            "PACKAGES_PATH": str(PACKAGES),
        }.items():
            monkeypatch.setenv(f"NIXFRONT_{name}", value)

    async def __call__(self, *argv: str) -> Any:
        """Its document. The command has a loop of its own, so it gets a thread."""
        code = await asyncio.to_thread(cli.main, [*argv, "--json"])
        out, err = self._capsys.readouterr()
        assert code == 0, out + err
        return json.loads(out)


def set_back(folder: Path, repository: str, days: float) -> None:
    """Let the images of a repository be that old."""
    connection = sqlite3.connect(folder / "data" / "state.sqlite")
    then = time.time() - days * 86400
    connection.execute("UPDATE images SET made = ?, pulled = 0 WHERE repository = ?", (then, repository))
    connection.commit()
    connection.close()
