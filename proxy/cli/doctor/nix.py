"""Checks of Nix: its version, its store, its configuration, and a build.

Beside `proxy.nix` this is the only file with flags of Nix. No pull depends on it.
"""

import json
import os
import pwd
import secrets
from typing import Any, Literal

from proxy.cli.doctor.finding import Finding, doubtful, fine, wrong
from proxy.core.errors import NixfrontError, NixUnavailable, ProcessFailed
from proxy.core.platforms import of_system
from proxy.nix.commands import NO_CACHES, Caches, child_environment
from proxy.settings import Settings
from proxy.tools import process

_OLDEST = (2, 8)
_DEADLINE = 60.0  # seconds
_NO_SHELL = "executing '/bin/sh': No such file"
_NAMESPACES = ("namespace", "unshar", "Operation not permitted")
_EXPRESSION = """
{{ system }}: derivation {{ name = "nixfront-doctor"; inherit system; builder = "/bin/sh"; args = [ "-c" "echo {nonce} > $out" ]; }}
"""
_Outcome = Literal["success", "no-shell", "namespaces", "failure"]


async def check_nix(settings: Settings) -> list[Finding]:
    """Nix, as the server would run it."""
    try:
        version = await _version()
    except NixfrontError as error:
        cure = "install Nix (Debian: apt-get install nix-bin; elsewhere https://nixos.org/download), with its programs on PATH"
        return [wrong("nix", f"Nix does not start: {error}", cure)]
    if version < _OLDEST:
        return [
            wrong("nix", f"Nix {_dotted(version)} is too old", f"install Nix {_dotted(_OLDEST)} or newer")
        ]
    findings = [fine("nix", f"Nix {_dotted(version)}")]
    try:
        await _run(("nix", "store", "ping"), settings.nix_store)
    except NixfrontError as error:
        return [*findings, wrong("nix store", f"Nix cannot open its store: {error}", _store_cure(settings))]
    configuration = await _configuration(settings.nix_store)
    findings += _check_configuration(configuration)
    others = [system for system in settings.systems if system != settings.system and settings.image.index]
    platforms = [await _check_platform(settings, system, configuration) for system in others]
    return [*findings, await _check_build(settings), *platforms]


def _store_cure(settings: Settings) -> str:
    if settings.nix_store:
        return f"let the user that runs nixfront write to nix.store ({settings.nix_store}), or name another folder"
    return (
        "start the Nix daemon (systemctl start nix-daemon.socket) or set nix.store to a folder of nixfront's own; "
        "NIX_REMOTE in nixfront's environment says which store is used"
    )


def _check_configuration(configuration: dict[str, Any]) -> list[Finding]:
    """The trust of the daemon and the sandbox. Root needs no trust."""
    findings = []
    if os.geteuid() != 0 and not _trusts_us(configuration):
        findings.append(
            doubtful(
                "trusted user",
                "the Nix daemon does not trust this user: its own settings decide about binary caches and the sandbox",
                "add the user that runs nixfront to trusted-users in /etc/nix/nix.conf and restart nix-daemon",
            )
        )
    if configuration.get("sandbox") is False:
        findings.append(
            doubtful(
                "sandbox",
                "builds run without a sandbox: they see this host, and their results may depend on it",
                "set sandbox = true in /etc/nix/nix.conf (and none in NIX_CONFIG), where the host allows user namespaces",
            )
        )
    return findings


def _trusts_us(configuration: dict[str, Any]) -> bool:
    """Whether a daemon with this configuration trusts our user. Groups count as trust, as their members are unknown."""
    users = configuration.get("trusted-users", [])
    name = pwd.getpwuid(os.geteuid()).pw_name
    return "*" in users or name in users or any(user.startswith("@") for user in users)


def _has_demo_alone(settings: Settings) -> bool:
    return {source.kind for source in settings.package_sources.values()} == {"demo"}


