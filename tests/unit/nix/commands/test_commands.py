"""The command lines of Nix, and its environment."""

import grp
import json
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.model import Package
from proxy.nix import commands

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
        "experimental-features",
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


def configuration(environment: dict[str, str]) -> list[str]:
    return environment["NIX_CONFIG"].split("\n")


def test_a_child_gets_our_environment_without_our_settings_and_without_nix_path() -> None:
    base = {"PATH": "/bin", "HOME": "/root", "NIX_PATH": "nixpkgs=/x", "NIXFRONT_LOG_LEVEL": "debug"}

    environment = commands.child_environment(base, store="", substitutes=True)

    assert environment.keys() == {"PATH", "HOME", "NIX_CONFIG"}
    assert base["NIX_PATH"] == "nixpkgs=/x"


def test_a_child_that_may_start_builders_gets_no_secret() -> None:
    needed = {
        "PATH": "/bin",
        "HOME": "/root",
        "LC_ALL": "C",
        "NIX_SSHOPTS": "-v",
        "https_proxy": "http://p",
        "SSL_CERT_FILE": "/c",
    }
    secret = {"AWS_SECRET_ACCESS_KEY": "a", "OTEL_EXPORTER_OTLP_HEADERS": "b", "GITHUB_TOKEN": "c"}
    base = {**needed, **secret, "NIX_CONFIG": "cores = 1\naccess-tokens = x=1\n extra-access-tokens = y=2"}
    at_s3 = commands.Caches(substituters=("s3://cache",))

    builds = commands.child_environment(base, store="", substitutes=True)
    fetches = commands.child_environment(base, store="", substitutes=True, secrets=True)
    builds_with_s3 = commands.child_environment(base, store="", substitutes=True, caches=at_s3)

    assert builds.keys() == {*needed, "NIX_CONFIG"}
    assert "tokens" not in builds["NIX_CONFIG"]
    assert "cores = 1" in builds["NIX_CONFIG"]
    assert fetches.keys() == {*needed, *secret, "NIX_CONFIG"}
    assert "access-tokens = x=1" in fetches["NIX_CONFIG"]
    assert builds_with_s3.keys() - builds.keys() == {"AWS_SECRET_ACCESS_KEY"}


def test_a_child_may_use_the_commands_that_we_need_and_builds_nothing_to_evaluate() -> None:
    lines = configuration(commands.child_environment({}, store="", substitutes=True))

    assert "extra-experimental-features = nix-command flakes" in lines
    assert "allow-import-from-derivation = false" in lines
    assert "substitute = false" not in lines


def test_what_the_operator_configured_comes_first() -> None:
    base = {"NIX_CONFIG": "cores = 1\nallow-import-from-derivation = true"}

    lines = configuration(commands.child_environment(base, store="", substitutes=True))

    assert lines[1:3] == ["cores = 1", "allow-import-from-derivation = true"], "behind a default of ours"
    assert lines.index("allow-import-from-derivation = false") > 2


def test_no_cache_is_asked_for_a_set_that_none_can_hold() -> None:
    assert "substitute = false" in configuration(commands.child_environment({}, store="", substitutes=False))


def test_a_store_of_its_own_is_named() -> None:
    assert commands.child_environment({}, store="/data/nix", substitutes=True)["NIX_REMOTE"] == "/data/nix"
    assert "NIX_REMOTE" not in commands.child_environment({}, store="", substitutes=True)


def test_root_without_build_users_builds_as_root() -> None:
    has_group = any(group.gr_name == "nixbld" for group in grp.getgrall())

    lines = configuration(commands.child_environment({}, store="", substitutes=True))

    assert ("build-users-group =" in lines) == (os.geteuid() == 0 and not has_group)


def test_a_run_through_a_shell_counts_as_the_import_that_it_is() -> None:
    """Paths are arguments of the shell, so none of them is read as its language."""
    argv = commands.rename_argv(("/python", "/program"), Path("/names"), ["/nix/store/a", "/nix/store/b"])

    assert argv[-5:] == ("/python", "/program", "/names", "/nix/store/a", "/nix/store/b")
    assert commands.kind_of_run(argv) == "nix-store --import"
    assert not any("/nix/store" in word for word in argv[:-2])
