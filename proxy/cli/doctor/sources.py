"""Whether the source of each package set answers: the channel, the archive, the git repository."""

import asyncio
from urllib.parse import urlsplit

import aiohttp

from proxy.cli.doctor.finding import Finding, doubtful, fine, wrong
from proxy.core.errors import PackageSetUnavailable
from proxy.core.model import without_credentials
from proxy.nix.sets.repository import Repository
from proxy.registry.endpoint import client_session
from proxy.registry.no_answer import why
from proxy.settings import Settings
from proxy.settings.packages import PackageSource
from proxy.tools.scratch import scratch_folder

_SECONDS = 10.0
_TIMEOUT = aiohttp.ClientTimeout(total=_SECONDS)


async def check_sources(settings: Settings) -> list[Finding]:
    """A finding for each set whose source has an address that a short question can reach."""
    sources = settings.package_sources.items()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_check(f"sets.{name}" if name else "packages", each)) for name, each in sources
        ]
    return [finding for task in tasks if (finding := task.result()) is not None]


async def _check(key: str, source: PackageSource) -> Finding | None:
    address = _address(source)
    if not address:
        return None
    shown = without_credentials(address)
    trouble = await (_ask_git(address) if source.kind == "git" else _ask_web(address))
    if not trouble:
        return fine("package source", f"{key}: {shown} answers")
    message = f"{key}: {shown} cannot be reached: {without_credentials(trouble)}"
    cure = f"let this host reach it, or set {key}.url (and {key}.pointer) to a server that it reaches"
    # A fixed revision that was fetched before needs no server.
    return (doubtful if source.revision else wrong)("package source", message, cure)


def _address(source: PackageSource) -> str:
    """Where the set comes from; empty where a pull alone can try it."""
    template = {
        "nixpkgs": source.pointer or source.url,
        "tarball": source.url,
        "git": source.url,
        "demo": source.archive,
    }.get(source.kind, "")
    address = template.replace("{ref}", source.ref).replace("{revision}", source.revision or source.ref)
    return address if source.kind == "git" or urlsplit(address).scheme in ("http", "https") else ""


async def _ask_web(url: str) -> str:
    """Why a pull would get nothing there, or empty. It reads no body."""
    try:
        async with client_session() as session, session.get(url, timeout=_TIMEOUT) as answer:
            return "" if answer.status < 400 else f"it answers {answer.status}"
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return why(error)


async def _ask_git(url: str) -> str:
    async with scratch_folder() as folder:
        repository = Repository(url, folder / "mirror", deadline=_SECONDS, follow_head=True, patience=0)
        try:
            await repository.head()
        except PackageSetUnavailable as error:
            return str(error)
    return ""
