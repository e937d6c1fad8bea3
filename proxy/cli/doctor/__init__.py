"""What keeps nixfront from working on this host, with the cure. Nothing that a check changes stays.

A check is an async function from the settings to findings. Where a check finds something broken, checks that need it
say nothing. The checks of Nix, of the registry and of sources have modules of their own; those of the host are here.
"""

import asyncio
import os
import shutil
import socket
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from proxy.cli.doctor.finding import Check, Finding, doubtful, fine, wrong
from proxy.cli.doctor.nix import check_nix
from proxy.cli.doctor.registry import check_registry
from proxy.cli.doctor.sources import check_sources
from proxy.core.errors import SettingsInvalid
from proxy.registry.endpoint import Endpoint
from proxy.registry.login import Credentials
from proxy.registry.no_answer import why
from proxy.settings import Settings
from proxy.wiring import files
from proxy.wiring.registry import nixfront_endpoint

LEAST_FREE = 2 << 30  # bytes, of the store and of the data folder
_EARLIEST = 1_735_689_600  # 2025-01-01: a clock that shows less was never set
_TIMEOUT = aiohttp.ClientTimeout(total=15)


async def examine(settings: Settings) -> list[Finding]:
    """The findings of all checks, in the order of `CHECKS`."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(check(settings)) for check in CHECKS]
    return [finding for task in tasks for finding in task.result()]


async def _check_state(settings: Settings) -> list[Finding]:
    if not settings.state.url:
        return []
    parts = urlsplit(settings.state.url)
    if parts.scheme == "unix":
        opening = asyncio.open_unix_connection(parts.path)
    else:
        opening = asyncio.open_connection(parts.hostname or "127.0.0.1", parts.port or 6379)
    place = f"{parts.hostname or parts.path}:{parts.port or ''}".rstrip(":")  # without the password
    try:
        async with asyncio.timeout(5):
            _, writer = await opening
        writer.close()
    except (OSError, TimeoutError) as error:
        cure = (
            "start Redis there, or mend state.url; where it is empty the state is a file in the data folder"
        )
        return [doubtful("state", f"Redis at {place} does not answer: {why(error)}", cure)]
    return [fine("state", f"Redis at {place} answers")]


async def _check_package_sets(settings: Settings) -> list[Finding]:
    return await asyncio.to_thread(_examine_package_sets, settings)


def _examine_package_sets(settings: Settings) -> list[Finding]:
    check, findings = "package sets", []
    for name, source in settings.package_sources.items():
        key = f"sets.{name}" if name else "packages"
        if source.kind == "path" and not os.access(source.path, os.R_OK):
            message = f"{key}.path {source.path} does not exist, or nixfront's user cannot read it"
            findings.append(wrong(check, message, f"set {key}.path to a folder or file with a package set"))
        elif source.kind == "git" and shutil.which("git") is None:
            findings.append(wrong(check, f"{key} is of kind git, and this host has no git", "install git"))
        elif source.kind == "demo" and not source.archive and shutil.which("apt-get") is None:
            message = f"{key} is of kind demo, and this host has no apt to say where Debian's archive is"
            findings.append(wrong(check, message, f"set {key}.archive to the URL of a Debian archive"))
    sets = ", ".join(
        f"{name}: {source.kind}" if name else f"{source.kind} (the default set)"
        for name, source in settings.package_sources.items()
    )
    return findings or [fine(check, sets)]


async def _check_folders(settings: Settings) -> list[Finding]:
    return await asyncio.to_thread(_examine_folders, settings)


def _examine_folders(settings: Settings) -> list[Finding]:
    data = settings.data_dir
    folder = _nearest(data)
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        message = f"nixfront cannot {'write to' if folder == data else 'make'} {data}"
        why = "" if folder == data else f": it cannot write to {folder}"
        cure = "set data.dir to another folder, or let the user that runs nixfront write to this one"
        return [wrong("data folder", message + why, cure)]
    return [
        fine("data folder", str(data)),
        *_examine_disk("data folder", folder, "make room, or move data.dir; nixfront prune deletes images"),
        *_examine_disk(
            "nix store",
            _nearest(Path(settings.nix_store or "/nix/store")),
            "make room: nix-collect-garbage -d deletes what nothing needs",
        ),
    ]


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _examine_disk(name: str, folder: Path, cure: str) -> list[Finding]:
    free = shutil.disk_usage(folder).free
    if free >= LEAST_FREE:
        return []
    finding = wrong if free < LEAST_FREE // 8 else doubtful
    return [finding("disk", f"{name}: {free / 1e6:.0f} MB free at {folder}", cure)]


async def _check_addresses(settings: Settings) -> list[Finding]:
    addresses = {
        "http.addr": settings.http.addr,
        "mirror.addr": settings.mirror.addr,
        "status.addr": settings.status.addr,
    }
    return [await _examine_address(settings, key, address) for key, address in addresses.items() if address]


async def _examine_address(settings: Settings, key: str, address: str) -> Finding:
    host, _, port = address.rpartition(":")
    try:
        await asyncio.to_thread(_bind, host.strip("[]"), int(port))
    except OSError as error:
        if await _is_nixfront(settings, address):
            return await asyncio.to_thread(_examine_nixfront, settings, key, address)
        cure = f"end the program that listens there (ss -ltnp), or set {key} to another address of this host"
        return wrong("addresses", f"{key} {address}: {error.strerror or error}", cure)
    return fine("addresses", f"{key} {address} is free")


def _examine_nixfront(settings: Settings, key: str, address: str) -> Finding:
    """Whether the nixfront that answers here is the one of these settings: only then the data folder is in use."""
    if files.is_locked(settings.data_dir):
        return fine("addresses", f"a nixfront answers at {key} {address}")
    message = f"a nixfront answers at {key} {address}, but none uses data.dir {settings.data_dir}"
    cure = f"if it is yours, name its file of settings (--config); else set {key} to another address, or serve cannot listen"
    return doubtful("addresses", message, cure)


def _bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)


async def _is_nixfront(settings: Settings, address: str) -> bool:
    """Whether a nixfront answers there. The request has no credentials, as another program may listen there."""
    with suppress(aiohttp.ClientError, TimeoutError, SettingsInvalid):
        endpoint = Endpoint(f"http://{address}")
        if address in (settings.http.addr, settings.mirror.addr):  # these use TLS where it is on
            own = await asyncio.to_thread(nixfront_endpoint, settings)
            scheme = own.url.partition("://")[0]
            endpoint = replace(own, url=f"{scheme}://{address}", credentials=Credentials())
        async with (
            endpoint.opened() as connection,
            connection.ask("GET", "/healthz", (), timeout=_TIMEOUT) as answer,
        ):
            return answer.status in (200, 404) and "X-Request-Id" in answer.headers
    return False


async def _check_clock(_: Settings) -> list[Finding]:
    now = time.time()
    if now < _EARLIEST:
        message = f"this host's clock shows {time.strftime('%Y-%m-%d', time.gmtime(now))}"
        return [
            wrong(
                "clock",
                message,
                "set the clock (timedatectl set-ntp true): no certificate is valid in the past",
            )
        ]
    return [fine("clock", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)))]


async def _check_helpers(_: Settings) -> list[Finding]:
    missing = await asyncio.to_thread(_missing, ("prlimit", "setpriv"))
    if not missing:
        return []
    message = f"{' and '.join(missing)} missing: evaluations have no memory limit, and the embedded registry may outlive nixfront"
    return [doubtful("helper programs", message, "install util-linux")]


def _missing(programs: Sequence[str]) -> list[str]:
    return [program for program in programs if shutil.which(program) is None]


CHECKS: Sequence[Check] = (
    check_nix,
    check_registry,
    _check_state,
    _check_package_sets,
    check_sources,
    _check_folders,
    _check_addresses,
    _check_clock,
    _check_helpers,
)
