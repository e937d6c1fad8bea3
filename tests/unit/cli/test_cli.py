"""The command: what it prints, where, and its exit codes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from proxy import __version__, cli


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What this host configured for a nixfront of its own is not ours."""
    for name in list(os.environ):
        if name.startswith("NIXFRONT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NIXFRONT_DATA_DIR", str(tmp_path / "data"))


def closed_port() -> int:
    """A port of the loopback interface at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "settings.yml"
    file.write_text(text)
    return str(file)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out == f"nixfront {__version__}\n"


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(["server"], id="an unknown command"),
        pytest.param(["serve", "--port", "1"], id="an unknown option"),
        pytest.param(["check-config", "--demo"], id="an option of another command"),
        pytest.param(["check-config", "--config"], id="an option without its value"),
        pytest.param(["build", "git"], id="a build for nowhere"),
        pytest.param(["build", "git", "--to", "docker:x"], id="a build for an unknown kind of place"),
        pytest.param(["build", "git", "--to", "oci:"], id="a build for a place without a name"),
        pytest.param(["popularity", "--served", "--narinfo", "/x"], id="two options that exclude each other"),
    ],
)
def test_wrong_use_is_2_with_the_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)

    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("usage: nixfront")


@pytest.mark.parametrize(
    ("argv", "usage", "error"),
    [
        (["pruen"], "", "there is no command 'pruen', did you mean prune?"),
        (["quux"], "", "there is no command 'quux'"),
        (["--vers"], "", "there is no option --vers, did you mean --version?"),
        (["serve", "--confg", "f"], " serve", "there is no option --confg, did you mean --config?"),
        (["prune", "--day=3"], " prune", "there is no option --day, did you mean --days?"),
        (["prune", "--da", "3"], " prune", "there is no option --da"),
        (["serve", "here"], " serve", "too many arguments: here"),
        (["prune", "--days", "x"], " prune", "argument --days: 'x' is no number of days"),
        (["search", "--most", "x", "a"], " search", "argument --most: 'x' is no whole number from 1 on"),
    ],
)
def test_a_mistyped_word_gets_the_word_that_was_meant(
    argv: list[str], usage: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)

    printed = capsys.readouterr().err
    assert caught.value.code == 2
    assert printed.startswith(f"usage: nixfront{usage} [-h]")
    assert f"nixfront{usage}: error: {error}" in printed.splitlines()[-1]


@pytest.mark.parametrize("command", [[], *([command.name] for command in cli.COMMANDS)])
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--help"])

    printed = capsys.readouterr().out
    assert caught.value.code == 0
    assert printed.startswith(" ".join(["usage: nixfront", *command]))
    assert "exit codes:" in printed
    assert max(map(len, printed.splitlines())) <= 120
    if command:
        assert "--config FILE" in printed
        assert "--json" in printed


def test_no_command_is_a_question_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    alone = capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["--help"])

    assert alone == capsys.readouterr()


def test_the_list_of_commands_names_each(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])

    printed = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert f"    {command.name} " in printed
        assert command.help in " ".join(printed.split())


def test_names_of_commands_are_all_different() -> None:
    names = [command.name for command in cli.COMMANDS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completions_name_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--print-completion", shell]) == 0

    printed = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert command.name in printed


def test_json_is_one_document_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-config", "--json"]) == 0

    printed = capsys.readouterr()
    assert json.loads(printed.out)["layers"]["most"] == 100
    assert printed.err == ""


def test_json_tells_of_failures_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIXFRONT_REGISTRY_URL", f"http://127.0.0.1:{closed_port()}")

    assert cli.main(["images", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["kind"] == "RegistryUnavailable"


@pytest.mark.parametrize("argv", [["check-config", "--json"], ["--print-completion", "bash"]])
def test_a_reader_that_has_read_enough_is_no_failure(argv: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = "import sys; from proxy import cli; sys.exit(cli.main())"
    ended = subprocess.run([sys.executable, "-c", program, *argv], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)

    assert (ended.returncode, ended.stderr) == (0, b"")


def test_no_colour_where_there_is_no_terminal() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "proxy", "doctor", "--demo"],
        cwd=Path(cli.__file__).parents[2],
        env={**os.environ, "PATH": "/nowhere", "TERM": "xterm-256color"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert "XX  nix: Nix does not start" in ended.stdout
    assert "\x1b" not in ended.stdout + ended.stderr


def test_colour_on_a_terminal() -> None:
    main, other = os.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(
        [sys.executable, "-m", "proxy", "check-config", "--config", "/nowhere.yml"],
        cwd=Path(cli.__file__).parents[2],
        env={**environment, "TERM": "xterm-256color"},
        stderr=other,
        stdout=other,
    ) as child:
        os.close(other)
        shown = os.read(main, 4096)
    os.close(main)

    assert child.returncode == 2
    assert b"\x1b[" in shown


def test_the_defaults_are_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-config"]) == 0
    assert capsys.readouterr().out == "the defaults: fine\n"


def test_a_file_that_is_fine_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, "log: {level: debug}\n")

    assert cli.main(["check-config", "--config", file]) == 0
    assert capsys.readouterr().out == f"{file}: fine\n"


@pytest.mark.parametrize("command", ["check-config", "serve", "images"])
def test_wrong_settings_are_2_with_the_path_of_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert cli.main([command, "--config", written(tmp_path, "layers: {most: 1}\n")]) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("nixfront: wrong settings: layers.most: ")


def test_a_wrong_variable_is_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NIXFRONT_LOG_LEVLE", "debug")

    assert cli.main(["check-config"]) == 2
    assert "NIXFRONT_LOG_LEVLE names no setting (log.levle)" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-config", "--config", str(tmp_path / "none.yml")]) == 2
    assert capsys.readouterr().err.startswith("nixfront: cannot read ")

    assert cli.main(["check-config", "--config", str(tmp_path / "none.yml"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"].endswith("none.yml: No such file or directory")


def test_each_file_that_cannot_be_used_has_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "table.json").write_text("{}")
    (tmp_path / "key").write_text("no key")
    text = """
        http: {certificate: /nowhere/c.pem, key: /nowhere/k.pem}
        registry: {url: 'https://registry.example', username: u, password_file: /nowhere/password}
        packages: {kind: path, path: /nowhere/set}
        sets: {team: {kind: path, path: /nowhere/team}, fine: {kind: path, path: /}}
        images: {file: /nowhere/images.nix}
        layers: {table: TABLES}
        trust: {key: TABLES/key, identity: a.example}
    """
    file = written(tmp_path, text.replace("TABLES", str(tmp_path)))

    assert cli.main(["check-config", "--config", file]) == 2
    lines = [
        line.strip().removeprefix("nixfront: wrong settings:")
        for line in capsys.readouterr().err.splitlines()
    ]
    assert sorted(line.partition(": ")[0] for line in lines if ": " in line) == [
        "http.certificate, http.key",
        "images.file",
        "layers.table",
        "packages.path",
        "registry.password_file",
        "sets.team.path",
        "trust.key",
    ]
    assert "packages.path: /nowhere/set: there is no such file or folder" in lines

    assert cli.main(["check-config", "--config", file, "--no-files"]) == 0


def test_each_wrong_setting_has_a_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "http: {adress: 'a:1'}\nnix: {most_store_bytes: 80GB}\n"

    assert cli.main(["check-config", "--config", written(tmp_path, text)]) == 2
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "    http.adress: no such setting, did you mean addr?",
        "    nix.most_store_bytes: it must be a whole number, and is a text with a unit; without one, in bytes, it is 80000000000",
        "nixfront: wrong settings:",
    ]


@pytest.mark.parametrize("variable", ["NIXFRONT_REGISTRY_URL", "NIXFRONT_HTTP_ADDR"])
def test_a_registry_that_does_not_answer_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    port = closed_port()
    monkeypatch.setenv(variable, f"http://127.0.0.1:{port}" if "URL" in variable else f"127.0.0.1:{port}")

    assert cli.main(["images"]) == 1

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"nixfront: cannot list the images of http://127.0.0.1:{port}")


def test_a_data_folder_that_cannot_be_is_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NIXFRONT_DATA_DIR", str(tmp_path / "file/data"))

    ended = subprocess.run(
        [sys.executable, "-m", "proxy", "serve", "--demo"],
        cwd=Path(cli.__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-1] == f"nixfront: {tmp_path}/file/data: Not a directory"


def test_an_address_in_use_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("NIXFRONT_STATUS_ADDR", address)
        monkeypatch.setenv("NIXFRONT_REGISTRY_URL", "http://127.0.0.1:1")
        ended = subprocess.run(
            [sys.executable, "-m", "proxy", "serve", "--demo"],
            cwd=Path(cli.__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"nixfront: nixfront cannot listen at {address}: another program listens there")


def test_a_build_of_what_can_be_no_image_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["build", "Not a name", "--to", f"oci:{tmp_path / 'layout'}"]) == 2

    assert "nixfront: 'Not a name' is no name of an image: it is in lowercase" in capsys.readouterr().err
    assert not (tmp_path / "layout").exists()


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["explain", "a b"], "'a b' is no name of an image"),
        (["run", "", "--", "x"], "'' is no name of an image"),
        (["attest", "GIT"], "'GIT' is no name of an image"),
        (["reindex", "a//b"], "'a//b' is no name of an image"),
        (["search", "--set", "team", "x"], "there is no package set 'team': sets of the settings is empty"),
        (["try", "http://[::1"], "'http://[::1' is no address: write HOST, HOST:PORT, or https://HOST:PORT"),
        (["try", "ftp://a"], "'ftp://a' is no address"),
        (["try", "https://a/v2"], "'https://a/v2' is no address"),
        (["init", "--packages", "nixpgks"], "--packages: 'nixpgks' is no source"),
        (
            ["check-config", "--config", "list.yml"],
            "list.yml: the settings are sections with keys, and not a list",
        ),
        (
            ["check-config", "--config", "open.yml"],
            "cannot read open.yml: line 2, column 1: expected the node content",
        ),
    ],
)
def test_what_is_wrong_with_an_argument_is_said_in_our_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    error: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.yml").write_text("- a\n")
    Path("open.yml").write_text("http: [\n")

    assert cli.main(argv) == 2
    assert error in capsys.readouterr().err


def test_a_server_that_is_away_is_said_without_words_of_programmers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIXFRONT_HTTP_ADDR", f"127.0.0.1:{closed_port()}")

    for command in ("attest", "explain"):
        assert cli.main([command, "git"]) == 1
        assert capsys.readouterr().err.endswith(": connection refused\n")
