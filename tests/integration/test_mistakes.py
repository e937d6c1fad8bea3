"""What a mistake costs: what starts nothing, what is remembered, what is missing. The messages are in test_table."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from proxy.core.events import BuildStarted
from tests.support.front import Front
from tests.support.servers import Server

Start = Callable[..., AbstractAsyncContextManager[Front]]


async def refused(front: Front, repository: str, tag: str = "latest") -> tuple[int, str]:
    """Status and message of a manifest that cannot be had."""
    status, _, body = await front.get(f"/v2/{repository}/manifests/{tag}")
    (error,) = json.loads(body)["errors"]
    return status, error["message"]


async def test_the_revision_is_a_tag_too(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        latest = await front.pull("hello")
        revision = latest.config["config"]["Labels"]["nixfront.revision"]  # type: ignore[index]
        pinned = await front.pull("hello", revision)

    assert pinned.digest == latest.digest


async def test_names_that_cannot_be_ours_start_nothing(start: Start, registry: Server) -> None:
    hexadecimal = "0" * 64
    paths = [
        "/v2/hello/manifests/.INVALID_MANIFEST_NAME",
        f"/v2/hello/manifests/sha256-{hexadecimal}",
        f"/v2/hello/manifests/sha256-{hexadecimal}.sig",
        f"/v2/hello/manifests/sha256:{hexadecimal}",
        f"/v2/hello/blobs/sha256:{hexadecimal}",
        "/v2/HELLO/manifests/latest",
        "/v2/hello%2Falpha/manifests/latest",
        "/v2/hello/tags/list",
        "/v2/_catalog",
        "/v2/",
        "/",
    ]
    async with start(registry.url) as front:
        for path in paths:
            await front.get(path)
            await front.get(path, "HEAD")
        await front.get("/v2/hello/manifests/latest", "DELETE")
        await front.get("/v2/hello/manifests/latest", "OPTIONS")

        assert front.nix_starts() == 0
        assert front.told(BuildStarted) == []


async def test_a_failure_is_remembered_for_the_next_question(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        first = await refused(front, "broken")
        starts = front.nix_starts()
        second = await refused(front, "broken")

        assert front.nix_starts() == starts
    assert first == second


async def test_a_failure_is_forgotten(start: Start, registry: Server) -> None:
    async with start(registry.url, builds={"failure_seconds": 0.0}) as front:
        await refused(front, "broken")
        starts = front.nix_starts()
        await refused(front, "broken")

        assert front.nix_starts() > starts


async def test_a_missing_nix_is_said(
    start: Start, registry: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with start(registry.url) as front:
        status, headers, _ = await front.get("/v2/hello/manifests/latest", "HEAD")
        body = await front.get("/v2/hello/manifests/latest")

    assert status == body[0] == 503
    assert b"is Nix installed on this host?" in body[2]
    assert headers["Content-Type"] == "application/json"


async def test_a_package_set_that_is_not_there_is_said(start: Start, registry: Server) -> None:
    async with start(registry.url, packages={"kind": "path", "path": "/nonexistent/set"}) as front:
        status, message = await refused(front, "hello")

    assert status == 503
    assert "cannot fetch /nonexistent/set" in message
