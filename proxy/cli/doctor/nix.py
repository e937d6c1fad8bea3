"""What `doctor` asks of Nix. Beside `nix`, the only other file that knows its flags: nothing here is on the way of a pull."""

import json
import os
import pwd
import secrets
from typing import Any, Literal

from proxy.core.errors import NixUnavailable, ProcessFailed
from proxy.nix.commands import child_environment
from proxy.tools import process

OLDEST = (2, 8)
_DEADLINE = 60.0  # seconds
_NO_SHELL = "executing '/bin/sh': No such file"
_NAMESPACES = ("namespace", "unshar", "Operation not permitted")
_EXPRESSION = """
{{ system }}: derivation {{ name = "nixfront-doctor"; inherit system; builder = "/bin/sh"; args = [ "-c" "echo {nonce} > $out" ]; }}
"""
Outcome = Literal["built", "no-shell", "namespaces", "failed"]


async def version() -> tuple[int, ...]:
    """The version of Nix, `(2, 8, 0)`. Raises `NixUnavailable`."""
    output = await _run(("nix-store", "--version"), "")
    digits = output.decode().split()[-1].split("-")[0].split("pre")[0].split(".")
    try:
        return tuple(int(part) for part in digits)
    except ValueError as error:
        raise NixUnavailable(f"nix-store --version says {output.decode().strip()!r}") from error


def shown(number: tuple[int, ...]) -> str:
    """A version as people write it."""
    return ".".join(map(str, number))


async def open_store(store: str) -> None:
    """Raises `NixUnavailable` if the store cannot be opened."""
    await _run(("nix", "store", "ping"), store)


async def configuration(store: str) -> dict[str, Any]:
    """Nix's settings by name, as they count for us; empty where it does not tell."""
    try:
        told = json.loads(await _run(("nix", "show-config", "--json"), store))
        return {name: setting["value"] for name, setting in told.items()}
    except (NixUnavailable, ValueError, KeyError, TypeError):
        return {}


def is_trusted(settings: dict[str, Any]) -> bool:
    """Whether a daemon with these settings trusts the user that we are."""
    trusted = settings.get("trusted-users", [])
    name = pwd.getpwuid(os.geteuid()).pw_name
    return "*" in trusted or name in trusted or any(word.startswith("@") for word in trusted)


async def build(store: str, system: str) -> tuple[Outcome, str]:
    """What becomes of a build that nobody made before, and the line that says why."""
    expression = _EXPRESSION.format(nonce=secrets.token_hex(8))
    argv = ("nix-build", "--no-out-link", "--argstr", "system", system, "-E", expression)
    try:
        await process.run(argv, env=_environment(store), deadline=_DEADLINE)
    except ProcessFailed as error:
        said = "\n".join(error.tail)
        last = next((line for line in reversed(error.tail) if "error" in line.lower()), str(error)).strip()
        if _NO_SHELL in said:
            return "no-shell", last
        if any(word in said for word in _NAMESPACES):
            return "namespaces", last
        return "failed", last
    return "built", ""


async def _run(argv: tuple[str, ...], store: str) -> bytes:
    try:
        return await process.run(argv, env=_environment(store), deadline=_DEADLINE)
    except ProcessFailed as error:
        raise NixUnavailable("; ".join(error.tail[-2:]) or str(error)) from error


def _environment(store: str) -> dict[str, str]:
    return child_environment(os.environ, store=store, substitutes=True)
