"""What machines that watch us see: counts, health, and logs that join a request, its build and the registry by one id."""

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest
import structlog
from multidict import CIMultiDict
from prometheus_client.parser import text_string_to_metric_families

from proxy import settings
from proxy.telemetry import log as telemetry_log
from proxy.wiring import server
from tests.support.front import PACKAGES, Front
from tests.support.processes import free_port
from tests.support.servers import Server
from tests.support.shim import Rule, Status, shim
from tests.support.wait import until

pytestmark = pytest.mark.usefixtures("documents_are_valid")

Start = Callable[..., AbstractAsyncContextManager[Front]]
ID = "X-Request-Id"
DOCKER = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}


@pytest.fixture
def log() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The log of this process as documents."""
    root = logging.getLogger()
    handlers, level, configured = root.handlers[:], root.level, structlog.get_config()
    stream = io.StringIO()
    telemetry_log.configure("info", "json", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configured)


def named(answer: tuple[int, dict[str, str], bytes]) -> str:
    """The id that the client saw."""
    return CIMultiDict(answer[1])[ID]


async def counts(front: Front) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    status, headers, body = await front.get("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


@pytest.mark.without_documents("it counts requests and their answers")
async def test_a_pull_is_counted(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        image = await front.pull("hello")
        await front.pull("alpha")
        await front.get("/v2/broken/manifests/latest")
        await front.get("/v2/pushed/blobs/uploads/", "POST", data=b"x" * 1000)
        found = await counts(front)

    def value(name: str, **labels: str) -> float:
        return found.get((f"nixfront_{name}", frozenset(labels.items())), 0)

    assert value("requests_total", kind="manifest", method="GET", status="200") >= 1
    assert value("requests_total", kind="manifest", method="GET", status="404") == 3, (
        "the validator looks for documents, twice"
    )
    assert value("sent_bytes_total", kind="blob") >= sum(layer.size for layer in image.layers)
    assert value("received_bytes_total", kind="upload") == 1000
    assert value("builds_total", outcome="made") == 2
    assert value("layers_total", how="packed") == 4, "cacert, common, hello, alpha"
    assert value("layers_total", how="mounted") == 2, "cacert and common"
    assert value("layer_bytes_total", how="mounted") > 0
    assert value("builds_total", outcome="BuildFailed") == 1
    assert value("builds_running") == 0
    assert value("nix_seconds_count", program="nix-instantiate") >= 2
    assert value("nix_seconds_count", program="nix-store --realise") >= 2
    assert value("registry_seconds_count", kind="manifest", method="PUT") >= 1


async def test_request_build_and_registry_are_joined_by_one_id(
    start: Start, registry: Server, log: Callable[[], list[dict[str, Any]]]
) -> None:
    async with start(registry.url) as front:
        pulled = await front.get("/v2/hello/manifests/latest", headers=DOCKER)
        echoed = await front.get("/v2/", headers={ID: "chosen-by-a-front-server"})
        failed = await front.get("/v2/nosuch/manifests/latest")

    one = named(pulled)
    assert pulled[0] == 200
    lines = log()
    request = [line for line in lines if line["event"] == "request" and line["request_id"] == one]
    assert [(line["path"], line["status"]) for line in request] == [("/v2/hello/manifests/latest", 200)]
    assert f"request {one}" in registry.process.log_text(), "the registry's log has it too"
    assert named(echoed) == "chosen-by-a-front-server"
    assert named(failed) != one
    assert len([line for line in lines if line["event"] == "request"]) == 3


async def test_the_line_of_a_build_has_the_id_of_the_request_that_began_it(
    registry: Server, tmp_path: Any, nix_count: Any, log: Callable[[], list[dict[str, Any]]]
) -> None:
    chosen = settings.load(
        None,
        {},
        http={"addr": "127.0.0.1:0"},
        data={"dir": str(tmp_path / "data")},
        registry={"url": registry.url},
        nix={"store": str(tmp_path / "store")},
        packages={"kind": "path", "path": str(PACKAGES)},
    )
    async with server.serve(chosen) as url:
        front = Front(url, [], nix_count)
        answers = await asyncio.gather(
            *(front.get("/v2/slow/manifests/latest", headers=DOCKER) for _ in range(3))
        )

    began = [line["request_id"] for line in log() if line["event"] == "build done"]
    assert len(began) == 1
    assert began[0] in [named(answer) for answer in answers]


async def test_health_and_counts_are_never_passed_on(start: Start, registry: Server) -> None:
    async with shim(registry.url) as relay, start(relay.url) as front:
        for path in ("/metrics", "/healthz", "/readyz"):
            for method in ("GET", "HEAD", "POST", "DELETE"):
                await front.get(path, method)
        asked = [key for key in relay.counts if key[1] not in ("ping", "manifest", "tags", "catalog")]

    assert asked == []


async def test_not_ready_while_the_registry_is_away(
    start: Start, registry: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.web.health._VALID", 0.0)
    broken = Rule("GET", r"/v2/$", Status(503), times=2)
    async with shim(registry.url, broken) as relay, start(relay.url) as front:
        away = await front.get("/readyz")
        alive = await front.get("/healthz")

        async def ready() -> bool:
            return (await front.get("/readyz"))[0] == 200

        await until(ready)

    assert away[0] == 503
    assert away[2].startswith(b"registry: the registry answered 503")
    assert alive[0] == 200


async def test_not_ready_without_nix(start: Start, registry: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start(registry.url) as front:
        monkeypatch.setenv("PATH", "/nowhere")
        status, _, body = await front.get("/readyz")

    assert status == 503
    assert body.startswith(b"nix: nix could not be started")


async def test_strangers_see_health_alone(start: Start, registry: Server) -> None:
    through = {"X-Forwarded-For": "203.0.113.5"}
    async with start(registry.url) as front:
        counted = await front.get("/metrics", headers=through)
        ready = await front.get("/readyz", headers=through)
        own = await front.get("/metrics")

    assert (counted[0], ready[0], own[0]) == (403, 200, 200)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["127.0.0.1", "203.0.113.5"], id="a second line"),
        pytest.param(["127.0.0.1, 203.0.113.5"], id="one line"),
        pytest.param([""], id="an empty line"),
        pytest.param(["127.0.0.1,"], id="an empty element at the end"),
        pytest.param(["127.0.0.1, ,127.0.0.1"], id="an empty element"),
        pytest.param(["127.0.0.1", ""], id="an empty second line"),
    ],
)
async def test_every_element_of_every_line_is_somebody(
    start: Start, registry: Server, lines: list[str]
) -> None:
    """A web server in front may add a line of its own below the client's, or leave an element empty."""
    through = CIMultiDict([("X-Forwarded-For", line) for line in lines])
    async with start(registry.url) as front:
        await front.get("/v2/broken/manifests/latest")
        (build,) = json.loads((await front.get("/status.json"))[2])["builds"]
        paths = ("/", "/status.json", f"/builds/{build['id']}/log", "/metrics")
        statuses = [(await front.get(path, headers=through))[0] for path in paths]
        own = (await front.get("/", headers={"X-Forwarded-For": "127.0.0.1, ::1"}))[0]

    assert statuses == [403] * len(paths)
    assert own == 200


async def test_an_address_of_their_own(start: Start, registry: Server) -> None:
    other = f"127.0.0.1:{free_port()}"
    async with start(registry.url, status={"addr": other}) as front:
        assert [(await front.get(path))[0] for path in ("/metrics", "/healthz", "/readyz")] == [404] * 3
        async with aiohttp.ClientSession() as session:
            for path in ("/metrics", "/healthz", "/readyz"):
                async with session.get(f"http://{other}{path}") as answer:
                    assert answer.status == 200, path
            async with session.get(f"http://{other}/v2/") as answer:
                assert answer.status == 404, "no registry there"


async def test_counts_can_be_off(start: Start, registry: Server) -> None:
    async with start(registry.url, status={"metrics": False}) as front:
        assert (await front.get("/metrics"))[0] == 404
