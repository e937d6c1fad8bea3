"""What keeps nixfront from working on this host, each with its cure. It looks, and changes nothing that stays.

Every check is an async function from the settings to findings; the first line of its docstring is what it is called. A check says
`wrong` for what makes pulls fail, `doubtful` for what will, or for what costs a feature. The cure names the setting, the file
or the command. What a check needs that another one found broken is not told twice: it is left out.
"""

import asyncio
import email.utils
import os
import shutil
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import aiohttp

from proxy.cli.doctor import nix
from proxy.core.errors import NixfrontError, RegistryUnavailable, SettingsInvalid
from proxy.registry import embedded
from proxy.registry.endpoint import Endpoint, OpenEndpoint
from proxy.registry.login import Credentials, delete_scopes, push_scopes
from proxy.settings import Settings
from proxy.wiring import registry as wiring_registry
from proxy.wiring.registry import nixfront_endpoint

Level = Literal["fine", "doubtful", "wrong"]
LEAST_FREE = 2 << 30  # bytes, of the store and of the data folder
_SKEW = 60.0  # seconds between our clock and the registry's
_EARLIEST = 1_735_689_600  # 2025-01-01: no clock shows less, unless it was never set
_TIMEOUT = aiohttp.ClientTimeout(total=15)
_PROBE = "nixfront-doctor"  # a repository that stays empty
_ZERO = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: `told` for a person; `cure` where something is to be done."""

    check: str
    level: Level
    told: str
    cure: str = ""


Check = Callable[[Settings], Coroutine[None, None, list[Finding]]]


async def examine(settings: Settings) -> list[Finding]:
    """Everything that was found, in the order of the checks."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(check(settings)) for check in CHECKS]
    return [finding for task in tasks for finding in task.result()]


async def _nix(settings: Settings) -> list[Finding]:
    """nix"""
    try:
        version = await nix.version()
    except NixfrontError as error:
        cure = "install Nix (Debian: apt-get install nix-bin; elsewhere https://nixos.org/download), with its programs on PATH"
        return [Finding("nix", "wrong", f"Nix does not start: {error}", cure)]
    if version < nix.OLDEST:
        oldest = ".".join(map(str, nix.OLDEST))
        return [
            Finding(
                "nix",
                "wrong",
                f"Nix {nix.shown(version)} is too old",
                f"install Nix {oldest} or newer",
            )
        ]
    found = [Finding("nix", "fine", f"Nix {nix.shown(version)}")]
    try:
        await nix.open_store(settings.nix_store)
    except NixfrontError as error:
        return [
            *found,
            Finding("nix store", "wrong", f"Nix cannot open its store: {error}", _store_cure(settings)),
        ]
    found += _trust(await nix.configuration(settings.nix_store))
    return [*found, await _build(settings)]


def _store_cure(settings: Settings) -> str:
    if settings.nix_store:
        return f"let the user that runs nixfront write to nix.store ({settings.nix_store}), or name another folder"
    return (
        "start the Nix daemon (systemctl start nix-daemon.socket) or set nix.store to a folder of nixfront's own; "
        "NIX_REMOTE in nixfront's environment says which store is used"
    )


def _trust(configuration: dict[str, object]) -> list[Finding]:
    """What Nix's configuration says of us. As root, or without a daemon, all of ours counts."""
    found = []
    if os.geteuid() != 0 and not nix.is_trusted(configuration):
        found.append(
            Finding(
                "trusted user",
                "doubtful",
                "the Nix daemon does not trust this user: binary caches and the sandbox are as its own settings say",
                "add the user that runs nixfront to trusted-users in /etc/nix/nix.conf and restart nix-daemon",
            )
        )
    if configuration.get("sandbox") is False:
        found.append(
            Finding(
                "sandbox",
                "doubtful",
                "builds run without a sandbox: they see this host, and what they make may depend on it",
                "set sandbox = true in /etc/nix/nix.conf (and none in NIX_CONFIG), where the host allows user namespaces",
            )
        )
    return found


