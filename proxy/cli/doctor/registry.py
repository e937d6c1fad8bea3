"""Checks of the registry: whether it answers, lets nixfront push and delete, and has the same time."""

import asyncio
import email.utils
import time
from contextlib import suppress

import aiohttp

from proxy.cli.doctor.finding import Finding, doubtful, fine, wrong
from proxy.core.errors import RegistryUnavailable, SettingsInvalid
from proxy.registry import anonymous, embedded
from proxy.registry.endpoint import Endpoint, OpenEndpoint
from proxy.registry.login import delete_scopes, push_scopes
from proxy.registry.management import Management
from proxy.registry.no_answer import why
from proxy.settings import Settings
from proxy.wiring.registry import registry_endpoint

_SKEW = 60.0  # seconds between our clock and the registry's
_TIMEOUT = aiohttp.ClientTimeout(total=15)
_PROBE = "nixfront-doctor"  # a repository that stays empty
_ZERO = "sha256:" + "0" * 64


async def check_registry(settings: Settings) -> list[Finding]:
    """The registry of the settings, or the program of the embedded one."""
    url = settings.registry.url
    if not url:
        return [await _check_program()]
    try:
        endpoint = await asyncio.to_thread(registry_endpoint, settings, url)
    except SettingsInvalid as error:
        return [wrong("registry", str(error), "mend the files that these settings name")]
    async with endpoint.opened() as registry:
        try:
            async with registry.ask("GET", "/v2/", (), timeout=_TIMEOUT, redirects=False) as answer:
                status, headers, body = answer.status, answer.headers, await answer.content.read(500)
        except RegistryUnavailable as error:
            cure = "mend registry.username and registry.password, or the service"
            return [wrong("registry credentials", str(error), cure)]
        except (aiohttp.ClientError, TimeoutError) as error:
            cure = "start it, or mend registry.url: scheme, host, port, and its certificate where it is https"
            return [wrong("registry", f"{url}: {why(error)}", cure)]
        version = headers.get("Docker-Distribution-Api-Version")
        if version is None and not (status == 200 and body.strip() in (b"", b"{}")):
            start = body[:60].decode(errors="replace")
            message = f"the server at {url} is no registry: it answers {status} to GET /v2/, {start!r}"
            cure = "set registry.url to the registry itself, not to a page or a proxy before it"
            return [wrong("registry", message, cure)]
        return [
            *_compare_clocks(headers.get("Date", "")),
            *await _check_rights(registry, status, version or "a registry"),
            *await _check_mirror(settings, endpoint),
        ]


async def _check_program() -> Finding:
    try:
        program = await asyncio.to_thread(embedded.find_program)
    except RegistryUnavailable as error:
        cure = "install it (Debian: apt-get install docker-registry), or set registry.url"
        return wrong("registry", str(error).partition(": ")[0], cure)
    return fine("registry", f"nixfront runs {program} itself")


async def _check_rights(registry: OpenEndpoint, status: int, version: str) -> list[Finding]:
    """Whether nixfront may push, and whether the registry deletes images. `status` is the answer to `GET /v2/`."""
    url = registry.url
    if status in (401, 403):
        cure = "give nixfront an account that may push: registry.username and registry.password"
        return [wrong("registry credentials", f"{url} answers {status} to nixfront", cure)]
    findings = [fine("registry", f"{url} speaks {version}")]
    if (pushed := await _begin_upload(registry)) != 202:
        message = f"{url} does not let nixfront push: it answers {pushed} to the start of an upload"
        cure = "give nixfront an account that may push, or a registry that is not read-only"
        findings.append(wrong("registry credentials", message, cure))
    manifest = f"/v2/{_PROBE}/manifests/{_ZERO}"
    async with registry.ask("DELETE", manifest, delete_scopes(_PROBE), timeout=_TIMEOUT) as answer:
        if answer.status == 405:
            message = f"{url} deletes nothing: nixfront prune cannot work"
            cure = "set storage.delete.enabled: true in the registry's configuration (REGISTRY_STORAGE_DELETE_ENABLED=true)"
            findings.append(doubtful("registry deletes", message, cure))
    if not await Management(registry).has_catalog():
        message = (
            f"{url} lists its repositories to nobody (it has no catalog): nixfront images and reindex see those in "
            "nixfront's records alone"
        )
        cure = "none is needed, as pulls and nixfront prune work without it; nixfront reindex NAME reads a repository by name"
        findings.append(doubtful("registry catalog", message, cure))
    return findings


async def _check_mirror(settings: Settings, endpoint: Endpoint) -> list[Finding]:
    """Whether the clients of a mirror, who have no login, get what the mirror serves."""
    refused = [name for name in settings.mirror.names if await anonymous.refuses_pulls(endpoint, name)]
    if not refused:
        return []
    message = f"{endpoint.url} wants a login for {', '.join(refused)}, and the clients of a mirror have none: they get the image "
    cure = (
        "let everybody pull these names at the registry, or take them out of mirror.allow and mirror.prefix"
    )
    return [wrong("mirror", f"{message}of another registry", cure)]


async def _begin_upload(registry: OpenEndpoint) -> int:
    """The status of the start of an upload, which is then cancelled."""
    begin = f"/v2/{_PROBE}/blobs/uploads/"
    async with registry.ask("POST", begin, push_scopes(_PROBE), timeout=_TIMEOUT, redirects=False) as answer:
        status, location = answer.status, answer.headers.get("Location", "")
    if status == 202:
        with suppress(aiohttp.ClientError, ValueError):
            upload = answer.url.join(type(answer.url)(location, encoded=True))
            if upload.origin() == answer.url.origin():
                async with registry.ask("DELETE", upload, delete_scopes(_PROBE), timeout=_TIMEOUT):
                    pass
    return status


def _compare_clocks(date: str) -> list[Finding]:
    """A finding where the registry's `Date` is far from our clock."""
    with suppress(ValueError, TypeError):
        skew = abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time())
        if skew > _SKEW:
            message = f"the clocks of this host and of the registry are {skew:.0f} s apart"
            cure = "set both by NTP (timedatectl set-ntp true): tokens and certificates need it"
            return [doubtful("clock", message, cure)]
    return []
