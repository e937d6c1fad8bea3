"""What a call of the command loads: time differs between machines, and modules do not."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxy import cli, settings
from proxy.tools.name_index import NameIndex
from proxy.wiring import search_cache

SLOW = {
    "aiohttp",
    "asyncio",
    "jinja2",
    "pydantic",
    "rapidfuzz",
    "redis",
    "requests",
    "rich",
    "shtab",
    "structlog",
    "yaml",
}
PROGRAM = """
import json, sys
from proxy import cli
try:
    code = cli.main()
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def loaded(*argv: str, data: Path) -> tuple[int, set[str], list[str]]:
    """The exit code, the top-level modules that the call loaded, and the lines that it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIXFRONT_")}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *argv],
        cwd=Path(cli.__file__).parents[2],
        env={**environment, "NIXFRONT_DATA_DIR": str(data)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    *printed, last = ended.stdout.splitlines()
    code, modules = json.loads(last)
    return code, set(modules), printed


@pytest.mark.parametrize("argv", [[], ["--help"], ["--version"], ["prune", "--help"], ["serve", "--help"]])
def test_help_loads_nothing_slow(argv: list[str], tmp_path: Path) -> None:
    code, modules, printed = loaded(*argv, data=tmp_path)

    assert (code, modules & SLOW) == (0, set())
    assert printed


def test_a_search_among_names_of_an_earlier_one_needs_the_settings_alone(tmp_path: Path) -> None:
    environment = {"NIXFRONT_DATA_DIR": str(tmp_path), "NIXFRONT_PACKAGES_KIND": "demo"}
    (tmp_path / "sets").mkdir()
    search_cache.keep(
        settings.load(None, environment), "", "latest", NameIndex(("hello", "python3Packages.numpy"))
    )

    code, modules, printed = loaded("search", "--demo", "NUMPY", data=tmp_path)

    assert printed == ["python3Packages.numpy  python3packages.numpy"]
    assert (code, modules & SLOW) == (0, {"pydantic", "yaml"})


def test_other_settings_have_other_names(tmp_path: Path) -> None:
    environment = {"NIXFRONT_DATA_DIR": str(tmp_path), "NIXFRONT_PACKAGES_KIND": "demo"}
    demo = settings.load(None, environment)
    (tmp_path / "sets").mkdir()
    search_cache.keep(demo, "", "latest", NameIndex(("hello",)))

    index = search_cache.recall(demo, "", "latest")
    assert index is not None
    assert index.names == ("hello",)
    assert search_cache.recall(demo, "", "12") is None
    for key, value in {
        "PACKAGES_KIND": "nixpkgs",
        "PACKAGES_RECIPE": "big",
        "PACKAGES_SYSTEM": "x-linux",
    }.items():
        other = settings.load(None, {**environment, f"NIXFRONT_{key}": value})
        assert search_cache.recall(other, "", "latest") is None, key


def kept(chosen: settings.Settings) -> Path:
    """The file of a search that found one name."""
    (chosen.data_dir / "sets").mkdir()
    search_cache.keep(chosen, "", "latest", NameIndex(("hello",)))
    (file,) = (chosen.data_dir / "sets").iterdir()
    return file


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}'])
def test_a_damaged_file_is_no_list(tmp_path: Path, text: str) -> None:
    chosen = settings.load(None, {"NIXFRONT_DATA_DIR": str(tmp_path)})
    file = kept(chosen)
    assert search_cache.recall(chosen, "", "latest") is not None

    file.write_text(text)

    assert search_cache.recall(chosen, "", "latest") is None


@pytest.mark.parametrize(
    ("age", "is_there"),
    [(0, True), (99, True), (100, False), (200, False), (-1, False)],
    ids=["now", "before", "at its end", "after", "of the future"],
)
def test_names_are_known_for_the_time_to_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: int, is_there: bool
) -> None:
    chosen = settings.load(
        None, {"NIXFRONT_DATA_DIR": str(tmp_path), "NIXFRONT_PACKAGES_TIME_TO_LIVE": "100"}
    )
    os.utime(kept(chosen), (1_000_000, 1_000_000))
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0 + age)

    assert (search_cache.recall(chosen, "", "latest") is not None) == is_there
