"""`nixfront init`: answers become settings that nixfront accepts."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from proxy import cli, settings
from proxy.cli import first_settings
from proxy.core.errors import SettingsInvalid


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_a_terminal_and_options_the_answers_are_the_defaults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["init"]) == 0

    assert settings.load(Path("nixfront.yml"), {}) == settings.load(None, {})
    assert "    nixfront serve --config nixfront.yml\n" in capsys.readouterr().out


def test_every_question_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "init",
        "--registry",
        "https://registry.example.net",
        "--pull",
        "users",
        "--packages",
        "nixos-24.05",
    ]

    assert cli.main([*argv, "-o", "own.yml", "--json"]) == 0
    assert cli.main(["init", "--mirror", "nix/", "--pull", "everybody", "-o", "mirror.yml"]) == 0

    mirror = settings.load(Path("mirror.yml"), {}).mirror
    written = settings.load(Path("own.yml"), {})
    assert capsys.readouterr().out.partition("\nmirror.yml")[0].startswith('{\n  "file": "own.yml"')
    assert (written.http.addr, written.registry.url) == ("0.0.0.0:8080", "https://registry.example.net")
    assert (written.packages.kind, written.packages.ref) == ("nixpkgs", "nixos-24.05")
    assert written.access.users == ("*",)
    assert (mirror.prefix, mirror.addr) == ("nix/", "0.0.0.0:8081")


@pytest.mark.parametrize(
    ("answer", "kind", "key", "value"),
    [
        ("demo", "demo", "url", ""),
        ("/srv/packages", "path", "path", "/srv/packages"),
        ("https://git.example.net/set.git", "git", "url", "https://git.example.net/set.git"),
        ("nixpkgs", "nixpkgs", "ref", ""),
    ],
)
def test_packages_come_from_where_the_answer_says(answer: str, kind: str, key: str, value: str) -> None:
    assert cli.main(["init", "--packages", answer]) == 0

    source = settings.load(Path("nixfront.yml"), {}).packages
    assert (source.kind, getattr(source, key)) == (kind, value)


@pytest.mark.parametrize(
    "argv",
    [
        ["--registry", "registry.example.net"],
        ["--mirror", "nix"],
        ["--pull", "nobody"],
        ["--pull", "users"],
        ["--pull", "users", "--registry", "https://registry.example.net", "--mirror", "nix/"],
    ],
)
def test_a_wrong_answer_leaves_no_file(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", *argv]) == 2

    assert not Path("nixfront.yml").exists()
    assert argv[0].lstrip("-") in capsys.readouterr().err


def test_a_file_that_is_there_stays(capsys: pytest.CaptureFixture[str]) -> None:
    Path("nixfront.yml").write_text("log: {level: debug}\n")

    assert cli.main(["init"]) == 2
    assert Path("nixfront.yml").read_text() == "log: {level: debug}\n"
    assert capsys.readouterr().err == "nixfront: nixfront.yml is there already; -o names another file\n"


def test_every_question_has_a_default_that_means_something() -> None:
    answers = {name: default for name, _, default in first_settings.QUESTIONS}

    assert first_settings.tree(answers)["packages"] == {"kind": "nixpkgs"}
    with pytest.raises(SettingsInvalid, match="pull"):
        first_settings.tree({**answers, "pull": ""})


def test_a_wrong_answer_at_a_terminal_gets_the_question_again() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "r+b", buffering=0) as person, os.fdopen(theirs, "r+b", buffering=0) as terminal:
        person.write(b"registry.example\nhttps://registry.example\nnobody\nusers\nnixpgks\ndemo\nnix/\n\n")
        ended = subprocess.run(
            [sys.executable, "-m", "proxy", "init", "-o", str(Path("own.yml").absolute())],
            cwd=Path(first_settings.__file__).parents[2],
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=terminal,
            timeout=60,
            check=False,
        )
        shown = person.read(1 << 14).decode()

    assert ended.returncode == 0, shown
    chosen = settings.load(Path("own.yml"), {})
    assert (chosen.registry.url, chosen.access.users, chosen.packages.kind) == (
        "https://registry.example",
        ("*",),
        "demo",
    )
    assert chosen.mirror.prefix == "", "clients of a mirror have no login, and the second answer was empty"
    for mistake in ("registry.url: ", "and not 'nobody'", "'nixpgks' is no source", "exclude each other"):
        assert mistake in shown, shown