async def _check_build(settings: Settings) -> Finding:
    outcome, line = await _build(settings.nix_store, settings.system)
    match outcome:
        case "success":
            return fine("building", f"a build for {settings.system} succeeds")
        case "no-shell" if _has_demo_alone(settings):
            return fine("building", "builds start; Nix's sandbox has no /bin/sh, and the demo set needs none")
        case "no-shell":
            return doubtful(
                "sandbox shell",
                "builds start, but Nix's sandbox has no /bin/sh; packages whose builder is /bin/sh fail",
                "give the sandbox one: sandbox-paths = /bin/sh=/bin/busybox in /etc/nix/nix.conf (Debian: busybox-static)",
            )
        case "namespaces":
            return wrong(
                "sandbox",
                f"Nix's sandbox cannot start here: {line}",
                "allow user namespaces (in a container: run it privileged, or with them enabled), or set "
                "NIX_CONFIG='sandbox = false' in nixfront's environment and accept that builds see this host",
            )
        case "failure":
            return wrong(
                "building",
                f"a build for {settings.system} fails: {line}",
                "mend the cause in this message; packages.system sets the system",
            )


async def _check_platform(settings: Settings, system: str, configuration: dict[str, Any]) -> Finding:
    """What this host can do for another platform of `image.platforms`: build, or fetch at least."""
    name = of_system(system).name
    if _has_demo_alone(settings):
        return fine(f"platform {name}", "the demo set unpacks its packages on any host")
    section = settings.nix
    caches = Caches(section.substituters, section.public_keys, section.builders)
    outcome, line = await _build(settings.nix_store, system, caches)
    if outcome in ("success", "no-shell"):
        return fine(
            f"platform {name}", f"a build for {system} succeeds, here or on a machine of nix.builders"
        )
    cure = (
        f"nix.builders with a machine for {system}, or qemu for it in the kernel (binfmt) and extra-platforms = {system} in "
        "nix.conf"
    )
    sources = [*section.substituters, *configuration.get("substituters", [])]
    if sources:
        message = f"no build for {system} succeeds, so {name} has what is in {', '.join(sources)}: {line}"
        return doubtful(f"platform {name}", message, cure)
    message = f"no build for {system} succeeds, and there is no binary cache, so images lack {name}: {line}"
    return doubtful(f"platform {name}", message, f"nix.substituters with a cache that has {name}; or {cure}")


async def _version() -> tuple[int, ...]:
    """The version of Nix, such as `(2, 8, 0)`. Raises `NixUnavailable`."""
    output = await _run(("nix-store", "--version"), "")
    digits = output.decode().split()[-1].split("-")[0].split("pre")[0].split(".")
    try:
        return tuple(int(part) for part in digits)
    except ValueError as error:
        raise NixUnavailable(f"nix-store --version says {output.decode().strip()!r}") from error


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


async def _configuration(store: str) -> dict[str, Any]:
    """Nix's settings by name, as they are in force for us; empty where Nix does not print them."""
    try:
        settings = json.loads(await _run(("nix", "show-config", "--json"), store))
        return {name: setting["value"] for name, setting in settings.items()}
    except (NixUnavailable, ValueError, KeyError, TypeError):
        return {}


async def _build(store: str, system: str, caches: Caches = NO_CACHES) -> tuple[_Outcome, str]:
    """The outcome of a build that is new each time, and the line of its log that says why."""
    expression = _EXPRESSION.format(nonce=secrets.token_hex(8))
    argv = ("nix-build", "--no-out-link", "--argstr", "system", system, "-E", expression)
    try:
        await process.run(argv, env=_environment(store, caches), deadline=_DEADLINE)
    except ProcessFailed as error:
        text = "\n".join(error.tail)
        line = next((line for line in reversed(error.tail) if "error" in line.lower()), str(error)).strip()
        if _NO_SHELL in text:
            return "no-shell", line
        if any(word in text for word in _NAMESPACES):
            return "namespaces", line
        return "failure", line
    return "success", ""


async def _run(argv: tuple[str, ...], store: str) -> bytes:
    try:
        return await process.run(argv, env=_environment(store), deadline=_DEADLINE)
    except ProcessFailed as error:
        raise NixUnavailable("; ".join(error.tail[-2:]) or str(error)) from error


def _environment(store: str, caches: Caches = NO_CACHES) -> dict[str, str]:
    return child_environment(os.environ, store=store, substitutes=True, caches=caches)
