"""The page, asked as a browser asks: who may see it, what it starts (nothing), what it says, and that it is escaped."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest

from proxy import cli
from proxy.state import pulls
from proxy.web.page import image_list
from tests.support import handmade
from tests.support.front import Front
from tests.support.servers import Server
from tests.support.shim import Rule, Status, shim
from tests.support.wait import PATIENCE, Gate, until

pytestmark = pytest.mark.usefixtures("documents_are_valid")

Start = Callable[..., AbstractAsyncContextManager[Front]]
READ = (
    "/packages",  # starts Nix where the names are not known yet
    "/",
    "/builds",
    "/images",
    "/compose",
    "/status.json",
    "/events",
    "/static/style.css",
    "/static/page.js",
)
HTML = {"Accept": "text/html,application/xhtml+xml"}
FOLLOWED = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
MARKUP = "<script>alert(1)</script>"


async def text(front: Front, path: str) -> str:
    status, headers, body = await front.get(path)
    assert status == 200, (path, body[:300])
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    return body.decode()


async def builds(front: Front) -> list[dict[str, object]]:
    return list(json.loads((await front.get("/status.json"))[2])["builds"])


async def test_reading_starts_no_nix(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        image = await front.pull("hello")
        (build,) = await builds(front)
        starts = front.nix_starts()
        for path in (
            *READ[1:],
            f"/builds/{build['id']}",
            f"/builds/{build['id']}/log",
            f"/images/{image.digest}/hello",
        ):
            if path != "/events":
                assert (await front.get(path))[0] == 200, path

        assert front.nix_starts() == starts


async def test_it_is_never_passed_on(start: Start, registry: Server) -> None:
    async with shim(registry.url) as relay, start(relay.url) as front:
        before = sum(relay.counts.values())
        for path in ("/static/style.css", "/status.json", "/builds/none", "/suggest?q="):
            await front.get(path)

        assert sum(relay.counts.values()) == before


async def test_it_shows_what_was_made_and_what_failed(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        assert "The registry has no images yet" in await text(front, "/"), "and this list is cached"
        image = await front.pull("shell/hello")
        await front.pull("alpha")
        await front.get("/v2/needsbroken/manifests/latest")
        whole = await text(front, "/")
        shown = await text(front, f"/images/{image.digest}/shell/hello")
        failed = next(build for build in await builds(front) if build["state"] == "failed")
        reason = await text(front, f"/builds/{failed['id']}")
        log = await text(front, f"/builds/{failed['id']}/log")

    assert "docker run --rm -it " in whole
    for name in ("shell/hello", "alpha", "needsbroken"):
        assert name in whole
    assert "builder for" in whole, "the reason of the failure"
    assert f"{len(image.layers)} layers" in shown
    assert "in 2 images" in shown, "common and cacert are in alpha too"
    assert "common-1.0" in shown
    assert "this is how it failed" in reason
    assert "this is how it failed" in log


async def test_the_composer_says_what_an_image_would_be(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        before = await text(front, "/compose?names=shell+hello")
        part = await text(front, "/compose?part=1&names=hello,alpha")
        wrong = await text(front, "/compose?part=1&names=helo")
        assert await builds(front) == [], "looking up builds nothing"
        await front.pull("shell/hello")
        after = await text(front, "/compose?names=shell+hello")

    assert "Says hello" in before
    assert "MIT" in before
    assert "/shell/hello" in before
    assert "Make it now" in before
    assert part.startswith("<ul")
    assert "did you mean hello?" in wrong
    assert "Make it now" not in after
    assert re.search(r"(\d+) of (\d+), \S+ kB packed", after), "every layer but the root is known"


async def test_names_are_completed_from_the_set(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        async with asyncio.timeout(60):
            while (found := json.loads(await text(front, "/suggest?q=shell")))["later"]:
                await asyncio.sleep(0.1)
        nothing = json.loads(await text(front, "/suggest?q=&set="))
        elsewhere = json.loads(await text(front, "/suggest?q=hello&set=nosuch"))

    assert [each["pull"] for each in found["names"]] == ["shell", "haskellpackages.shellcheck"]
    assert nothing["names"] == elsewhere["names"] == []


async def test_a_package_is_found_and_has_a_page(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        link = 'href="/packages/haskellpackages.shellcheck"'
        await until(lambda: is_there(front, "/packages?q=shellcheck", link))
        every = await text(front, "/packages")
        nothing = await text(front, "/packages?q=nosuch")
        mistyped = await text(front, "/packages?q=helo")
        before = await text(front, "/packages/hello")
        assert await builds(front) == []
        await front.pull("hello")
        after = await text(front, "/packages/hello")
        named = await front.get("/packages/helo")
        linked = await front.get("/packages/alpha", headers=FOLLOWED)

    assert "page 1 of " in every
    assert 'href="/packages?page=2"' in every
    assert "nosuch" in nothing
    assert "Did you mean" not in nothing
    assert 'Did you mean <a href="/packages/hello">hello</a>' in mistyped
    for words in ("Says hello", "MIT", "version 1.0", "Make it now", "kind: Pod", "COPY --from="):
        assert words in before
    assert '<a href="https://example.org/hello" rel="noreferrer nofollow">Homepage</a>' in before
    assert "common-1.0" in after
    assert "Make it now" not in after
    assert named[0] == 404
    assert "did you mean hello?" in named[2].decode()
    assert linked[0] == 200
    assert "Look at alpha" in linked[2].decode(), "another web site has nobody evaluate"


async def test_the_button_builds_and_leads_to_the_build(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        answers = [await press(front, name) for name in ("hello", "hello", "needsbroken", "helo", "//")]
        shown = await text(front, answers[0][1]["Location"])

    assert [answer[0] for answer in answers] == [303, 303, 303, 303, 404]
    assert answers[0][1]["Location"] == answers[1][1]["Location"], "one build, and then its image is there"
    assert "Build of hello" in shown
    assert "<dt>Wanted by</dt><dd>127.0.0.1</dd>" in shown


async def test_a_failure_of_earlier_is_no_answer_to_the_button(start: Start, registry: Server) -> None:
    made = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
    async with start(registry.url, builds={"failure_seconds": 0}) as front:
        failed = await press(front, "needsbroken")
        await until(lambda: is_there(front, failed[1]["Location"], "Why it failed"))
        digest = await handmade.push(registry.url, "needsbroken", "latest", made)
        await until(lambda: is_there(front, "/images", digest))
        there = await press(front, "needsbroken")

    assert failed[1]["Location"].startswith("/builds/")
    assert there[1]["Location"] == f"/images/{digest}/needsbroken"


async def test_a_broken_form_is_the_mistake_of_who_sent_it(start: Start, registry: Server) -> None:
    of_parts = "multipart/form-data"  # the boundary is missing
    async with start(registry.url) as front:
        answers = [
            await front.get("/make", "POST", data=b"repository=hello", headers={"Content-Type": kind})
            for kind in (of_parts, "application/x-www-form-urlencoded; charset=nosuch")
        ]

    assert [answer[0] for answer in answers] == [400, 400]
    assert all("<h1>This form is broken</h1>" in answer[2].decode() for answer in answers)


async def test_the_button_obeys_the_rules_of_a_pull(start: Start, registry: Server) -> None:
    rules = {"repositories": ("alpha", "be*"), "builds_per_minute": 1}
    async with start(registry.url, access=rules) as front:
        elsewhere = [
            await press(front, "alpha", {"Sec-Fetch-Site": "cross-site"}),
            await press(front, "alpha", {"Origin": "http://attacker.example"}),
            await front.get("/make"),
        ]
        assert await builds(front) == []
        await until(lambda: is_there(front, "/packages?q=beta", 'href="/packages/beta"'))
        offers = [await text(front, path) for path in ("/packages?q=hello", "/suggest?q=hello")]
        denied = await press(front, "hello")
        first = await press(front, "alpha")
        second = await press(front, "beta")

    assert [answer[0] for answer in elsewhere[:2]] == [403, 403]
    assert elsewhere[2][0] in (404, 405)
    assert (denied[0], first[0], second[0]) == (404, 303, 429)
    assert 'href="/packages/hello"' not in offers[0], "no list offers what this host does not make"
    assert json.loads(offers[1])["names"] == []
    assert "access.repositories" in denied[2].decode()
    assert "access.builds_per_minute" in second[2].decode()
    assert 0 < int(second[1]["Retry-After"]) <= 60


async def test_a_mistake_is_no_failed_build_and_builds_have_filters(start: Start, registry: Server) -> None:
    async with start(registry.url, image={"index": True}) as front:
        for name in ("hello", "helo", "unfree", "needsbroken"):
            await front.get(f"/v2/{name}/manifests/latest")
        ended = await builds(front)
        states = {build["repository"]: build["state"] for build in ended}
        mistake = await text(
            front, f"/builds/{next(each['id'] for each in ended if each['state'] == 'not found')}"
        )
        failure = await text(
            front, f"/builds/{next(each['id'] for each in ended if each['state'] == 'failed')}"
        )
        overview = await text(front, "/")
        lists = {
            state: await text(front, f"/builds?state={state}")
            for state in ("made", "failed", "refused", "not+found")
        }
        named = await text(front, "/builds?q=hel")
        none = await text(front, "/builds?q=hel&state=failed")

    assert states == {"hello": "made", "helo": "not found", "unfree": "refused", "needsbroken": "failed"}
    assert mistake.count("no package helo") == 1, "it is not there again for each platform"
    assert '<p><a href="/packages">Search the packages</a></p>' in mistake
    assert '<a href="/packages/needsbroken">Look at needsbroken</a>' in failure
    assert "helo<" not in overview
    for state, name in zip(lists, ("hello", "needsbroken", "unfree", "helo"), strict=True):
        assert f">{name}<" in lists[state]
        assert lists[state].count("<tr class=") == 1
        assert "No build is running now." not in lists[state], "nobody asks for those that run"
    assert "No build fits this filter." in none
    assert "No build is running now." in named
    assert ">hello<" in named
    assert ">unfree<" not in named


async def test_images_say_where_they_come_from_and_what_they_share(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        alpha = await front.pull("alpha")
        await front.pull("beta")
        made = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
        await handmade.push(registry.url, "team/app", "v1", made)
        await until(lambda: is_there(front, "/images?from=pushed", ">team/app<"))
        ours = await text(front, "/images?from=ours&sort=age")
        shown = await text(front, f"/images/{alpha.digest}/alpha")
        overview = await text(front, "/")

    assert ">team/app<" not in ours
    assert ours.index(">beta<") < ours.index(">alpha<"), "the newest first"
    assert "never pulled" in ours
    assert re.search(r'data-label="Also in"><a href="/images/sha256:[0-9a-f]{64}/beta">beta</a>', shown)
    assert '<a href="/packages/alpha">what this name gives today</a>' in shown
    assert re.search(r"<dt>Tags that never move</dt><dd><code>contents-[0-9a-f]{12}", shown)
    assert re.search(r"<b>[1-9]\d*</b> <span class=\"quiet\">manifests sent to clients", overview)
    assert re.search(r"<b>2</b> <span class=\"quiet\">builds", overview)


async def is_there(front: Front, path: str, words: str) -> bool:
    return words in await text(front, path)


async def test_images_say_how_often_they_were_pulled(
    start: Start, registry: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls, "_EVERY", 0.05)
    monkeypatch.setattr(image_list, "_FRESH", 0.0)
    async with start(registry.url) as front:
        for _ in range(3):  # a build, and answers from the cache of answers
            assert (await front.get("/v2/hello/manifests/latest"))[0] == 200
        assert (await front.get("/v2/hello/manifests/latest", "HEAD"))[0] == 200
        await until(lambda: is_there(front, "/images?sort=pulls", "3 pulls, the last "))
        assert "<dt>Pulls</dt><dd>3</dd>" in await text(front, "/packages/hello")


async def test_the_colours_are_those_that_a_visitor_chose(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        for value, shown in (("dark", True), ("light", True), ('"><b>', False), ("", False)):
            _, _, body = await front.get("/builds", headers={"Cookie": f"nixfront-colours={value}"})
            assert (f'data-colours="{value}"' in body.decode()) == shown
            assert ("data-colours" in body.decode()) == shown


async def test_a_link_to_nowhere_leads_to_a_page(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        person = await front.get("/nosuch", headers=HTML)
        program = await front.get("/nosuch")
        stranger = await front.get("/nosuch", headers={**HTML, "X-Forwarded-For": "203.0.113.5"})
        api = await front.get("/v2/nosuch", headers=HTML)

    assert [answer[0] for answer in (person, program, stranger, api)] == [404] * 4
    assert '<html lang="en">' in person[2].decode()
    assert "<title>Not here" in person[2].decode()
    assert all(b"<title>Not here" not in answer[2] for answer in (program, stranger, api)), (
        "the registry's own"
    )


async def press(
    front: Front, repository: str, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """The answer to the button "Make it now"."""
    return await front.get("/make", "POST", data={"repository": repository}, headers=headers)


async def test_only_its_visitors_see_it(start: Start, registry: Server) -> None:
    stranger = {"X-Forwarded-For": "203.0.113.5"}
    async with start(registry.url) as front:
        await front.get("/v2/broken/manifests/latest")
        (build,) = await builds(front)
        paths = (*READ, f"/builds/{build['id']}", f"/builds/{build['id']}/log")
        statuses = {path: (await front.get(path, headers=stranger))[0] for path in paths}
        api = await front.get("/v2/", headers=stranger)

    assert set(statuses.values()) == {403}
    assert api[0] == 200


async def test_logs_can_be_for_fewer(start: Start, registry: Server) -> None:
    async with start(registry.url, page={"networks": ("*",), "log_networks": ()}) as front:
        await front.get("/v2/broken/manifests/latest")
        (build,) = await builds(front)
        shown = await text(front, f"/builds/{build['id']}")
        log = await front.get(f"/builds/{build['id']}/log")

    assert "page.log_networks" in shown
    assert build["client"] == "", "nor whose it was"
    assert "Wanted by" not in shown
    assert "building &#39;/nix/store" not in shown.split("Log</h2>")[1]
    assert log[0] == 403


async def test_without_a_page_the_registry_answers(start: Start, registry: Server) -> None:
    async with start(registry.url, page={"enabled": False}) as front:
        status, headers, body = await front.get("/")

    assert (status, body) == (200, b""), "what the stock registry says"
    assert "Content-Security-Policy" not in headers


async def test_everything_is_escaped(start: Start, registry: Server, tmp_path: Path) -> None:
    own = tmp_path / "set"
    own.mkdir()
    (own / "default.nix").write_text(
        f"""{{ system, ... }}: {{
          evil = (derivation {{ name = "evil"; inherit system; builder = "/bin/sh";
            args = [ "-c" "echo '{MARKUP}' >&2; exit 1" ]; }}) // {{ meta.description = "{MARKUP}"; }};
        }}""",
        encoding="utf-8",
    )
    async with start(registry.url, packages={"path": str(own)}) as front:
        await front.get("/v2/evil/manifests/latest")
        (build,) = await builds(front)
        pages = [
            await text(front, path)
            for path in ("/", f"/builds/{build['id']}", "/compose?names=evil", f"/compose?names={MARKUP}")
        ]

    assert all(MARKUP not in page for page in pages)
    assert sum("&lt;script&gt;" in page for page in pages) >= 3


async def test_a_registry_that_is_away_is_said(start: Start, registry: Server) -> None:
    rule = Rule("GET", r"/v2/_catalog", Status(503), times=100)
    async with shim(registry.url, rule) as relay, start(relay.url) as front:
        assert "The registry cannot list its images" in await text(front, "/")
        assert "The registry cannot list its images" in await text(front, "/images")


async def events(front: Front, path: str, last: str, said: list[str] | None = None) -> str:
    """What a stream says, up to an event; `said` gets it as it comes."""
    said = [] if said is None else said
    async with aiohttp.ClientSession() as session, session.get(front.url + path) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        async with asyncio.timeout(PATIENCE):
            while last not in "".join(said) and not answer.content.at_eof():
                said.append((await answer.content.readany()).decode())
    return "".join(said)


async def test_a_build_can_be_watched(start: Start, registry: Server, gate: Gate) -> None:
    async with start(registry.url) as front:
        pull = asyncio.create_task(front.pull("gated"))
        await until(lambda: builds(front))
        (build,) = await builds(front)
        path = f"/builds/{build['id']}/events?seen=0"
        assert "gated" in await events(front, "/events", "gated")
        await events(front, path, "event: state")
        gate.open()
        said = await events(front, path, "event: ended")
        await pull

    assert "gated-1.0.drv" in said
    assert "event: lines" in said
    assert said.rstrip().endswith("data: made")


async def test_streams_end_when_nixfront_does(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        said: list[str] = []
        watching = asyncio.create_task(events(front, "/events", "never", said))
        await until(lambda: "event: builds" in "".join(said))

    assert "event: builds" in await watching, "and its last word came: nobody had to break the connection"


async def test_what_was_is_known_after_a_restart(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        assert (await front.get("/v2/hello/manifests/latest"))[0] == 200
        before = await builds(front)
    async with start(registry.url) as front:
        assert await builds(front) == before
        images = await text(front, "/images")
        assert "1 pull, the last <time" in images, "the pull that began the build counts"
        assert "page 1 of" not in images
        assert "hello" in await text(front, f"/builds/{before[0]['id']}")


@pytest.mark.parametrize(
    "path", ["/builds/nosuch", "/builds/..%2f..%2fetc", "/images/sha256:0/nosuch", "/static/..%2fpage.py"]
)
async def test_what_is_not_there_is_404(start: Start, registry: Server, path: str) -> None:
    async with start(registry.url) as front:
        assert (await front.get(path))[0] == 404


async def test_the_command_line_tells_the_same(
    start: Start, registry: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(registry.url) as front:
        await front.pull("hello")
        await front.get("/v2/broken/manifests/latest")
        monkeypatch.setenv("NIXFRONT_HTTP_ADDR", front.url.removeprefix("http://"))
        code = await asyncio.to_thread(cli.main, ["status"])
        shown = capsys.readouterr().out
        as_json = await asyncio.to_thread(cli.main, ["status", "--json"])
        document = json.loads(capsys.readouterr().out)
    away = await asyncio.to_thread(cli.main, ["status"])

    assert (code, as_json, away) == (0, 0, 1)
    assert shown.startswith("ready\n")
    assert "hello:latest" in shown
    assert "building broken failed" in shown
    assert [build["repository"] for build in document["builds"]] == ["broken", "hello"]
    assert "no nixfront answers" in capsys.readouterr().err
