"""Nix as values: its command lines, its environment, and what it prints, in the shapes of several releases."""

import grp
import json
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import BuildFailed, NixUnavailable
from proxy.core.model import Package, PackageSet, PathInfo, Policy
from proxy.nix import commands, output
from proxy.nix.evaluate import Evaluator
from proxy.nix.runner import Limits, NixRunner
from proxy.nix.store import NixStore

ENTRY = Path("/expressions/default.nix")
GIT = Package(
    "git", "git-2", "/nix/store/g.drv", (("out", "/nix/store/g"), ("doc", "/nix/store/g-doc")), "git"
)
JQ = Package("jq", "jq-1", "/nix/store/j.drv", (("bin", "/nix/store/j-bin"),), "jq")


def test_names_are_resolved_by_one_restricted_evaluation() -> None:
    argv = commands.evaluate_argv(
        ENTRY, {"system": "x86_64-linux", "attributes": ["git", "jq"]}, ["/set", "/lock"]
    )

    assert argv[argv.index("nix-instantiate") :] == (
        "nix-instantiate",
        "--eval",
        "--strict",
        "--json",
        "--read-write-mode",
        "--option",
        "restrict-eval",
        "true",
        "--option",
        "allowed-uris",
        "",
        "--option",
        "allow-import-from-derivation",
        "false",
        "-I",
        "/expressions",
        "-I",
        "/set",
        "-I",
        "/lock",
        "/expressions/default.nix",
        "--argstr",
        "request",
        '{"attributes":["git","jq"],"system":"x86_64-linux"}',
    )


def test_an_evaluation_builds_only_where_the_operator_says_so() -> None:
    argv = commands.evaluate_argv(ENTRY, {}, [], may_build=True)

    assert argv[argv.index("allow-import-from-derivation") + 1] == "true"
    assert argv[argv.index("restrict-eval") + 1] == "true"


@pytest.mark.parametrize(
    ("told", "cause"),
    [
        (
            [
                "building '/nix/store/x.drv'...",
                "error: unable to download 'http://x': Couldn't resolve host name (6)",
                "error: builder for '/nix/store/x.drv' failed with exit code 1",
                "error: 1 dependencies of derivation '/nix/store/y.drv' failed to build",
                "error: build of '/nix/store/y.drv' failed",
            ],
            "unable to download 'http://x': Couldn't resolve host name (6)",
        ),
        (["error: builder for 'x' failed with exit code 3;"], "builder for 'x' failed with exit code 3"),
        (["error: build of 'x' failed"], "build of 'x' failed"),
        (["nothing at all"], "no error was told"),
    ],
    ids=["first of many", "the builder", "a consequence alone", "none"],
)
def test_the_cause_of_a_failure_is_what_went_wrong_first(told: list[str], cause: str) -> None:
    assert output._cause(told) == cause


def test_a_plan_is_asked_for_and_nothing_is_done() -> None:
    assert commands.plan_argv([GIT]) == (
        "nix-store",
        "--realise",
        "/nix/store/g.drv!out,doc",
        "--dry-run",
    )


def test_what_is_wanted_beside_packages_is_realised_with_them() -> None:
    path = Package("p", "p", "", (("out", "/nix/store/p"),), "")

    argv = commands.realise_argv([JQ, path, path], Path("/roots/r"), ["/nix/store/x.drv!out", "/nix/store/p"])

    assert argv == (
        "nix-store",
        "--realise",
        "/nix/store/j.drv!bin",
        "/nix/store/p",
        "/nix/store/x.drv!out",
        "--add-root",
        "/roots/r",
        "--indirect",
    )


def test_a_root_is_built_from_a_file_and_rooted() -> None:
    argv = commands.build_argv(Path("/expressions/root.nix"), Path("/roots/r.json"), Path("/roots/root"))

    assert argv == (
        "nix-build",
        "/expressions/root.nix",
        "--argstr",
        "request",
        "/roots/r.json",
        "--out-link",
        "/roots/root",
    )


@pytest.mark.parametrize(
    ("lines", "fetched"),
    [
        ([], 0),
        (
            ["these 2 paths will be fetched (0.05 MiB download, 1.50 MiB unpacked):", "  /nix/store/a"],
            3 << 19,
        ),
        (["this path will be fetched (1.00 KiB download, 2.00 KiB unpacked):"], 2048),
        (["warning: x", "these 3 paths will be fetched (1.0 GiB download, 2.5 GiB unpacked):"], 5 << 29),
        (
            [
                "this derivation will be built:",
                "  /nix/store/a.drv",
                "these 3 paths will be fetched (1.00 MiB download, 2.00 MiB unpacked):",
            ],
            0,
        ),
    ],
    ids=["nothing", "paths", "a path", "in GiB", "a build fetches for itself"],
)
def test_a_plan_says_what_the_closure_fetches(lines: list[str], fetched: int) -> None:
    assert output.read_plan(lines) == fetched


