"""The builder of the Nix-native image: what it reads from Nix, and that nothing is missing where it runs."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

import proxy
from proxy.core.model import Package, PathInfo
from proxy.image import nix_build
from proxy.image import recipe as image_recipe
from proxy.image.recipe import Definition, Recipe, TextPaths
from proxy.wiring import files

FOLDER = Path(proxy.__file__).parent
GIT = {
    "attribute": "git",
    "name": "git-1",
    "outputs": [{"name": "out", "path": "/g"}],
    "mainProgram": "git",
    "version": "2",
}
BASH = {
    "attribute": "bash",
    "name": "bash-5",
    "outputs": [{"name": "out", "path": "/b"}],
    "mainProgram": "",
    "version": "",
}
SAME = {**GIT, "attribute": "gitMinimal"}


def asked(**fields: Any) -> dict[str, Any]:
    given = {"name": "web", "named": False, "packages": [GIT, BASH], "owner": [0, 0], "tools": []}
    return {**given, "extraCommands": "", "maxLayers": 24, **fields}


def file_of(module: str) -> str:
    """Where a module of ours lies below `proxy/`, without its ending."""
    return f"{module}/__init__" if (FOLDER / module).is_dir() else module


def imported(file: str) -> set[str]:
    """The files of ours that a file imports, with those of the packages that they are in."""
    names = set()
    for node in ast.walk(ast.parse((FOLDER / f"{file}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and f"{node.module}.".startswith("proxy."):
            inside = node.module.split(".")[1:]
            modules = ["/".join([*inside, alias.name]) for alias in node.names]
            modules = [one for one in modules if (FOLDER / f"{one}.py").is_file()] or ["/".join(inside)]
            names |= {file_of(one) for one in modules}
            names |= {f"{inside[0]}/__init__"}
    return names


def test_the_build_is_given_every_module_that_it_imports_and_no_other() -> None:
    expression = (files.EXPRESSIONS / "build-registry-image.nix").read_text()
    listed = re.search(r"modules = \[(.*?)\]", expression, re.DOTALL)
    assert listed is not None
    needed, pending = {"__init__"}, {"image/nix_build"}
    while pending:
        needed |= pending
        pending = set().union(*(imported(file) for file in pending)) - needed

    assert set(re.findall(r'"([\w/]+)"', listed[1])) == needed


@pytest.mark.parametrize("inside", [True, False], ids=["where builds begin", "where Nix says"])
def test_the_arguments_are_found(tmp_path: Path, inside: bool) -> None:
    top, other = tmp_path / "top", tmp_path / "attributes.json"
    top.mkdir()
    (top / ".attrs.json" if inside else other).write_text(json.dumps({"a": "é"}))

    found = nix_build._attributes({"NIX_BUILD_TOP": str(top), "NIX_ATTRS_JSON_FILE": str(other)})

    assert found == {"a": "é"}


def test_the_closure_is_as_nix_path_info_tells_it() -> None:
    graph = [
        {"path": "/b", "narSize": 2, "references": ["/c", "/b", "/a"], "closureSize": 9},
        {"path": "/root", "narSize": 2, "references": ["/b"]},
        {"path": "/a", "narSize": 1, "references": []},
    ]

    assert nix_build._closure(graph, "/root") == (
        PathInfo("/a", 1, ()),
        PathInfo("/b", 2, ("/a", "/c")),
    )


def test_packages_are_a_path_of_packages() -> None:
    recipe = nix_build._recipe(asked(packages=[GIT, SAME, GIT, BASH]))

    assert [package.attribute for package in recipe.packages] == ["git", "gitMinimal", "bash"]
    assert recipe.image == ""


def test_a_named_image_holds_no_output_twice() -> None:
    recipe = nix_build._recipe(asked(named=True, packages=[GIT, SAME, BASH], owner=[1, 2]))

    git = Package("git", "git-1", "", (("out", "/g"),), "git", version="2")
    bash = Package("bash", "bash-5", "", (("out", "/b"),), "")
    assert recipe == Recipe((git, bash), image="web", owner=(1, 2))


def test_the_version_is_that_of_the_first_package() -> None:
    assert nix_build._recipe(asked()).version == "2"
    assert nix_build._recipe(asked(named=True)).version == ""


def test_the_hash_of_the_outputs_is_that_of_the_proxy() -> None:
    assert nix_build._outputs(asked()) == image_recipe.output_tag(["/b", "/g"])
    fields = asked(named=True, extraCommands="true", tools=[BASH])
    recipe = nix_build._recipe(fields)
    tools = (Package("bash", "bash-5", "/bash.drv", (("out", "/b"),), ""),)
    whole = Definition(recipe, TextPaths(("/x",), ("/x",)), most_layers=24, script="true", tools=tools)
    assert nix_build._outputs(fields) == image_recipe.tag(whole)
