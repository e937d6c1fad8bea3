"""proxy/README.md names the rooms and modules as they are, and the contract as it is checked."""

import configparser
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from proxy.nix.sets import KINDS
from proxy.nix.sets.kinds import Kind
from proxy.settings.packages import PackageSource

ROOT = Path(__file__).parents[3]
PROXY = ROOT / "proxy"
PAGE = (PROXY / "README.md").read_text(encoding="utf-8")
#: How far a line of the listing is indented for each level.
STEP = 2
HOW_TO_MEND = "proxy/README.md, 'The rooms': one line for each module, with what it does"


def listing() -> Iterator[tuple[str, str]]:
    """Each folder and module of the listing, as `room/module`, and its explanation."""
    block = re.search(r"^```\nproxy/\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert block is not None
    above: list[str] = []
    for line in block[1].splitlines():
        row = re.fullmatch(r"( +)(\w+)/? +(\S.*)", line)
        assert row is not None, line
        above = [*above[: len(row[1]) // STEP - 1], row[2]]
        yield "/".join(above), row[3]


def modules() -> set[str]:
    """Each package and module of proxy/ below the top, as `room/module`."""
    files = (file.relative_to(PROXY).with_suffix("") for file in PROXY.glob("*/**/*.py"))
    return {str(file.parent if file.name == "__init__" else file) for file in files}


def test_the_listing_names_every_module_and_no_other() -> None:
    names = [name for name, _ in listing()]

    assert sorted(names) == sorted(set(names)), "a name stands there twice"
    assert set(names) <= modules(), f"these are gone; {HOW_TO_MEND}"
    assert modules() - set(names) == set(), f"these are missing; {HOW_TO_MEND}"


def test_explanations_fit_on_a_line() -> None:
    for name, text in listing():
        assert 5 <= len(text) <= 90, name


def test_the_walks_and_recipes_name_modules_that_are_there() -> None:
    rooms = {path.name for path in PROXY.iterdir() if (path / "__init__.py").exists()}
    ours = {name for name in re.findall(r"`((?:\w+/)+\w+)`", PAGE) if name.partition("/")[0] in rooms}

    assert len(ours) > 30
    assert ours - modules() == set()


def test_the_walks_visit_every_room_of_a_pull() -> None:
    walks = PAGE[PAGE.index("## A pull, by module") : PAGE.index("## Glossary")]

    for room in (
        "web",
        "builds",
        "pipeline",
        "nix",
        "registry",
        "state",
        "image",
        "tools",
        "core",
        "telemetry",
    ):
        assert f"`{room}" in walks, room


def test_the_contract_on_the_page_is_the_one_that_is_checked() -> None:
    setup = configparser.RawConfigParser()
    setup.read(ROOT / "setup.cfg")
    layers = setup["importlinter:contract:one-way"]["layers"].strip()

    assert f"```\n{layers}\n```" in PAGE


def test_the_glossary_has_its_words_in_order() -> None:
    table = PAGE[PAGE.index("## Glossary") : PAGE.index("## Recipes")]
    words = re.findall(r"^\| ([^|]+?) \| ", table, re.MULTILINE)[1:]

    assert words == sorted(words, key=str.lower)
    assert 20 <= len(words) <= 32


def test_the_steps_for_a_kind_of_package_set_name_files_that_are_there() -> None:
    steps = (PROXY / "nix/sets/__init__.py").read_text(encoding="utf-8").split('"""')[1]
    paths = set(re.findall(r"`([\w./]+(?:/|\.(?:py|yml|md)))`", steps)) | {"CHANGELOG.md"}

    assert len(paths) > 8
    for path in paths:
        assert (ROOT / path).exists() or (PROXY / "nix/sets" / path).exists(), path


def test_every_list_of_the_kinds_of_package_sets_is_the_same() -> None:
    assert set(get_args(Kind)) == set(KINDS) == set(get_args(PackageSource.model_fields["kind"].annotation))