async def _build(settings: Settings) -> Finding:
    """Whether something can be built at all."""
    outcome, told = await nix.build(settings.nix_store, settings.system)
    match outcome:
        case "built":
            return Finding("building", "fine", f"a build for {settings.system} succeeds")
        case "no-shell":
            return Finding(
                "sandbox shell",
                "doubtful",
                "builds start, but there is no /bin/sh in Nix's sandbox; packages whose builder is /bin/sh fail",
                "give the sandbox one: sandbox-paths = /bin/sh=/bin/busybox in /etc/nix/nix.conf (Debian: busybox-static)",
            )
        case "namespaces":
            return Finding(
                "sandbox",
                "wrong",
                f"Nix's sandbox cannot start here: {told}",
                "allow user namespaces (in a container: run it privileged, or with them enabled), or set "
                "NIX_CONFIG='sandbox = false' in nixfront's environment and accept that builds see this host",
            )
        case _:
            return Finding(
                "building",
                "wrong",
                f"a build for {settings.system} fails: {told}",
                "mend what it says; packages.system says for which system",
            )


async def _registry(settings: Settings) -> list[Finding]:
    """registry"""
    if not settings.registry.url:
        try:
            program = await asyncio.to_thread(embedded.find_program)
        except RegistryUnavailable as error:
            cure = "install it (Debian: apt-get install docker-registry), or set registry.url"
            return [Finding("registry", "wrong", str(error).partition(": ")[0], cure)]
        return [Finding("registry", "fine", f"{program}, run by nixfront itself")]
    url = settings.registry.url
    try:
        reach = await asyncio.to_thread(wiring_registry.registry_endpoint, settings, url)
    except SettingsInvalid as error:
        return [Finding("registry", "wrong", str(error), "mend the files that these settings name")]
    async with reach.opened() as registry:
        try:
            async with registry.ask("GET", "/v2/", (), timeout=_TIMEOUT, redirects=False) as answer:
                status, headers, body = answer.status, answer.headers, await answer.content.read(500)
        except RegistryUnavailable as error:
            cure = "mend registry.username and registry.password, or the service"
            return [Finding("registry credentials", "wrong", str(error), cure)]
        except (aiohttp.ClientError, TimeoutError) as error:
            kind = "it does not answer in time" if isinstance(error, TimeoutError) else str(error)
            cure = "start it, or mend registry.url: scheme, host, port, and its certificate where it is https"
            return [Finding("registry", "wrong", f"{url}: {kind}", cure)]
        version = headers.get("Docker-Distribution-Api-Version")
        if version is None and not (status == 200 and body.strip() in (b"", b"{}")):
            told = f"what answers at {url} is no registry: {status} to GET /v2/, {body[:60].decode(errors='replace')!r}"
            return [
                Finding(
                    "registry",
                    "wrong",
                    told,
                    "name the registry itself in registry.url, not a page or a proxy before it",
                )
            ]
        return [
            *_clock_of(headers.get("Date", "")),
            *await _rights(registry, status, version or "a registry"),
        ]


