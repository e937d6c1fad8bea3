"""A web site attacks nixfront with the browser of a person who visits the site."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

import pytest

from proxy.core.events import BuildStarted
from tests.integration.test_passthrough import raw
from tests.support.front import Front
from tests.support.processes import free_port
from tests.support.servers import Server

Start = Callable[..., AbstractAsyncContextManager[Front]]
FIREFOX = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"}
REBOUND = {"Host": "attacker.example:8080"}
CROSS = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
HELLO = "/v2/hello/manifests/latest"


async def statuses(front: Front, paths: tuple[str, ...], headers: Mapping[str, str]) -> dict[str, int]:
    return {path: (await front.get(path, headers=headers))[0] for path in paths}


async def test_a_name_of_an_attacker_reads_nothing(start: Start, registry: Server) -> None:
    """DNS rebinding: the browser takes the attacker's name for ours, so every header about the site says "the same"."""
    for_machines = f"127.0.0.1:{free_port()}"
    async with start(registry.url) as front:
        await front.get("/v2/broken/manifests/latest")
        build = (await front.get("/status.json"))[2].decode().partition('"id": "')[2].partition('"')[0]
        paths = ("/", "/images", "/compose", "/status.json", "/events", f"/builds/{build}/log", "/metrics")
        same = {**REBOUND, **FIREFOX, "Sec-Fetch-Site": "same-origin"}
        attacks = [
            await statuses(front, paths, headers)
            for headers in (
                REBOUND,
                same,
                {"Host": "attacker.example."},
                {"X-Forwarded-Host": "attacker.example"},
            )
        ]
        whole = await raw(
            front.url,
            "GET http://attacker.example/status.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )
        own = await statuses(front, ("/", f"/builds/{build}/log", "/metrics"), {"Host": "localhost:8080"})
        told = await front.get("/status.json", headers=REBOUND)
    async with start(registry.url, status={"addr": for_machines}) as front:
        elsewhere = await Front(f"http://{for_machines}", [], front.count).get("/metrics", headers=REBOUND)

    assert {status for attack in attacks for status in attack.values()} == {403}
    assert whole.startswith(b"HTTP/1.1 403 ")
    assert set(own.values()) == {200}
    assert b"http.hosts" in told[2]
    assert elsewhere[0] == 403


async def test_a_name_of_an_attacker_neither_builds_nor_writes_nor_reads_the_registry(
    start: Start, registry: Server
) -> None:
    headers = {**REBOUND, **FIREFOX, "Referer": "http://attacker.example:8080/"}
    async with start(registry.url) as front:
        answers = [
            await front.get(HELLO, headers=headers),
            await front.get("/v2/_catalog", headers=headers),
            await front.get("/v2/hello/blobs/uploads/", "POST", headers=headers),
        ]

        assert front.told(BuildStarted) == []
        assert front.nix_starts() == 0
    assert [answer[0] for answer in answers] == [403] * 3


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(CROSS, id="an image on its page"),
        pytest.param({**CROSS, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, id="a link"),
        pytest.param({"Origin": "https://attacker.example"}, id="a script"),
        pytest.param({"Origin": "http://192.0.2.1"}, id="a script of a site without a name"),
        pytest.param({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, id="a frame without an origin"),
        pytest.param(FIREFOX, id="a browser that is silent, as it is without TLS"),
        pytest.param({**FIREFOX, "Referer": "https://attacker.example/"}, id="and one that names the site"),
    ],
)
async def test_a_site_begins_no_build(start: Start, registry: Server, headers: Mapping[str, str]) -> None:
    async with start(registry.url) as front:
        refused = await front.get(HELLO, headers=headers)
        ping = await front.get("/v2/", headers=headers)
        assert front.told(BuildStarted) == []
        assert front.nix_starts() == 0

    assert refused[0] == 403
    assert b'"DENIED"' in refused[2]
    assert ping[0] == 200, "what may be read there is the registry's to say"


@pytest.mark.parametrize("headers", [CROSS, {"Origin": "https://attacker.example"}], ids=["fetch", "form"])
async def test_a_site_reads_no_page_and_writes_nothing(
    start: Start, registry: Server, headers: Mapping[str, str]
) -> None:
    paths = ("/", "/compose?words=hello", "/suggest?q=h", "/status.json", "/events", "/metrics")
    async with start(registry.url) as front:
        pages = await statuses(front, paths, headers)
        written = await front.get("/v2/hello/blobs/uploads/", "POST", headers=headers)

    assert set(pages.values()) == {403}
    assert written[0] == 403
    assert "/uploads/" not in registry.process.log_text()


async def test_a_link_opens_the_page_but_not_the_composer(start: Start, registry: Server) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    async with start(registry.url) as front:
        seen = await statuses(front, ("/", "/compose?words=hello"), link)
        framed = await front.get("/", headers={**link, "Sec-Fetch-Dest": "iframe"})

    assert list(seen.values()) == [200, 403]
    assert framed[0] == 403


async def test_people_and_engines_go_on(start: Start, registry: Server) -> None:
    """An engine pulls through any name; the page pulls in the browser; a person types an address."""
    engine = {"Host": "registry.team.example", "User-Agent": "docker/26.1.5"}
    async with start(registry.url, http={"hosts": ("images.example.org", "*.team.example")}) as front:
        at_lan = {**FIREFOX, "Host": "192.0.2.10:8080", "Referer": "http://192.0.2.10:8080/compose"}
        pulls = [
            await front.get(f"/v2/{name}/manifests/latest", headers=headers)
            for name, headers in (
                ("hello", engine),
                ("alpha", {**FIREFOX, "Sec-Fetch-Site": "same-origin"}),
                ("shell/hello", {**FIREFOX, "Sec-Fetch-Site": "none"}),
                ("shell/alpha", at_lan),
                (
                    "shell/alpha/hello",
                    {**FIREFOX, "Host": "images.example.org", "Origin": "https://x.team.example"},
                ),
            )
        ]
        names = (
            "images.example.org",
            "IMAGES.example.org.:8080",
            "a.team.example",
            "192.0.2.1",
            "[::1]:8080",
        )
        pages = [(await front.get("/", headers={"Host": name}))[0] for name in names]
        strange = await front.get(HELLO, headers={**engine, "Host": "any.name.example"})

    assert [pull[0] for pull in pulls] == [200] * 5
    assert pages == [200] * len(names)
    assert strange[0] == 200


async def test_a_probe_may_use_any_name(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        healthy = await statuses(front, ("/healthz", "/readyz"), {"Host": "nixfront.team.svc:8080"})
    async with start("http://127.0.0.1:1") as front:
        reasons = [(await front.get("/readyz", headers=headers))[2] for headers in ({}, REBOUND)]

    assert set(healthy.values()) == {200}
    assert b"does not answer" in reasons[0] or b":" in reasons[0]
    assert reasons[1] == b"registry\n", "the reason is for visitors alone"
