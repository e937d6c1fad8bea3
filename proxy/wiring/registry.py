"""Values that several parts need, made of the settings in one place: the ways to the registry and to nixfront, the operator's
words, the policy, and where things are remembered.
"""

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


def registry(settings: Settings, url: str) -> Endpoint:
    """The registry of the settings, which is at this origin.

    Blocking: it reads the files. Raises `SettingsInvalid`.
    """
    chosen = settings.registry
    trusted = endpoint.toward_registry(chosen.ca, chosen.client_certificate, chosen.client_key)
    return Endpoint(url, Credentials(chosen.username, chosen.secret()), trusted)


def nixfront(settings: Settings) -> Endpoint:
    """The nixfront that serves with these settings on this host, which passes our user on to the registry.

    Whoever answers at its address while it is down gets no password: without a certificate it has to hold its data folder.
    Blocking: it reads the files. Raises `SettingsInvalid`.
    """
    credentials = Credentials(settings.registry.username, settings.registry.secret())
    certificate = settings.http.certificate
    if not certificate:
        ours = files.is_served(settings.data_dir)
        return Endpoint(f"http://{settings.http.addr}", credentials if ours else Credentials())
    return Endpoint(f"https://{settings.http.addr}", credentials, _exactly(certificate))


def images(settings: Settings) -> Endpoint:
    """Where to ask about images: a registry that is our child is reached through nixfront itself.

    Blocking: it reads the files. Raises `SettingsInvalid`.
    """
    url = settings.registry.url
    return registry(settings, url) if url else nixfront(settings)


def _exactly(certificate: str) -> ssl.SSLContext:
    """Trust in this very certificate, whatever name it is for: at our own address it is ours."""
    context = endpoint.trusting(certificate)
    context.check_hostname = False
    return context


def blob_ways(
    settings: Settings, stack: AsyncExitStack, relay: passthrough.Passthrough, url: str, metrics: Metrics
) -> Blobs:
    """The ways of blobs that these settings allow."""
    ways: list[Way] = []
    if settings.registry.public_url:
        ways.append(Redirected(relay, settings.registry.public_url))
    storage = settings.registry.storage
    if storage or not settings.registry.url:
        disk = SharedDisk(Path(storage) if storage else embedded.storage(settings.data_dir / "registry"))
        stack.push_async_callback(disk.close)
        ways.append(FromDisk(relay, disk))
    origin = URL(url)
    # A trace sees what our client session asks, and nothing else.
    if origin.scheme == "http" and origin.host and origin.port and not settings.traces.endpoint:
        registry = PlainHttp(origin.host, origin.port)
        stack.callback(registry.close)
        ways.append(Spliced(relay, registry, metrics.asked_registry))
    return Blobs(ways)
