"""The subcommands about this host: `serve`, `check-config`, `status`, `doctor`."""

import argparse
from typing import TYPE_CHECKING

from proxy.cli.command import Command, Console
from proxy.core.errors import SettingsInvalid

if TYPE_CHECKING:
    from proxy.settings import Settings


def _serve(settings: "Settings", _: argparse.Namespace, console: Console) -> int:
    from proxy.cli.host import serving

    return serving.serve(settings, as_json=console.as_json)


def _check_config(settings: "Settings", arguments: argparse.Namespace, console: Console) -> int:
    """Say that the settings are fine. Raises `SettingsInvalid` where a file that they name cannot be used."""
    if not arguments.no_files:
        from proxy.wiring import named_files

        if problems := named_files.problems(settings):
            raise SettingsInvalid(*problems)
    console.line(f"{arguments.config or 'the defaults'}: fine")
    console.document(settings.model_dump(mode="json"))
    return 0


def _check_config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-files",
        action="store_true",
        help="do not look at the files that the settings name, such as keys: they are of another host or user",
    )


def _doctor(settings: "Settings", _: argparse.Namespace, console: Console) -> int:
    """Print a line for each finding and for its cure; exit code 1 where something is wrong."""
    from proxy.cli import doctor
    from proxy.cli.doctor.finding import show
    from proxy.cli.running import run

    with console.progress("examining this host"):
        findings = run(doctor.examine(settings))
    return show(findings, console)


def _status(settings: "Settings", _: argparse.Namespace, console: Console) -> int:
    from proxy.cli.host import status

    return status.show(settings, console)


COMMANDS = (
    Command("serve", "answer pulls", "Answer pulls until SIGTERM or SIGINT.", _serve, demo=True),
    Command(
        "check-config",
        "check the settings",
        "Read the settings from the file and the environment, and the files that they name: certificates, keys, the password, "
        "tables and package sets. Print what is wrong with them. It asks no server: that is what `nixfront doctor` does.",
        _check_config,
        _check_config_arguments,
        example="With --json it prints all settings that are in force.",
    ),
    Command(
        "status",
        "say whether the nixfront of this host is ready, and what it builds",
        "Ask the nixfront at http.addr whether it is ready, and for the board of builds: those that run and the newest that ended, "
        "on all machines that share its state. Logs stay on the machine that builds.",
        _status,
        example="Example: `nixfront status --json | jq '.builds[] | select(.state == \"running\")'`. Exit code 1 when it is not "
        "ready, or does not answer.",
    ),
    Command(
        "doctor",
        "find out what keeps nixfront from working here",
        "Examine Nix, the registry, the package sets, the data folder, the disk, the addresses and the clock of this host with "
        "these settings.",
        _doctor,
        example="It builds one tiny derivation, and begins an upload that it cancels; it changes nothing else. The exit code is 1 "
        "where something is wrong (XX), and 0 where something is only doubtful (!!).",
        demo=True,
    ),
)