def test_an_evaluation_is_bounded_in_memory() -> None:
    argv = commands.evaluate_argv(ENTRY, {}, [], memory=1000)

    bound = argv[: argv.index("nix-instantiate")]
    assert bound == () or (Path(bound[0]).name == "prlimit" and bound[1] == "--as=1000")
    assert commands.evaluate_argv(ENTRY, {}, [])[0] == "nix-instantiate"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_what_a_person_typed_is_one_argument_of_json(typed: list[str]) -> None:
    argv = commands.evaluate_argv(ENTRY, {"attributes": typed}, [])

    assert len(argv) == len(commands.evaluate_argv(ENTRY, {}, []))
    assert json.loads(argv[-1]) == {"attributes": typed}


def test_a_flake_is_fetched_as_it_is_locked() -> None:
    assert commands.flake_argv("archive", "github:a/b?ref=main") == (
        "nix",
        "flake",
        "archive",
        "--json",
        "--no-update-lock-file",
        "github:a/b?ref=main",
    )


def test_a_source_is_fetched_by_one_evaluation() -> None:
    source = {"type": "git", "url": "https://example.org/x", "ref": "main"}

    assert commands.fetch_argv(Path("/expressions/source.nix"), source, "/prefix") == (
        "nix-instantiate",
        "--eval",
        "--strict",
        "--json",
        "--read-write-mode",
        "/expressions/source.nix",
        "--argstr",
        "source",
        '{"ref":"main","type":"git","url":"https://example.org/x"}',
        "--argstr",
        "prefix",
        "/prefix",
    )


def test_exactly_the_wanted_outputs_are_realised_and_rooted() -> None:
    assert commands.realise_argv([GIT, JQ, GIT], Path("/roots/root")) == (
        "nix-store",
        "--realise",
        "/nix/store/g.drv!out,doc",
        "/nix/store/j.drv!bin",
        "--add-root",
        "/roots/root",
        "--indirect",
    )


def test_the_closure_is_asked_for_once_for_each_path() -> None:
    assert commands.path_info_argv(["/nix/store/b", "/nix/store/a", "/nix/store/b"]) == (
        "nix",
        "path-info",
        "--json",
        "--recursive",
        "/nix/store/b",
        "/nix/store/a",
    )


LISTED: list[dict[str, Any]] = [
    {"path": "/nix/store/b", "narSize": 20, "references": ["/nix/store/c", "/nix/store/b", "/nix/store/a"]},
    {"path": "/nix/store/a", "narSize": 10, "references": []},
]


@pytest.mark.parametrize(
    "printed",
    [
        pytest.param(LISTED, id="a list, until 2.18"),
        pytest.param({item["path"]: item for item in LISTED}, id="by path, with the path within"),
        pytest.param(
            {item["path"]: {k: v for k, v in item.items() if k != "path"} for item in LISTED},
            id="by path, since 2.19",
        ),
    ],
)
def test_either_shape_of_path_info_is_read(printed: object) -> None:
    assert output.read_path_info(json.dumps(printed).encode()) == (
        PathInfo("/nix/store/a", 10, ()),
        PathInfo("/nix/store/b", 20, ("/nix/store/a", "/nix/store/c")),
    )


@pytest.mark.parametrize(
    "printed",
    [
        pytest.param([*LISTED, {"path": "/nix/store/x", "valid": False}], id="a list"),
        pytest.param({"/nix/store/a": LISTED[1], "/nix/store/x": None}, id="by path"),
    ],
)
def test_a_path_that_is_not_valid_is_a_failed_build(printed: object) -> None:
    with pytest.raises(BuildFailed, match=r"just built: /nix/store/x$"):
        output.read_path_info(json.dumps(printed).encode())


@pytest.mark.parametrize("printed", [b"[]", b"{}"])
def test_nothing_is_an_empty_closure(printed: bytes) -> None:
    assert output.read_path_info(printed) == ()