async def _rights(registry: OpenEndpoint, status: int, version: str) -> list[Finding]:
    """Whether we may push, and whether images can be deleted."""
    url = registry.url
    if status in (401, 403):
        told = f"{url} answers {status} to nixfront"
        cure = "give nixfront an account that may push: registry.username and registry.password"
        return [Finding("registry credentials", "wrong", told, cure)]
    found = [Finding("registry", "fine", f"{url} speaks {version}")]
    begin = f"/v2/{_PROBE}/blobs/uploads/"
    async with registry.ask("POST", begin, push_scopes(_PROBE), timeout=_TIMEOUT, redirects=False) as answer:
        begun, location = answer.status, answer.headers.get("Location", "")
    if begun == 202:
        with suppress(aiohttp.ClientError, ValueError):
            upload = answer.url.join(type(answer.url)(location, encoded=True))
            if upload.origin() == answer.url.origin():
                async with registry.ask("DELETE", upload, delete_scopes(_PROBE), timeout=_TIMEOUT):
                    pass
    else:
        told = f"{url} does not let us push: {begun} to the start of an upload"
        found.append(
            Finding(
                "registry credentials",
                "wrong",
                told,
                "give nixfront an account that may push, or a registry that is not read-only",
            )
        )
    manifest = f"/v2/{_PROBE}/manifests/{_ZERO}"
    async with registry.ask("DELETE", manifest, delete_scopes(_PROBE), timeout=_TIMEOUT) as answer:
        if answer.status == 405:
            cure = "set storage.delete.enabled: true in the registry's configuration (REGISTRY_STORAGE_DELETE_ENABLED=true)"
            found.append(
                Finding(
                    "registry deletes", "doubtful", f"{url} deletes nothing: nixfront prune cannot work", cure
                )
            )
    return found


def _clock_of(date: str) -> list[Finding]:
    """Our clock beside the registry's."""
    with suppress(ValueError, TypeError):
        theirs = email.utils.parsedate_to_datetime(date).timestamp()
        if abs(theirs - time.time()) > _SKEW:
            told = f"this host's clock and the registry's are {abs(theirs - time.time()):.0f} s apart"
            return [
                Finding(
                    "clock",
                    "doubtful",
                    told,
                    "set both by NTP (timedatectl set-ntp true): tokens and certificates need it",
                )
            ]
    return []


async def _clock(_: Settings) -> list[Finding]:
    """clock"""
    if time.time() < _EARLIEST:
        told = f"this host believes that it is {time.strftime('%Y-%m-%d', time.gmtime())}"
        return [
            Finding(
                "clock",
                "wrong",
                told,
                "set the clock (timedatectl set-ntp true): no certificate is valid in the past",
            )
        ]
    return [Finding("clock", "fine", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))]


async def _data(settings: Settings) -> list[Finding]:
    """data folder"""
    return await asyncio.to_thread(_look_at_folders, settings)


