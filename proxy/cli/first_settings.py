"""The subcommand `init`: four questions, each also an option, and a file of settings that answers them."""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.cli.command import Command, Console, has_person
from proxy.core.errors import ArgumentsInvalid, SettingsInvalid

if TYPE_CHECKING:
    from proxy.settings import Settings

# Option, question, default.
QUESTIONS = (
    ("registry", "In front of which registry? Its URL, or own: nixfront runs one itself", "own"),
    (
        "pull",
        "Who may pull and start builds? this-host, everybody, or users: the registry says who pulls, and its logins start builds",
        "this-host",
    ),
    (
        "packages",
        "Packages from where? nixpkgs, a channel such as nixos-24.05, demo, the URL of a git repository, or a folder",
        "nixpkgs",
    ),
    ("mirror", "As a mirror of docker.io? no, or the prefix of our names there, such as nix/", "no"),
)
_CHANNEL = re.compile(r"(?:nixos|nixpkgs|release)-[A-Za-z0-9._-]+|[0-9a-f]{40}")
_WHO = ("this-host", "everybody", "users")
_HEAD = """\
# nixfront init wrote this. config/README.md explains every key.
# If the registry wants a login: registry.username and registry.password_file. For TLS: http.certificate and http.key.
"""


def _init(_: "Settings", arguments: argparse.Namespace, console: Console) -> int:
    """Write the file, unless it is there."""
    import yaml

    from proxy.settings import load

    file: Path = arguments.output
    if file.exists():  # else a person answers four questions for nothing
        raise ArgumentsInvalid(f"{file} is there already; -o names another file")
    answers = {name: default for name, _, default in QUESTIONS}
    for name, question, default in QUESTIONS:
        answers[name] = getattr(arguments, name) or _ask(name, question, default, answers, console)
    text = _HEAD + yaml.safe_dump(tree(answers), sort_keys=False)
    try:
        with file.open("x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError as error:
        raise ArgumentsInvalid(f"{file} is there already; -o names another file") from error
    try:
        load(file, {})
    except SettingsInvalid:
        file.unlink()
        raise
    console.document({"file": str(file), "answers": answers})
    console.line(f"{file} is written. Then:")
    console.line(f"    nixfront doctor --config {file}")
    console.line(f"    nixfront serve --config {file}")
    return 0


def _ask(name: str, question: str, default: str, before: dict[str, str], console: Console) -> str:
    """The answer of the person at the terminal; without one the default. A wrong answer gets the question again.

    `before`: the other answers so far, and the defaults of the rest.
    """
    from proxy.settings import load

    while has_person():
        sys.stderr.write(f"{question} [{default}]: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        answer = line.strip() or default
        try:
            load(None, {}, **tree({**before, name: answer}))
        except SettingsInvalid as error:
            console.complain(str(error))
            if line:
                continue
        return answer
    return default


def tree(answers: dict[str, str]) -> dict[str, Any]:
    """The settings that these answers mean. Raises `ArgumentsInvalid`."""
    if answers["pull"] not in _WHO:
        raise ArgumentsInvalid(f"--pull: it is one of {', '.join(_WHO)}, and not {answers['pull']!r}")
    if answers["pull"] == "users" and answers["registry"] == "own":
        raise ArgumentsInvalid("--pull users needs a registry with logins, and nixfront's own has none")
    if answers["pull"] == "users" and answers["mirror"] != "no":
        raise ArgumentsInvalid(
            "--pull users and --mirror exclude each other: clients of a mirror log in nowhere, so they could neither pull "
            "nor start a build. Answer --mirror no, or --pull everybody with a registry that lets everybody pull"
        )
    host = "127.0.0.1" if answers["pull"] == "this-host" else "0.0.0.0"  # noqa: S104 - everybody is the answer
    settings: dict[str, Any] = {"http": {"addr": f"{host}:8080"}}
    if answers["registry"] != "own":
        settings["registry"] = {"url": answers["registry"]}
    settings["packages"] = _packages(answers["packages"])
    if answers["pull"] == "users":
        settings["access"] = {"users": ("*",)}
    if answers["mirror"] != "no":
        settings["mirror"] = {"addr": f"{host}:8081", "prefix": answers["mirror"]}
    return settings


def _packages(source: str) -> dict[str, str]:
    if source in ("nixpkgs", "demo"):
        return {"kind": source}
    if source.startswith("/"):
        return {"kind": "path", "path": source}
    if "://" in source or source.startswith("git@"):
        return {"kind": "git", "url": source}
    if not _CHANNEL.fullmatch(source):
        raise ArgumentsInvalid(
            f"--packages: {source!r} is no source: write nixpkgs, demo, a channel such as nixos-24.05, a URL, or an absolute folder"
        )
    return {"kind": "nixpkgs", "ref": source}


def _arguments(parser: argparse.ArgumentParser) -> None:
    for name, question, default in QUESTIONS:
        parser.add_argument(f"--{name}", default="", metavar="ANSWER", help=f"{question} ({default})")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("nixfront.yml"),
        metavar="FILE",
        help="the file to write (default: nixfront.yml)",
    )


COMMANDS = (
    Command(
        "init",
        "write a file of settings from four answers",
        "Ask four questions, and write the settings that answer them. Each answer may be an option instead; without a terminal "
        "the others have their defaults.",
        _init,
        _arguments,
        "Example: `nixfront init --registry https://registry.example.net --pull everybody --packages nixos-24.05 --mirror no -o "
        "nixfront.yml`. nixfront checks what it writes.",
    ),
)
