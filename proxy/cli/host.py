"""The subcommands about this host: `serve`, `check-config`, `status`, `doctor`."""

import argparse
import asyncio
import logging
import signal
import ssl
import time
from dataclasses import asdict
from typing import Any

import aiohttp

from proxy.cli import doctor
from proxy.cli.command import Command, Console
from proxy.core.errors import RegistryUnavailable
from proxy.registry.endpoint import Endpoint
from proxy.settings import Settings
from proxy.telemetry import log
from proxy.wiring import server
from proxy.wiring.registry import nixfront_endpoint

_TIMEOUT = aiohttp.ClientTimeout(total=15)


async def status(front: Endpoint, health: str) -> dict[str, Any]:
    """Whether the nixfront at `front` is ready, by its health at the origin `health`; and the board of builds.

    The page shows the builds that the user of `front` may pull. A question without a password goes to an address of this
    host, which no certificate names, so we check none. `builds` is None if nixfront has no page, or refuses to show it
    to us. Raises `RegistryUnavailable` if no nixfront answers.
    """
    headers = {"Authorization": front.credentials.basic()} if front.credentials.username else {}
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    try:
        async with aiohttp.ClientSession(
            timeout=_TIMEOUT, connector=aiohttp.TCPConnector(ssl=trusting)
        ) as session:
            async with session.get(f"{health}/readyz") as answer:
                ready, problems = answer.status == 200, (await answer.text()).strip().splitlines()
            async with session.get(
                f"{front.url}/status.json",
                headers=headers,
                ssl=(front.certificates or True) if headers else trusting,
            ) as answer:
                page = await answer.json() if answer.status == 200 else {}
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise RegistryUnavailable(f"no nixfront answers at {front.url}: {error}") from error
    return {
        "ready": ready,
        "problems": [] if ready else problems,
        "version": page.get("version"),
        "store": page.get("store"),
        "builds": page.get("builds"),
    }


_SIGNS = {"fine": ("ok", "green"), "doubtful": ("!!", "yellow"), "wrong": ("XX", "bold red")}


def _serve(settings: Settings, _: argparse.Namespace, console: Console) -> int:
    log.configure(settings.log.level, "json" if console.as_json else settings.log.format)
    asyncio.run(_serve_until_signal(settings))
    return 0


async def _serve_until_signal(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    async with server.serve(settings) as origin:
        logging.getLogger("nixfront").info("listening url=%s packages=%s", origin, settings.packages.kind)
        await stop.wait()
        logging.getLogger("nixfront").info("stopping")


def _check_config(settings: Settings, arguments: argparse.Namespace, console: Console) -> int:
    console.line(f"{arguments.config or 'the defaults'}: fine")
    console.document(settings.model_dump(mode="json"))
    return 0


def _doctor(settings: Settings, _: argparse.Namespace, console: Console) -> int:
    """Print a line for each finding and for its cure; exit code 1 where something is wrong."""
    with console.progress("examining this host"):
        findings = asyncio.run(doctor.examine(settings))
    console.document([asdict(finding) for finding in findings])
    for finding in findings:
        sign, style = _SIGNS[finding.level]
        console.line(f"{sign}  {finding.check}: {finding.message}", style)
        if finding.cure:
            console.line(f"    -> {finding.cure}")
    return 1 if any(finding.level == "wrong" for finding in findings) else 0


def _status(settings: Settings, _: argparse.Namespace, console: Console) -> int:
    """Ready or not, then the builds; 1 when it is not ready."""
    scheme = "https" if settings.http.certificate else "http"
    front = f"{scheme}://{_here(settings.http.addr)}"
    health = f"http://{_here(settings.status.addr)}" if settings.status.addr else front
    own = nixfront_endpoint(settings) if settings.registry.username else Endpoint(front)
    document = asyncio.run(status(Endpoint(front, own.credentials, own.certificates), health))
    console.document(document)
    console.line("ready" if document["ready"] else "not ready", "green" if document["ready"] else "bold red")
    for problem in document["problems"]:
        console.line(f"    {problem}")
    if (store := document["store"]) and store["free_bytes"]:
        console.line(f"store: {store['store_bytes'] / 1e9:.1f} GB, {store['free_bytes'] / 1e9:.1f} GB free")
    if document["builds"] is None:
        console.line("builds: the page is off, or page.networks does not hold this address")
    elif document["builds"]:
        rows = [_row(build) for build in document["builds"]]
        console.table(("image", "state", "seconds", "machine", "what"), rows)
    return 0 if document["ready"] else 1


def _here(address: str) -> str:
    """The address of this host at which a server with this setting answers."""
    host, _, port = address.rpartition(":")
    return f"{({'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}).get(host, host)}:{port}"  # noqa: S104 - to be replaced


def _row(build: dict[str, Any]) -> tuple[str, ...]:
    took = (build["ended"] or time.time()) - build["started"]
    what = (
        build["phase"]
        if build["state"] == "running"
        else (build["error"].splitlines() or [build["digest"]])[0]
    )
    image = f"{build['repository']}:{build['tag']}"
    return image, build["state"], f"{took:.0f}", build.get("host", ""), what[:100]


COMMANDS = (
    Command("serve", "answer pulls", "Answer pulls until SIGTERM or SIGINT.", _serve, demo=True),
    Command(
        "check-config",
        "check the settings",
        "Read the settings from the file and the environment, and print what is wrong with them.",
        _check_config,
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
