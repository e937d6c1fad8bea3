"""How Nix runs: what another Nix does to a run that meets it at a bad moment."""

from pathlib import Path

import pytest

from proxy.core.errors import NixfrontError
from proxy.core.model import PackageSet, Policy
from proxy.nix.runner import Expressions, Limits, NixRunner

REFUSED = "error: cannot connect to socket at '/nix/var/nix/gc-socket/socket': Connection refused"
EXISTS = (
    "error: creating symlink from '/s/nix/var/nix/gcroots/profiles' to '/s/nix/var/nix/profiles': File exists"
)


def failing(folder: Path, message: str, times: int) -> tuple[str, ...]:
    """A program that fails so often with this message; what it runs for is counted in the file `runs`."""
    script = f'echo x >> {folder}/runs; [ $(wc -l < {folder}/runs) -gt {times} ] || {{ echo "$0" >&2; exit 1; }}; echo done'
    return ("sh", "-c", script, message)


@pytest.mark.parametrize("message", [REFUSED, EXISTS])
async def test_a_run_that_meets_another_one_runs_again(tmp_path: Path, message: str) -> None:
    runner = NixRunner(Limits(10, 10))

    assert await runner.run(failing(tmp_path, message, 2), 60) == b"done\n"


@pytest.mark.parametrize(("message", "runs"), [(REFUSED, 6), ("error: builder failed", 1)])
async def test_no_failure_is_repeated_without_an_end(tmp_path: Path, message: str, runs: int) -> None:
    runner = NixRunner(Limits(10, 10))

    with pytest.raises(NixfrontError):
        await runner.run(failing(tmp_path, message, 99), 60)

    assert len((tmp_path / "runs").read_text().splitlines()) == runs


@pytest.mark.parametrize(("said", "expected"), [("", "max-jobs = auto"), ("max-jobs = 0\n", None)])
async def test_nix_works_on_several_packages_at_a_time_where_the_operator_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, expected: str | None
) -> None:
    for name in ("NIX_CONFIG", "NIX_USER_CONF_FILES", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NIX_CONF_DIR", "HOME", "XDG_CONFIG_DIRS"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "nix.conf").write_text(said)

    lines = (await NixRunner(Limits(10, 10)).run(("sh", "-c", 'echo "$NIX_CONFIG"'), 60)).decode().split("\n")

    assert [line for line in lines if line.startswith("max-jobs")] == ([expected] if expected else [])


async def test_an_evaluation_whose_derivations_were_collected_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "error: path '/nix/store/dpnga9da4nkj01h05ymc9lh9k3qql2xl-libpcre2.deb.drv' is not valid"
    _, _, script, _ = failing(tmp_path, message, 2)
    program = tmp_path / "nix-instantiate"
    program.write_text(f'#!/bin/sh\nset -- "{message}"\n{script.replace("$0", "$1")}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    expressions = Expressions(NixRunner(Limits(60, 60)), tmp_path, system="", policy=Policy())

    assert (
        await expressions.evaluate("default.nix", PackageSet("a", "/a", "1" * 40, "a", ""), {}) == b"done\n"
    )
