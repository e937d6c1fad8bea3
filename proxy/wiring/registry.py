"""Endpoints of the registry and of nixfront, with the credentials of the settings, and the short ways for blobs."""

import ssl
from contextlib import AsyncExitStack
from pathlib import Path

from yarl import URL

from proxy.registry import embedded, endpoint
from proxy.registry.endpoint import Endpoint
from proxy.registry.login import Credentials
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics
from proxy.web import passthrough
from proxy.web.blobs import Blobs, FromDisk, Redirected, Spliced, Way
from proxy.web.blobs.plain_http import PlainHttp
from proxy.web.blobs.shared_disk import SharedDisk
from proxy.wiring import files


def registry_endpoint(settings: Settings, url: str) -> Endpoint:
    """The registry at this origin, with the credentials and certificates of the settings.

    Blocking: it reads files. Raises `SettingsInvalid`.
    """
    section = settings.registry
    trusted = None
    if section.ca or section.client_certificate:
        trusted = endpoint.registry_tls(section.ca, section.client_certificate, section.client_key)
    return Endpoint(url, Credentials(section.username, section.secret()), trusted)


def nixfront_endpoint(settings: Settings) -> Endpoint:
    """The nixfront that runs with these settings on this host, which passes our credentials on to the registry.

    While it is down, another program may listen at its address and must not get the password. So over plain HTTP the
    endpoint has credentials only while a nixfront holds the lock of the data folder. Blocking: it reads files.
    Raises `SettingsInvalid`.
    """
    credentials = Credentials(settings.registry.username, settings.registry.secret())
    certificate = settings.http.certificate
    if certificate:
        return Endpoint(f"https://{settings.http.addr}", credentials, _trust_only(certificate))
    is_ours = files.is_locked(settings.data_dir)
    return Endpoint(f"http://{settings.http.addr}", credentials if is_ours else Credentials())


def image_endpoint(settings: Settings) -> Endpoint:
    """Where commands read images: the registry, or nixfront itself where the registry is its child.

    Blocking: it reads files. Raises `SettingsInvalid`.
    """
    url = settings.registry.url
    return registry_endpoint(settings, url) if url else nixfront_endpoint(settings)


def _trust_only(certificate: str) -> ssl.SSLContext:
    """Trust in this one certificate, whatever name it has: a certificate rarely names the address that we listen at."""
    context = endpoint.pinned_tls(certificate)
    context.check_hostname = False
    return context


def open_blobs(
    settings: Settings, stack: AsyncExitStack, relay: passthrough.Passthrough, url: str, metrics: Metrics
) -> Blobs:
    """The short ways for blobs that these settings allow, the shortest first."""
    ways: list[Way] = []
    if settings.registry.public_url:
        ways.append(Redirected(relay, settings.registry.public_url))
    storage = settings.registry.storage
    if storage or not settings.registry.url:
        disk = SharedDisk(Path(storage) if storage else embedded.storage(settings.data_dir / "registry"))
        stack.push_async_callback(disk.close)
        ways.append(FromDisk(relay, disk))
    origin = URL(url)
    # Traces come from the client session, which `PlainHttp` does not use.
    if origin.scheme == "http" and origin.host and origin.port and not settings.traces.endpoint:
        registry = PlainHttp(origin.host, origin.port)
        stack.callback(registry.close)
        ways.append(Spliced(relay, registry, metrics.registry_answered))
    return Blobs(ways)