def _look_at_folders(settings: Settings) -> list[Finding]:
    data = settings.data_dir
    there = next(folder for folder in (data, *data.parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        told = f"{data} cannot be {'written' if there == data else f'made, as {there} cannot be written'}"
        return [
            Finding(
                "data folder",
                "wrong",
                told,
                "name another folder with data.dir, or give this one to the user that runs nixfront",
            )
        ]
    found = [Finding("data folder", "fine", str(data))]
    store = Path(settings.nix_store or "/nix/store")
    folders = {
        "data folder": there,
        "nix store": next(path for path in (store, *store.parents) if path.exists()),
    }
    for name, folder in folders.items():
        free = shutil.disk_usage(folder).free
        if free < LEAST_FREE:
            cure = {
                "data folder": "make room, or move data.dir; nixfront prune deletes images",
                "nix store": "make room: nix-collect-garbage -d deletes what nothing needs",
            }[name]
            told = f"{name}: {free / 1e6:.0f} MB free at {folder}"
            found.append(Finding("disk", "wrong" if free < LEAST_FREE // 8 else "doubtful", told, cure))
    return found


async def _ports(settings: Settings) -> list[Finding]:
    """addresses"""
    found = []
    for key, address in (
        ("http.addr", settings.http.addr),
        ("mirror.addr", settings.mirror.addr),
        ("status.addr", settings.status.addr),
    ):
        if not address:
            continue
        host, _, port = address.rpartition(":")
        try:
            await asyncio.to_thread(_bind, host.strip("[]"), int(port))
        except OSError as error:
            if await _is_nixfront(settings, address):
                found.append(Finding("addresses", "fine", f"a nixfront answers at {key} {address}"))
                continue
            cure = (
                f"end the program that listens there (ss -ltnp), or set {key} to another address of this host"
            )
            found.append(Finding("addresses", "wrong", f"{key} {address}: {error.strerror or error}", cure))
        else:
            found.append(Finding("addresses", "fine", f"{key} {address} is free"))
    return found


def _bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)


async def _is_nixfront(settings: Settings, address: str) -> bool:
    """Whether one of us answers there; whoever it is gets no password of ours."""
    with suppress(aiohttp.ClientError, TimeoutError, SettingsInvalid):
        there = Endpoint(f"http://{address}")
        if address in (settings.http.addr, settings.mirror.addr):  # by TLS, where that is on
            own = await asyncio.to_thread(nixfront_endpoint, settings)
            scheme = own.url.partition("://")[0]
            there = replace(own, url=f"{scheme}://{address}", credentials=Credentials())
        async with there.opened() as reached, reached.ask("GET", "/healthz", (), timeout=_TIMEOUT) as answer:
            return answer.status in (200, 404) and "X-Request-Id" in answer.headers
    return False


async def _packages(settings: Settings) -> list[Finding]:
    """package sets"""
    return await asyncio.to_thread(_look_at_sets, settings)


def _look_at_sets(settings: Settings) -> list[Finding]:
    found = []
    for name, chosen in settings.package_sources.items():
        key = f"sets.{name}" if name else "packages"
        if chosen.kind == "path" and not os.access(chosen.path, os.R_OK):
            told = f"{key}.path {chosen.path} is not there, or not for the user that runs nixfront"
            found.append(
                Finding(
                    "package sets",
                    "wrong",
                    told,
                    f"set {key}.path to a folder or file that holds a package set",
                )
            )
        elif chosen.kind == "git" and shutil.which("git") is None:
            found.append(
                Finding("package sets", "wrong", f"{key} is of kind git, and there is no git", "install git")
            )
        elif chosen.kind == "demo" and not chosen.archive and shutil.which("apt-get") is None:
            told = f"{key} is of kind demo, and this host has no apt to say where Debian's archive is"
            found.append(
                Finding("package sets", "wrong", told, f"set {key}.archive to the URL of a Debian archive")
            )
    return found or [
        Finding(
            "package sets",
            "fine",
            ", ".join(
                f"{name or 'default'}: {chosen.kind}" for name, chosen in settings.package_sources.items()
            ),
        )
    ]


async def _helpers(_: Settings) -> list[Finding]:
    """helper programs"""
    missing = await asyncio.to_thread(_not_on_path, ("prlimit", "setpriv"))
    if not missing:
        return []
    told = f"without {' and '.join(missing)}, an evaluation has no limit of memory and the embedded registry may outlive us"
    return [Finding("helper programs", "doubtful", told, "install util-linux")]


def _not_on_path(names: Sequence[str]) -> list[str]:
    return [name for name in names if shutil.which(name) is None]


async def _state(settings: Settings) -> list[Finding]:
    """state"""
    if not settings.state.url:
        return []
    parts = urlsplit(settings.state.url)
    if parts.scheme == "unix":
        opening = asyncio.open_unix_connection(parts.path)
    else:
        opening = asyncio.open_connection(parts.hostname or "127.0.0.1", parts.port or 6379)
    where = f"{parts.hostname or parts.path}:{parts.port or ''}".rstrip(":")
    try:
        async with asyncio.timeout(5):
            _, writer = await opening
        writer.close()
    except (OSError, TimeoutError) as error:
        cure = (
            "start Redis there, or mend state.url; empty, nixfront keeps what it knows in a file of its own"
        )
        return [Finding("state", "doubtful", f"Redis at {where} does not answer: {error}", cure)]
    return [Finding("state", "fine", f"Redis at {where} answers")]


CHECKS: Sequence[Check] = (_nix, _registry, _state, _packages, _data, _ports, _clock, _helpers)
