"""What programs of an image find: libraries of their own language and version, data in /share, and no more."""

import json
import site
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.core.model import PackageSet
from proxy.image import environment
from proxy.image import recipe as image_recipe
from proxy.image.environment import Environment, data
from proxy.image.environment.libraries import GUARD, Libraries, libraries
from proxy.image.recipe import Recipe
from proxy.image.tar import Entry, directory, file, symlink
from tests.support.listing import STORE, Tree

SET = PackageSet("nixpkgs", "/nix/store/source", "0123", "", "2026-01-31T00:00:00Z")
PYTHON = {"0-python3-3.13.1/bin/python3.13": "executable", "0-python3-3.13.1/lib/python3.13/os.py": "x"}
SITE = "lib/python3.13/site-packages"
REQUESTS = {
    f"0-requests-2/{SITE}/requests/x.py": "x",
    "0-requests-2/nix-support/propagated-build-inputs": f"{STORE}/0-python3-3.13.1 {STORE}/0-idna-3\n {STORE}/0-zlib-1 ",
    f"0-idna-3/{SITE}/idna/x.py": "x",
    "0-idna-3/nix-support/propagated-build-inputs": f"{STORE}/0-requests-2 {STORE}/0-far-1",
    f"0-far-1/{SITE}/far.py": "x",
    "0-zlib-1/lib/libz.so": "x",
}
IN_SET = f"/{GUARD}"


def found(tree: Mapping[str, str], *outputs: str, closure: set[str] | None = None) -> Libraries:
    everything = {f"{STORE}/{path.split('/')[0]}" for path in tree}
    return libraries([f"{STORE}/{output}" for output in outputs], Tree(tree), closure or everything)


def values(result: Libraries) -> dict[str, str]:
    return {variable.name: variable.value for variable in result.variables}


def test_a_module_is_found_with_all_that_it_propagates() -> None:
    result = found({**PYTHON, **REQUESTS}, "0-requests-2", "0-python3-3.13.1")

    folders = [f"{STORE}/{name}/{SITE}" for name in ("0-requests-2", "0-idna-3", "0-far-1")]
    assert values(result) == {"NIX_PYTHONPATH": ":".join([*folders, IN_SET])}
    assert result.variables[0].reason == "python3-3.13.1 finds requests-2, idna-3, far-1"
    assert result.notes == ()


def test_what_is_not_in_the_closure_does_not_count_even_where_the_store_has_it() -> None:
    tree = {**PYTHON, **REQUESTS}
    closure = {f"{STORE}/{path.split('/')[0]}" for path in tree} - {f"{STORE}/0-far-1"}

    assert (
        "far"
        not in values(found(tree, "0-python3-3.13.1", "0-requests-2", closure=closure))["NIX_PYTHONPATH"]
    )


@pytest.mark.parametrize("outputs", [("0-python3-3.13.1",), ("0-requests-2",), ()])
def test_an_interpreter_or_a_module_alone_sets_nothing(outputs: tuple[str, ...]) -> None:
    assert found({**PYTHON, **REQUESTS}, *outputs) == Libraries()


def test_a_module_for_another_version_is_reported_and_left_out() -> None:
    tree = {**PYTHON, "0-old-1/lib/python3.12/site-packages/old.py": "x"}

    result = found(tree, "0-python3-3.13.1", "0-old-1")

    assert result.variables == () == result.files
    assert result.notes == ("old-1 is for Python 3.12, and the image has 3.13 (python3-3.13.1)",)


def test_an_environment_of_the_set_is_an_interpreter_and_no_library() -> None:
    tree = {
        "0-python3-3.13.1-env/bin/python3.13": "executable",
        f"0-python3-3.13.1-env/{SITE}/requests/x.py": "x",
    }

    assert found(tree, "0-python3-3.13.1-env") == Libraries()


def test_two_interpreters_get_the_modules_of_their_own_version() -> None:
    old = {
        "0-python3-3.12.1/bin/python3.12": "executable",
        "0-old-1/lib/python3.12/site-packages/old.py": "x",
    }

    result = found(
        {**PYTHON, **REQUESTS, **old}, "0-python3-3.13.1", "0-python3-3.12.1", "0-requests-2", "0-old-1"
    )

    assert values(result) == {"NIX_PYTHONPATH": IN_SET}
    lines = result.files[-1].content.decode().splitlines()
    assert [('"python3.13"' in line, "0-requests-2" in line, "0-old-1" in line) for line in lines] == [
        (True, True, False),
        (False, False, True),
        (False, False, False),
    ]
    assert result.notes == ()


