"""A nixfront as a client sees it: a ping, a pull, a part of a layer, a mistake. No request has credentials."""

import hashlib
import re
import time
from urllib.parse import urlsplit

import aiohttp

from proxy.cli.doctor.finding import Finding, fine, wrong
from proxy.core import foreign
from proxy.core.errors import ArgumentsInvalid, RegistryUnavailable
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import EVERY_MANIFEST_TYPE
from proxy.image.documents import Blob, ImageManifest, Index, Manifest, read_manifest
from proxy.registry.endpoint import Endpoint, OpenEndpoint
from proxy.registry.no_answer import why

_TIMEOUT = aiohttp.ClientTimeout(total=3600, connect=10, sock_read=600)  # the image may be built first
_PART = 16  # bytes
_MISTAKE = "nixfront-try-makes-a-mistake"
_LOOPBACK = ("127.", "localhost", "[::1]")
_DOCUMENT = 4 << 20  # bytes; the registry takes no larger manifest
_WAY = "look at the log of that nixfront, and of a web server in front of it"


class _Wrong(Exception):
    """A check failed."""

    def __init__(self, check: str, message: str, cure: str = _WAY) -> None:
        super().__init__(message)
        self.finding = wrong(check, message, cure)


def url_of(host: str) -> str:
    """The origin of a host as a person writes it: https, but plain HTTP on loopback, as engines have it.

    Raises `ArgumentsInvalid`.
    """
    default = "http://" if host.startswith(_LOOPBACK) else "https://"
    url = (host if "://" in host else default + host).rstrip("/")
    if not _is_origin(url):
        raise ArgumentsInvalid(f"{host!r} is no address: write HOST, HOST:PORT, or https://HOST:PORT")
    return url


def _is_origin(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0 and url == f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        return False
    return is_whole and parts.scheme in ("http", "https") and re.search(r"[\s@]", url) is None


async def examine(url: str, repository: str, tag: str) -> list[Finding]:
    """The findings of all checks; a check that needs one that failed is left out."""
    findings: list[Finding] = []
    async with Endpoint(url).opened() as front:
        try:
            findings.append(await _ping(front))
            started = time.monotonic()
            layers = await _pull(front, repository, tag)
            took = time.monotonic() - started
            size = sum(layer.size for layer in layers)
            findings.append(
                fine(
                    "pull",
                    f"{repository}:{tag}: {len(layers)} layers, {size / 1e6:.1f} MB, {took:.1f} s; each digest fits",
                )
            )
            if layers:
                findings.append(await _part(front, repository, min(layers, key=lambda layer: layer.size)))
            findings.append(await _mistake(front))
        except _Wrong as failure:
            findings.append(failure.finding)
        except (aiohttp.ClientError, TimeoutError) as error:
            findings.append(
                wrong("connection", f"{url}: {why(error)}", "start nixfront there, or mend the address")
            )
        except RegistryUnavailable as error:  # of the registry's token service
            findings.append(wrong("login", str(error), "mend the registry's way of login"))
    return findings


async def _ping(front: OpenEndpoint) -> Finding:
    async with front.ask("GET", "/v2/", (), timeout=_TIMEOUT) as answer:
        if answer.status == 401:
            raise _Wrong(
                "ping", "it wants a login, and this command has none", "pull with an engine that is logged in"
            )
        if answer.status != 200:
            raise _Wrong(
                "ping",
                f"it answers {answer.status} to GET /v2/, and a registry answers 200",
                "mend the address",
            )
        by = (
            "a nixfront"
            if "X-Request-Id" in answer.headers
            else "a registry that does not look like a nixfront"
        )
        return fine("ping", f"{front.url} is {by}")


async def _pull(front: OpenEndpoint, repository: str, tag: str) -> list[Blob]:
    """The layers of the image; of several platforms, those of the first."""
    manifest = await _manifest(front, repository, tag)
    if isinstance(manifest, Index) and manifest.children:
        manifest = await _manifest(front, repository, manifest.children[0].digest)
    if not isinstance(manifest, ImageManifest):
        raise _Wrong("pull", f"{repository}:{tag} is no image", "--image names another one")
    for blob in (manifest.config, *manifest.layers):
        await _check_blob(front, repository, blob)
    return list(manifest.layers)


async def _manifest(front: OpenEndpoint, repository: str, reference: str) -> Manifest:
    path, accept = f"/v2/{repository}/manifests/{reference}", {"Accept": EVERY_MANIFEST_TYPE}
    async with front.ask("GET", path, (), accept, timeout=_TIMEOUT) as answer:
        body = await answer.content.read(_DOCUMENT)
        while not answer.content.at_eof() and len(body) < _DOCUMENT:
            body += await answer.content.read(_DOCUMENT)
        if answer.status != 200:
            raise _Wrong("pull", f"{repository}:{reference}: {answer.status}, {_message(body)}")
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        if answer.headers.get("Docker-Content-Digest", digest) != digest:
            raise _Wrong("pull", f"the manifest of {repository}:{reference} does not have its digest")
    try:
        return read_manifest(body)
    except DocumentInvalid as error:
        raise _Wrong("pull", f"the manifest of {repository}:{reference}: {error}") from error


async def _check_blob(front: OpenEndpoint, repository: str, blob: Blob) -> None:
    digest = hashlib.sha256()
    async with front.ask("GET", f"/v2/{repository}/blobs/{blob.digest}", (), timeout=_TIMEOUT) as answer:
        async for chunk in answer.content.iter_any():
            digest.update(chunk)
        if answer.status != 200 or blob.digest != f"sha256:{digest.hexdigest()}":
            raise _Wrong("pull", f"blob {blob.digest}: {answer.status}, and other bytes")


async def _part(front: OpenEndpoint, repository: str, layer: Blob) -> Finding:
    path, part = f"/v2/{repository}/blobs/{layer.digest}", {"Range": f"bytes=0-{_PART - 1}"}
    async with front.ask("GET", path, (), part, timeout=_TIMEOUT) as answer:
        body = await answer.content.read(2 * _PART)
        if answer.status != 206 or len(body) != _PART:
            raise _Wrong(
                "range",
                f"a request for {_PART} bytes of a layer gets {answer.status}: no pull can be resumed",
            )
    return fine("range", "a pull that broke can be resumed")


async def _mistake(front: OpenEndpoint) -> Finding:
    path = f"/v2/{_MISTAKE}/manifests/latest"
    async with front.ask("GET", path, (), {"Accept": EVERY_MANIFEST_TYPE}, timeout=_TIMEOUT) as answer:
        message = _message(await answer.content.read(_DOCUMENT))
        if answer.status != 404 or _MISTAKE not in message:
            raise _Wrong("mistake", f"an unknown name gets {answer.status}, {message!r}, and no explanation")
    return fine("mistake", f"an unknown name gets its explanation: {message.splitlines()[0][:100]}")


def _message(body: bytes) -> str:
    """The message of an error, or the start of what is none."""
    try:
        return str(foreign.parse(body)["errors"][0]["message"])
    except (ValueError, KeyError, IndexError, TypeError):
        return body[:100].decode(errors="replace")
