"""TLS on both sides, with real certificates: what clients see, and what the registry is checked by."""

import asyncio
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import trustme

from proxy import cli
from proxy import settings as settings_package
from proxy.core.errors import RegistryUnavailable, SettingsInvalid
from proxy.registry.endpoint import Endpoint
from proxy.upkeep import warm
from proxy.upkeep.explain import explain
from proxy.web.connections import certificate as connections
from proxy.wiring import registry as wiring_registry
from proxy.wiring.server import serve
from tests.support import stored
from tests.support.front import PACKAGES, Front
from tests.support.servers import Server, stock_registry
from tests.support.wait import until

Start = Callable[..., AbstractAsyncContextManager[Front]]


@dataclass(frozen=True, slots=True)
class Files:
    """A certificate with its key, as files."""

    certificate: Path
    key: Path

    def write(self, issued: trustme.LeafCert) -> None:
        """Put another one there."""
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    def settings(self) -> dict[str, str]:
        return {"certificate": str(self.certificate), "key": str(self.key)}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> Files:
    made = Files(tmp_path / "certificate.pem", tmp_path / "key.pem")
    made.write(authority.issue_cert("127.0.0.1"))
    return made


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def seen(url: str, context: ssl.SSLContext) -> bytes:
    """The certificate that a new connection sees."""
    host, _, port = url.removeprefix("https://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    assert isinstance(shown, bytes)
    return shown


# --- toward clients ---------------------------------------------------------------------------------------


async def test_clients_are_served_by_tls(
    start: Start, registry: Server, files: Files, authority: trustme.CA
) -> None:
    async with start(registry.url, http=files.settings()) as front:
        status, _, _ = await front.get("/v2/", ssl=trusting(authority))
        _, headers, _ = await front.get("/v2/some/blobs/uploads/", "POST", ssl=trusting(authority))

    assert front.url.startswith("https://127.0.0.1:")
    assert status == 200
    assert headers["Location"].startswith(f"{front.url}/v2/some/blobs/uploads/"), "by the client's own scheme"


async def test_a_new_certificate_counts_for_new_connections_and_a_broken_one_not_at_all(
    start: Start,
    registry: Server,
    files: Files,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connections, "_SECONDS", 0.02)
    trust = trusting(authority)

    async def logged(text: str) -> None:
        await until(lambda: text in caplog.text)

    caplog.set_level(logging.INFO, "proxy.web.connections.certificate")
    async with start(registry.url, http=files.settings()) as front:
        shown = [await seen(front.url, trust)]
        files.write(authority.issue_cert("127.0.0.1"))
        await logged("new certificate file")
        shown.append(await seen(front.url, trust))
        caplog.clear()
        files.certificate.write_bytes(files.certificate.read_bytes()[:200])
        await logged("the new certificate is not used, the old one goes on")
        shown.append(await seen(front.url, trust))
        caplog.clear()
        files.key.write_bytes(authority.issue_cert("127.0.0.1").private_key_pem.bytes())
        await logged("the new certificate is not used, the old one goes on")
        shown.append(await seen(front.url, trust))
        files.write(authority.issue_cert("127.0.0.1"))
        await logged("new certificate file")
        shown.append(await seen(front.url, trust))

    assert shown[1] == shown[2] == shown[3]
    assert len(set(shown)) == 3


async def test_a_connection_outlives_its_certificate(
    start: Start,
    registry: Server,
    files: Files,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connections, "_SECONDS", 0.02)
    caplog.set_level(logging.INFO, "proxy.web.connections.certificate")
    async with start(registry.url, http=files.settings()) as front:
        host, _, port = front.url.removeprefix("https://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=trusting(authority))
        for _ in range(2):
            writer.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
            assert await reader.readexactly(2) == b"{}"
            files.write(authority.issue_cert("127.0.0.1"))
            await until(lambda: "new certificate file" in caplog.text)
        writer.close()


@pytest.mark.parametrize("broken", ["certificate", "key"])
async def test_files_that_cannot_be_used_at_the_start_are_refused(
    start: Start, registry: Server, files: Files, broken: str
) -> None:
    (files.certificate if broken == "certificate" else files.key).write_text("no PEM")

    with pytest.raises(SettingsInvalid, match=r"http\.certificate, http\.key: .+"):
        async with start(registry.url, http=files.settings()):
            pass


# --- toward the registry ----------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def guarded(tmp_path: Path, authority: trustme.CA) -> AsyncIterator[Server]:
    """A registry with a certificate of a private authority, which wants one of the same authority from clients."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    own = Files(folder / "certificate.pem", folder / "key.pem")
    own.write(authority.issue_cert("127.0.0.1"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    section = {**own.settings(), "clientcas": [str(folder / "ca.pem")]}
    async with stock_registry(folder, tls=section) as server:
        yield server


async def test_a_private_authority_and_a_certificate_of_our_own(
    start: Start, guarded: Server, files: Files, authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    section = {
        "ca": str(tmp_path / "ca.pem"),
        "client_certificate": str(files.certificate),
        "client_key": str(files.key),
    }
    async with start(guarded.url, registry=section) as front:
        image = await front.pull("hello")
        _, headers, _ = await front.get("/v2/some/blobs/uploads/", "POST")

    assert image.files
    assert headers["Location"].startswith(f"{front.url}/v2/some/"), "by http, as the client came"


async def test_a_registry_is_kept_by_tls_too_and_only_where_it_is_trusted(
    guarded: Server,
    files: Files,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name, value in {
        "DATA_DIR": tmp_path / "data",
        "REGISTRY_URL": guarded.url,
        "REGISTRY_CA": tmp_path / "ca.pem",
        "REGISTRY_CLIENT_CERTIFICATE": files.certificate,
        "REGISTRY_CLIENT_KEY": files.key,
    }.items():
        monkeypatch.setenv(f"NIXFRONT_{name}", str(value))

    assert await asyncio.to_thread(cli.main, ["reindex", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tags"] == 0
    monkeypatch.delenv("NIXFRONT_REGISTRY_CA")
    assert await asyncio.to_thread(cli.main, ["reindex"]) == 1
    assert "the registry did not answer" in capsys.readouterr().err

    unverified = await asyncio.to_thread(
        wiring_registry.image_endpoint, settings_package.load(None, os.environ)
    )
    with pytest.raises(RegistryUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await stored.listed(unverified)


async def test_the_commands_ask_by_tls(
    start: Start, guarded: Server, files: Files, authority: trustme.CA, tmp_path: Path
) -> None:
    """The registry as the server does; a nixfront that has the registry as a child, by its own certificate."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    section = {
        "url": guarded.url,
        "ca": str(tmp_path / "ca.pem"),
        "client_certificate": str(files.certificate),
        "client_key": str(files.key),
    }
    there = await asyncio.to_thread(
        wiring_registry.image_endpoint, settings_package.load(None, {}, registry=section)
    )
    public = Files(tmp_path / "public.pem", tmp_path / "public-key.pem")
    public.write(trustme.CA().issue_cert("images.example"))

    async def explained(registry: Endpoint) -> str:
        async with registry.opened() as reached:
            return (await explain(reached, "hello", "latest")).name

    async with start(guarded.url, registry=section, http=public.settings()) as front:
        here = {**public.settings(), "addr": front.url.removeprefix("https://")}
        own = await asyncio.to_thread(
            wiring_registry.image_endpoint, settings_package.load(None, {}, http=here)
        )
        (warmed,) = [one async for one in warm.warm(own, [("hello", "latest")], 1)]
        assert warmed.digest, warmed.error

        for registry in (there, own):
            assert "hello" in await stored.listed(registry)
            assert await explained(registry) == "hello:latest"
        # Not in the server's own files, which it reads again now and then.
        others = Files(tmp_path / "others.pem", tmp_path / "others-key.pem")
        others.write(trustme.CA().issue_cert("images.example"))
        here |= others.settings()
        stranger = await asyncio.to_thread(
            wiring_registry.image_endpoint, settings_package.load(None, {}, http=here)
        )
        with pytest.raises(RegistryUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await explained(stranger)
        with pytest.raises(RegistryUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await stored.listed(stranger)


@pytest.mark.parametrize("missing", ["ca", "client_certificate"])
async def test_a_registry_that_is_not_trusted_or_does_not_trust_us_is_not_used(
    start: Start, guarded: Server, files: Files, authority: trustme.CA, tmp_path: Path, missing: str
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    section = {"ca": str(tmp_path / "ca.pem")}
    if missing == "ca":
        section = {"client_certificate": str(files.certificate), "client_key": str(files.key)}
    async with start(guarded.url, registry=section) as front:
        status, _, body = await front.get("/v2/")

    assert status == 503
    assert b"the registry behind nixfront does not answer" in body


@pytest.mark.parametrize(
    ("key", "text"),
    [("ca", "registry.ca: "), ("client_certificate", "registry.client_certificate, registry.client_key: ")],
)
async def test_files_for_the_registry_that_cannot_be_used_are_refused(
    tmp_path: Path, files: Files, key: str, text: str
) -> None:
    section = {"url": "https://127.0.0.1:1", key: str(tmp_path / "nosuch")}
    if key == "client_certificate":
        section["client_key"] = str(files.key)
    chosen = settings_package.load(
        None,
        {},
        http={"addr": "127.0.0.1:0"},
        data={"dir": str(tmp_path / "data")},
        packages={"kind": "path", "path": str(PACKAGES)},
        registry=section,
    )

    with pytest.raises(SettingsInvalid, match=text):
        async with serve(chosen):
            pass