OTHERS = {
    "a program for another version": {"0-tool-1/lib/python3.12/site-packages/tool.py": "x"},
    "another library with the same name": {f"0-tool-1/{SITE}/idna/x.py": "x"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_where_a_program_could_get_the_wrong_library_the_guard_alone_is_in_the_value(
    other: Mapping[str, str],
) -> None:
    result = found({**PYTHON, **REQUESTS, **other}, "0-python3-3.13.1", "0-requests-2")

    assert values(result) == {"NIX_PYTHONPATH": IN_SET}


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the guard for this Python, which has a library in `tmp_path / "library"`."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    program, folder = f"0-python3-1/bin/{version}", f"lib/{version}/site-packages"
    result = found({program: "executable", f"0-lib-1/{folder}/lib.py": "x"}, "0-python3-1", "0-lib-1")
    text = result.files[-1].content.decode().replace(f"{STORE}/0-lib-1/{folder}", str(tmp_path / "library"))
    (tmp_path / "library").mkdir()
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard/nixfront.pth").write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("NIX_PYTHONPATH", raising=False)
    return tmp_path / "guard"


@pytest.mark.parametrize(
    ("executable", "sees"),
    [("/bin/python3", 1), ("/venv/bin/python", 1), ("/nix/store/x-python3/bin/python3.13", 0)],
)
def test_the_guard_lets_only_the_interpreters_of_the_image_have_the_libraries(
    guard: Path, monkeypatch: pytest.MonkeyPatch, executable: str, sees: int
) -> None:
    monkeypatch.setattr(sys, "executable", executable)

    site.addsitedir(str(guard))

    assert sys.path.count(str(guard.parent / "library")) == sees


def test_child_processes_have_the_variable_again(guard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ: dict[str, str] = {}
    monkeypatch.setattr("os.environ", environ)

    site.addsitedir(str(guard))

    assert environ == {"NIX_PYTHONPATH": IN_SET}


# The folder of a library and the program of the interpreter, as nixpkgs has them -> the value.
ROWS = [
    (
        {"0-perl-5.40.0/bin/perl5.40.0": "executable"},
        "lib/perl5/site_perl/5.40.0/A.pm",
        "PERL5LIB",
        "P/lib/perl5/site_perl",
    ),
    ({}, "lib/perl5/site_perl/A.pm", "PERL5LIB", "P/lib/perl5/site_perl"),
    (
        {"0-ruby-3.3.5/bin/ruby": "executable", "0-ruby-3.3.5/lib/ruby/3.3.0/x.rb": "x"},
        "lib/ruby/gems/3.3.0/gems/a/x",
        "GEM_PATH",
        "P/lib/ruby/gems/3.3.0",
    ),
    ({"0-nodejs-22/bin/node": "executable"}, "lib/node_modules/a/x.js", "NODE_PATH", "P/lib/node_modules"),
    (
        {"0-lua-5.4.7/bin/lua": "executable"},
        "share/lua/5.4/a.lua",
        "LUA_PATH",
        ";;;P/share/lua/5.4/?.lua;P/share/lua/5.4/?/init.lua",
    ),
    ({"0-lua-5.4.7/bin/lua": "executable"}, "lib/lua/5.4/a.so", "LUA_CPATH", ";;;P/lib/lua/5.4/?.so"),
    ({"0-R-4.4/bin/R": "executable"}, "library/a/DESCRIPTION", "R_LIBS_SITE", "P/library"),
]


@pytest.mark.parametrize(("interpreter", "member", "variable", "value"), ROWS)
def test_each_language_finds_its_libraries(
    interpreter: Mapping[str, str], member: str, variable: str, value: str
) -> None:
    tree = {"0-perl-5/bin/perl": "executable", **interpreter, f"0-lib-1/{member}": "x"}

    result = found(tree, *{path.split("/")[0] for path in interpreter}, "0-perl-5", "0-lib-1")

    assert values(result) == {variable: value.replace("P/", f"{STORE}/0-lib-1/")}


WRONG = [
    (
        "0-perl-5.40.0/bin/perl5.40.0",
        "0-perl-5.40.0/bin/perl",
        "lib/perl5/site_perl/5.38.0/A.pm",
        "Perl 5.38.0",
    ),
    ("0-ruby-3/bin/ruby", "0-ruby-3/lib/ruby/3.3.0/x", "lib/ruby/gems/3.2.0/gems/a", "Ruby 3.2.0"),
    ("0-lua-5.4.7/bin/lua", "0-lua-5.4.7/bin/luac", "share/lua/5.1/a.lua", "Lua 5.1"),
]


@pytest.mark.parametrize(("one", "other", "member", "note"), WRONG)
def test_each_language_reports_a_library_for_another_version(
    one: str, other: str, member: str, note: str
) -> None:
    tree = {one: "executable", other: "executable", f"0-lib-1/{member}": "x"}

    result = found(tree, one.split("/")[0], "0-lib-1")

    assert result.variables == ()
    assert [text.partition(" is for ")[2].partition(", and")[0] for text in result.notes] == [note]


def test_a_value_that_linux_would_refuse_is_left_out() -> None:
    many = {f"0-lib{number}-{'x' * 180}/lib/node_modules/a{number}/x.js": "x" for number in range(600)}
    outputs = [path.split("/")[0] for path in many]

    result = found({"0-nodejs-22/bin/node": "executable", **many}, "0-nodejs-22", *outputs)

    assert result.variables == ()
    assert "too long for Linux" in result.notes[0]


# --- data -------------------------------------------------------------------------------------------------


def tree_of(*members: Entry, store: Mapping[str, str] | None = None) -> dict[str, Entry]:
    closure = {f"{STORE}/{path.split('/')[0]}" for path in store or {}}
    entries = data.with_links([directory("etc"), directory("usr"), *members], Tree(store or {}), closure)
    assert [entry.path for entry in entries] == sorted(
        (e.path for e in entries), key=lambda path: path.split("/")
    )
    return {entry.path: entry for entry in entries}


def test_time_zones_are_where_python_and_the_c_library_look() -> None:
    members = tree_of(directory("share"), symlink("share/zoneinfo", f"{STORE}/tz/share/zoneinfo"))

    assert members["usr/share"].kind == "directory"
    assert members["usr/share/zoneinfo"].target == members["etc/zoneinfo"].target == "/share/zoneinfo"


def test_without_data_there_is_no_link() -> None:
    assert set(tree_of()) == {"etc", "usr"}


def test_a_folder_of_a_package_is_opened_for_a_link_in_it() -> None:
    store = {"p/usr/share/doc/x": "x"}
    members = tree_of(
        directory("share"),
        directory("share/zoneinfo"),
        symlink("usr/share", f"{STORE}/p/usr/share"),
        store=store,
    )

    assert members["usr/share/doc"].target == f"{STORE}/p/usr/share/doc"
    assert members["usr/share/zoneinfo"].target == "/share/zoneinfo"


@pytest.mark.parametrize("theirs", [True, False])
def test_fontconfig_is_led_to_the_fonts_and_to_the_file_of_a_package(theirs: bool) -> None:
    store = {"f/etc/fonts/fonts.conf": "x", "f/etc/fonts/conf.d/1": "x"} if theirs else {}
    links = [symlink("etc/fonts", f"{STORE}/f/etc/fonts")] if theirs else []

    members = tree_of(directory("share"), directory("share/fonts"), *links, store=store)

    text = members["etc/fonts/fonts.conf"].content.decode()
    assert "<dir>/share/fonts</dir>" in text
    assert (f">{STORE}/f/etc/fonts/fonts.conf</include>" in text) == theirs
    assert ("etc/fonts/conf.d" in members) == theirs


def test_the_c_library_finds_its_utf_8() -> None:
    members = tree_of(store={"0-glibc/lib/locale/C.utf8/LC_CTYPE": "x", "0-other/lib/x": "x"})

    assert members["usr/lib/locale/C.utf8"].target == f"{STORE}/0-glibc/lib/locale/C.utf8"


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ((), []),
        (("share",), []),
        (("share", "share/doc"), ["XDG_DATA_DIRS=/share"]),
        (("share/terminfo",), ["XDG_DATA_DIRS=/share", "TERMINFO_DIRS=/share/terminfo"]),
        (("share/man",), ["XDG_DATA_DIRS=/share"]),
        (("share/man", "bin/man"), ["XDG_DATA_DIRS=/share", "MANPATH=/share/man:"]),
    ],
)
def test_variables_lead_to_data_that_is_there(paths: tuple[str, ...], names: list[str]) -> None:
    assert [f"{v.name}={v.value}" for v in data.variables([directory(path) for path in paths])] == names


# --- the configuration ------------------------------------------------------------------------------------


def test_what_the_image_itself_sets_wins_and_has_no_reason_of_ours() -> None:
    around = Environment(
        found({**PYTHON, **REQUESTS}, "0-python3-3.13.1", "0-requests-2").variables, ("note",)
    )
    recipe = Recipe((), environment=(("NIX_PYTHONPATH", "/mine"),))

    own = image_recipe.facts(recipe, SET, "x86_64-linux", (), around)
    ours = image_recipe.facts(Recipe(()), SET, "x86_64-linux", (), around)

    assert "NIX_PYTHONPATH=/mine" in own.environment
    assert json.loads(own.labels[environment.REASONS]) == {"notes": ["note"], "reasons": {}}
    assert json.loads(ours.labels[environment.REASONS])["reasons"].keys() == {"NIX_PYTHONPATH"}


def test_an_image_with_nothing_to_explain_has_no_label() -> None:
    assert environment.REASONS not in image_recipe.facts(Recipe(()), SET, "x86_64-linux", ()).labels


def test_the_root_tree_has_the_guard_above_a_link_of_a_package() -> None:
    store = Tree({**PYTHON, **REQUESTS})
    outputs = [f"{STORE}/0-python3-3.13.1", f"{STORE}/0-requests-2"]
    members = [directory("etc"), symlink("etc/nixfront", f"{STORE}/p/etc/nixfront"), file("etc/passwd", b"")]

    entries = environment.furnished(members, outputs, store, {*outputs, f"{STORE}/0-idna-3"})

    kinds = {entry.path: entry.kind for entry in entries}
    assert kinds["etc/nixfront"] == kinds[GUARD] == "directory"
    assert kinds[f"{GUARD}/nixfront.pth"] == "file"
