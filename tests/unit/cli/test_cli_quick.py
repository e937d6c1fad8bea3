"""What a call of the command loads: time differs between machines, and modules do not."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
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

    code, modules, again = loaded("search", "--demo", "NUMPY", data=tmp_path)

    assert again == printed
    assert (code, modules & SLOW) == (0, set()), "and the next one does not even need these"
    assert loaded("search", "--demo", "--json", "numpi", data=tmp_path) == (1, modules, ["[]"])


def searched(folder: Path, config: str, **environment: str) -> search_cache.Question:
    """A question that a search of the package `hello` has answered."""
    file = folder / "nixfront.yml"
    file.write_text(config)
    question = search_cache.Question(file, environment, False, "", "latest")
    chosen = settings.load(file, environment)
    (folder / "data/sets").mkdir(parents=True, exist_ok=True)
    search_cache.keep(chosen, "", "latest", NameIndex(("hello",)))
    search_cache.keep_meaning(question, chosen)
    return question


@pytest.mark.parametrize(
    "place", ["data: {dir: DIR}", "data:\n  dir: DIR\npackages: {kind: demo}", "log: {}"]
)
def test_the_next_search_finds_the_folder_that_the_settings_name(tmp_path: Path, place: str) -> None:
    data = str(tmp_path / "data")
    config = place.replace("DIR", data)
    question = searched(tmp_path, config, **({} if config != place else {"NIXFRONT_DATA_DIR": data}))

    meaning = search_cache.recall_meaning(question)

    assert meaning is not None
    assert tuple(meaning.index) == ("hello",)
    assert meaning.kind == ("demo" if "demo" in place else "nixpkgs")


def test_another_question_has_no_meaning_yet(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    config = f"data: {{dir: {data}}}\nregistry: {{url: 'http://a', username: a}}"
    question = searched(tmp_path, config, NIXFRONT_REGISTRY_PASSWORD="one")
    other = {**question.environment, "NIXFRONT_REGISTRY_PASSWORD": "two"}
    assert search_cache.recall_meaning(question) is not None
    assert search_cache.recall_meaning(replace(question, environment=other)) is not None, (
        "no hash of a secret"
    )

    for changed in (
        replace(question, environment={**question.environment, "NIXFRONT_PACKAGES_KIND": "demo"}),
        replace(question, environment={**question.environment, "NIXFRONT_LOGG_LEVEL": "info"}),
        replace(question, demo=True),
        replace(question, package_set="team"),
        replace(question, tag="12"),
        replace(question, config=None),
        replace(question, config=tmp_path / "nothing.yml"),
    ):
        assert search_cache.recall_meaning(changed) is None, changed
    (tmp_path / "nixfront.yml").write_text(f"{config}\nlog: {{level: debug}}")
    assert search_cache.recall_meaning(question) is None


@pytest.mark.parametrize("config", ["- a list", "text", "data: [", "data: {dir: [1]}", "", "\x00"])
def test_what_is_no_file_of_settings_is_left_to_those_who_read_them(tmp_path: Path, config: str) -> None:
    file = tmp_path / "nixfront.yml"
    file.write_text(config)

    assert search_cache.recall_meaning(search_cache.Question(file, {}, False, "", "latest")) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '"x"',
        '{"kind": "demo", "names": 1, "seconds": 1}',
        '{"kind": "", "names": "/", "seconds": "x"}',
    ],
)
def test_a_damaged_meaning_is_none(tmp_path: Path, content: str) -> None:
    question = searched(tmp_path, f"data: {{dir: {tmp_path / 'data'}}}")
    (file,) = (tmp_path / "data/sets").glob("meaning-*")

    file.write_text(content)

    assert search_cache.recall_meaning(question) is None


def test_other_settings_have_other_names(tmp_path: Path) -> None:
    environment = {"NIXFRONT_DATA_DIR": str(tmp_path), "NIXFRONT_PACKAGES_KIND": "demo"}
    demo = settings.load(None, environment)
    (tmp_path / "sets").mkdir()
    search_cache.keep(demo, "", "latest", NameIndex(("hello",)))

    index = search_cache.recall(demo, "", "latest")
    assert index is not None
    assert tuple(index) == ("hello",)
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