@given(
    st.dictionaries(st.text("abc/"), st.tuples(st.integers(0), st.lists(st.text("abc/"), unique=True))),
    st.randoms(use_true_random=False),
)
def test_both_shapes_in_any_order_are_the_same_closure(
    paths: dict[str, tuple[int, list[str]]], random: Random
) -> None:
    by_path = {path: {"narSize": size, "references": refs} for path, (size, refs) in paths.items()}
    listed = [{"path": path, **facts, "deriver": None} for path, facts in by_path.items()]
    random.shuffle(listed)

    closure = output.read_path_info(json.dumps(listed).encode())

    assert closure == output.read_path_info(json.dumps(by_path).encode())
    assert [info.path for info in closure] == sorted(paths)
    assert all(info.path not in info.references for info in closure)


def configuration(environment: dict[str, str]) -> list[str]:
    return environment["NIX_CONFIG"].split("\n")


def test_a_child_gets_our_environment_without_our_settings_and_without_nix_path() -> None:
    base = {"PATH": "/bin", "HOME": "/root", "NIX_PATH": "nixpkgs=/x", "NIXFRONT_LOG_LEVEL": "debug"}

    environment = commands.child_environment(base, store="", substitutes=True)

    assert environment.keys() == {"PATH", "HOME", "NIX_CONFIG"}
    assert base["NIX_PATH"] == "nixpkgs=/x"


def test_a_child_may_use_the_commands_that_we_need_and_builds_nothing_to_evaluate() -> None:
    lines = configuration(commands.child_environment({}, store="", substitutes=True))

    assert "extra-experimental-features = nix-command flakes" in lines
    assert "allow-import-from-derivation = false" in lines
    assert "substitute = false" not in lines


def test_what_the_operator_configured_comes_first() -> None:
    base = {"NIX_CONFIG": "cores = 1\nallow-import-from-derivation = true"}

    lines = configuration(commands.child_environment(base, store="", substitutes=True))

    assert lines[:2] == ["cores = 1", "allow-import-from-derivation = true"]
    assert lines.index("allow-import-from-derivation = false") > 1


def test_no_cache_is_asked_for_a_set_that_none_can_hold() -> None:
    assert "substitute = false" in configuration(commands.child_environment({}, store="", substitutes=False))


def test_a_store_of_its_own_is_named() -> None:
    assert commands.child_environment({}, store="/data/nix", substitutes=True)["NIX_REMOTE"] == "/data/nix"
    assert "NIX_REMOTE" not in commands.child_environment({}, store="", substitutes=True)


def test_root_without_build_users_builds_as_root() -> None:
    has_group = any(group.gr_name == "nixbld" for group in grp.getgrall())

    lines = configuration(commands.child_environment({}, store="", substitutes=True))

    assert ("build-users-group =" in lines) == (os.geteuid() == 0 and not has_group)


async def test_a_host_without_nix_is_told_from_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    runner = NixRunner(Limits(5, 5))
    store = NixStore(runner, tmp_path)
    evaluator = Evaluator(runner, tmp_path, system="x86_64-linux", policy=Policy(), folder=tmp_path)
    package_set = PackageSet("demo", "/x", "r", "s", "1980-01-01T00:00:00Z")

    with pytest.raises(NixUnavailable, match=r"nix-instantiate could not be started .* is Nix installed"):
        await evaluator.evaluate(package_set, ["git"])
    with pytest.raises(NixUnavailable):
        await store.fetch({"type": "path", "path": "/x"}, tmp_path / "root")
    with pytest.raises(NixUnavailable, match="nix-store"):
        await store.realise(package_set, [GIT], ["git"], tmp_path, lambda _: None)


def test_the_prefix_is_the_folder_of_the_store() -> None:
    assert NixStore(NixRunner(Limits(1, 1), store="/data/nix"), ENTRY).prefix == "/data/nix"


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        pytest.param(
            ["warning: x", "error: attribute 'a' missing", "", "       at /x.nix:1:2:"],
            "attribute 'a' missing\n\nat /x.nix:1:2:",
            id="from the error on",
        ),
        pytest.param(["error: first", "  error: second"], "second", id="the last of two"),
        pytest.param(["one", "two", "three", "four"], "two\nthree\nfour", id="the end where none is named"),
        pytest.param([], "", id="nothing"),
        pytest.param(["error: x", *["more"] * 50], "\n".join(["x", *["more"] * 19]), id="not too much"),
    ],
)
def test_the_message_of_an_evaluation_is_its_error(tail: list[str], message: str) -> None:
    assert output.last_lines(tail) == message
