"""The listing of proxy/ is the architecture: sizes, folders, imports, and tests that lie beside what they test."""

import ast
import configparser
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROXY = ROOT / "proxy"
UNIT = ROOT / "tests" / "unit"

MOST_LINES_OF_A_FILE = 300
MOST_LINES_OF_A_LONG_FILE = 340
MOST_LINES_OF_A_CLASS = 200
MOST_FILES_OF_A_FOLDER = 12
MOST_ROWS_OF_THE_CONTRACT = 10  # beside __main__

#: Files of more than 300 lines, each with its reason; none may have more than 340.
LONG_FILES: dict[str, str] = {}

#: What is still above its limit. A line goes as soon as its file, class or folder keeps the limit; none is added.
STILL_TOO_LONG: set[str] = set()
STILL_TOO_BIG: set[str] = set()
STILL_CROWDED: set[str] = set()

#: Folders of tests/unit that test something else than a package of proxy/.
OTHER_TESTS = {"bench", "documents", "support"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def modules() -> list[Path]:
    return sorted(PROXY.rglob("*.py"))


def folders() -> list[Path]:
    return sorted(path for path in (PROXY, *PROXY.rglob("*")) if path.is_dir() and path.name != "__pycache__")


def packages() -> list[Path]:
    return [folder for folder in folders() if (folder / "__init__.py").exists()]


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def compare(above: set[str], exceptions: set[str], limit: str) -> None:
    assert not above - exceptions, f"above {limit}: {sorted(above - exceptions)}"
    assert not exceptions - above, (
        f"these keep {limit}; delete them from the exceptions: {sorted(exceptions - above)}"
    )


def test_nothing_lies_flat_in_proxy() -> None:
    assert {path.name for path in PROXY.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_no_file_is_longer_than_a_person_reads() -> None:
    lines = {name(path): len(path.read_text().splitlines()) for path in modules()}
    above = {path for path, count in lines.items() if count > MOST_LINES_OF_A_FILE}

    compare(above, STILL_TOO_LONG | set(LONG_FILES), f"{MOST_LINES_OF_A_FILE} lines")
    assert {path for path in LONG_FILES if lines[path] > MOST_LINES_OF_A_LONG_FILE} == set()


def test_no_class_is_longer_than_two_thirds_of_a_file() -> None:
    above = {
        f"{name(path)} {node.name}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno + 1 > MOST_LINES_OF_A_CLASS
    }

    compare(above, STILL_TOO_BIG, f"{MOST_LINES_OF_A_CLASS} lines")


def test_no_folder_holds_more_than_a_dozen_files() -> None:
    above = {
        name(folder)
        for folder in folders()
        if sum(path.is_file() for path in folder.iterdir()) > MOST_FILES_OF_A_FOLDER
    }

    compare(above, STILL_CROWDED, f"{MOST_FILES_OF_A_FOLDER} files")


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser()
    parsed.read(ROOT / "setup.cfg")
    return parsed


def test_every_package_is_installed(setup: configparser.ConfigParser) -> None:
    """`find:` would miss the two that lie elsewhere."""
    assert sorted(setup["options"]["packages"].split()) == sorted(
        [*map(dotted, packages()), "proxy.expressions", "proxy.samples"]
    )


def test_the_contract_fits_on_a_screen(setup: configparser.ConfigParser) -> None:
    rows = setup["importlinter:contract:one-way"]["layers"].split("\n")
    rows = [row.strip() for row in rows if row.strip() not in ("", "__main__")]
    rooms = {package.relative_to(PROXY).parts[0] for package in packages() if package != PROXY}

    assert len(rows) <= MOST_ROWS_OF_THE_CONTRACT
    assert {room.strip() for row in rows for room in row.split("|")} == rooms


def imports(path: Path, known: set[str]) -> Iterator[str]:
    """The modules of this tree that a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: imports are absolute"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                if submodule in known:
                    yield submodule
                elif node.module in known:
                    yield str(node.module)


def test_no_module_imports_itself_on_a_detour() -> None:
    known = {dotted(path) for path in modules()}
    graph = {dotted(path): set(imports(path, known)) for path in modules()}

    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_unit_tests_lie_as_what_they_test() -> None:
    """tests/unit/ROOM/test_MODULE.py, or test_MODULE_SUBJECT.py; a package's own file is named after the package."""
    strangers = set()
    for path in sorted(UNIT.rglob("test_*.py")):
        folder = path.parent.relative_to(UNIT)
        if folder.parts[0] in OTHER_TESTS:
            continue
        stems = {module.stem for module in (PROXY / folder).glob("*.py")} | {folder.name}
        stems |= {package.parent.name for package in (PROXY / folder).glob("*/__init__.py")}
        tested = path.stem.removeprefix("test_")
        if not any(tested == stem or tested.startswith(f"{stem}_") for stem in stems):
            strangers.add(name(path))

    assert not strangers, "no module of this name"
