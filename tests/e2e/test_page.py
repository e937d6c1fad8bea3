"""The page in a real browser: from a package to the layers of its image by keyboard alone, on a wide screen and on a narrow one.

axe-core judges each page. What a hostile package set, a hostile registry and a hostile web site try ends as text, or as a refusal.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Route, expect

from tests.support import handmade
from tests.support.browser import ATTACKER, Tab, chromium, tab
from tests.support.front import PACKAGES
from tests.support.servers import Server, nixfront, stock_registry
from tests.support.shim import Rule, Says, shim

SIZES = [pytest.param(1280, "slow", id="wide"), pytest.param(390, "slowctr", id="narrow")]
#: The rules of axe that are asked about each; none means all. What differs between the two is colours.
SCHEMES: dict[Literal["light", "dark"], tuple[str, ...]] = {"light": (), "dark": ("color-contrast",)}
#: Either runs where it is taken for markup; then `hit` is there, or the security policy complains.
MARKUP = "<img src=x onerror=hit=1><script>hit=1</script>"
TAG = "<svg/onload=hit=1>"


def hostile_set(folder: Path) -> Path:
    """A package set whose texts are markup: the name of an attribute, a description, a licence and a log."""
    folder.mkdir()
    text, named = json.dumps(MARKUP), json.dumps(f"x{MARKUP}")
    (folder / "default.nix").write_text(
        f"""{{ system, ... }}: rec {{
          evil = derivation {{ name = "evil"; inherit system; builder = "/bin/sh"; args = [ "-c" ''echo '{MARKUP}' >&2; exit 1'' ]; }}
            // {{ version = {text}; meta = {{ description = {text}; license = {{ free = true; spdxId = {text}; }}; }}; }};
          {named} = evil;
        }}""",
        encoding="utf-8",
    )
    return folder


def hostile_image() -> handmade.HandmadeImage:
    """An image whose documents hold markup where the page shows them."""

    def mark(config: dict[str, Any]) -> None:
        config["created"] = MARKUP
        config["config"]["Labels"] = {"nixfront.packages": MARKUP}
        config["history"] = [{"comment": MARKUP} for _ in config["history"]]

    return handmade.image([handmade.tar(entries) for entries in handmade.store_layers()], config=mark)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """nixfront as installed, on the tests' packages and a hostile set, before a registry that lies about one repository."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "registry").mkdir()
    async with stock_registry(folder / "registry") as registry:
        digest = await handmade.push(registry.url, "evil", "latest", hostile_image())
        lies = (
            Rule("GET", r"^/v2/evil/tags/list$", Says(json.dumps({"tags": [TAG]}).encode()), times=10**6),
            Rule(
                "HEAD", r"^/v2/evil/manifests/[^s]", Says(b"", {"Docker-Content-Digest": digest}), times=10**6
            ),
        )
        async with shim(registry.url, *lies) as relay:
            settings = {
                "registry": {"url": relay.url},
                "packages": {"kind": "path", "path": str(PACKAGES)},
                "sets": {"hostile": {"kind": "path", "path": str(hostile_set(folder / "hostile"))}},
                "nix": {"store": str(folder / "store")},
                "builds": {"grace_seconds": 0},  # one of them never ends
            }
            file = folder / "nixfront.yml"
            file.write_text(json.dumps(settings), encoding="utf-8")
            sandbox = "substituters =\nsandbox = true\nextra-sandbox-paths = /bin /usr /lib /lib64\n"
            async with nixfront(folder, args=["--config", str(file)], env={"NIX_CONFIG": sandbox}) as server:
                yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


async def look(opened: Tab, file: Path) -> None:
    """The page as it is now fits the window and pleases axe, light and dark; pictures of both get the name of `file`."""
    for scheme, rules in SCHEMES.items():
        await opened.page.emulate_media(color_scheme=scheme)
        place = file.with_stem(f"{file.stem}-{scheme}")
        picture = await opened.page.screenshot(path=place, full_page=True)
        assert len(picture) > 10_000, "something is to be seen"
        assert await opened.overflow() <= 0, f"{place.stem} is wider than the window"
        assert await opened.unfit(*rules) == [], place.stem


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("width", "name"), SIZES)
async def test_find_read_start_watch_and_look_inside_by_keyboard(
    host: Server, browser: Browser, tmp_path: Path, width: int, name: str
) -> None:
    async with tab(browser, width) as opened:
        page = opened.page

        async def follow(link: str, within: str = "body") -> None:
            await opened.tab_to(page.locator(within).get_by_role("link", name=link, exact=True))
            await page.keyboard.press("Enter")

        await page.goto(host.url)
        await look(opened, tmp_path / "overview.png")
        for before, after in (("as this device has them", "light"), ("light", "dark")):
            await opened.tab_to(page.get_by_role("button", name=f"Colours: {before}"))
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("button", name=f"Colours: {after}")).to_be_visible()
        await page.reload()
        await expect(page.locator("html")).to_have_attribute("data-colours", "dark")
        assert await opened.unfit() == [], "dark by choice"
        await page.get_by_role("button", name="Colours: dark").click()
        await page.goto(host.url)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("main")).to_be_focused()
        await page.goto(host.url)
        await follow("Packages")
        await opened.tab_to(page.get_by_role("searchbox", name="Name or description"))
        await page.keyboard.type(name)
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/packages?*")
        await expect(page.get_by_role("heading", level=2).first).to_have_text(name, ignore_case=True)
        await look(opened, tmp_path / "packages.png")

        await opened.tab_to(page.get_by_role("heading", level=2).first.get_by_role("link"))
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text(name)
        await expect(page.get_by_text(f"docker run --rm -it {host.host}/{name}", exact=True)).to_be_visible()
        await expect(page.get_by_text(f'image: "{host.host}/shell/{name}"')).to_be_visible()
        await expect(page.get_by_label("You are below").get_by_role("link", name="Packages")).to_be_visible()
        await expect(page.locator("header [aria-current]")).to_have_text("Packages")
        await look(opened, tmp_path / "package.png")

        await opened.tab_to(page.get_by_role("button", name="Make it now"))
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/builds/*")
        await expect(page.get_by_role("heading", level=1)).to_have_text(f"Build of {name}")
        await expect(page.locator(".badge")).to_have_text("made")
        await expect(page.get_by_role("rowheader", name="Nix")).to_be_visible()
        await expect(page.locator("#log")).to_contain_text("building '/nix/store/")
        await look(opened, tmp_path / "build.png")

        await opened.tab_to(page.get_by_label("Log of the build"))
        build = page.url
        await follow("as text")
        await expect(page.locator("body")).to_contain_text("building '/nix/store/")
        await page.goto(build)
        digest = page.locator(".facts a")
        await opened.tab_to(digest)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text(name)
        await expect(page.get_by_role("cell", name="slow-", exact=False).first).to_be_visible()
        await expect(page.get_by_text("this host", exact=True)).to_be_visible()
        await expect(page.get_by_text(f"{host.host}/{name}@sha256:")).to_be_visible()
        await look(opened, tmp_path / "image.png")

        await follow("Images", "header")
        await opened.tab_to(page.get_by_label("From"))
        await page.keyboard.type("made")
        await opened.tab_to(page.get_by_role("button", name="Show"))
        await page.keyboard.press("Enter")
        await page.wait_for_url("**from=ours**")
        await expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
        await expect(page.get_by_role("link", name="evil", exact=True)).to_have_count(0)
        await look(opened, tmp_path / "images.png")
        await follow("Builds", "header")
        await follow("made 1" if width == 1280 else "made 2")
        await expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
        await look(opened, tmp_path / "builds.png")
    assert opened.complaints == []


@pytest.mark.asyncio(loop_scope="module")
async def test_a_build_is_watched_and_its_log_read(host: Server, browser: Browser, tmp_path: Path) -> None:
    """It never ends, so that what is live is there to be seen; the second who wants it finds it under way and joins it."""
    async with tab(browser, 390) as opened, tab(browser, 1280, dark=True) as other:
        page = opened.page
        await page.goto(host.url)
        async with page.expect_response("**/suggest?*") as answer:
            await page.get_by_role("combobox", name="Packages").fill("endless")
        await (await answer.value).finished()
        await expect(page.locator("#said")).to_have_text("1 name fits")
        assert not await page.locator("#names-list").is_visible(), "the name that is there already"
        await page.get_by_role("button", name="Look it up").click()
        await expect(page.get_by_role("button", name="Make it now")).to_be_visible()
        await look(opened, tmp_path / "looked-up.png")
        await page.get_by_role("button", name="Make it now").click()
        await page.wait_for_url("**/builds/*")
        await expect(page.locator(".badge")).to_have_text("running")
        await expect(page.locator("#log")).to_contain_text("this is how far it came")
        passed = await page.locator(".phase .quiet").inner_text()
        await expect(page.locator(".phase .quiet")).not_to_have_text(passed)
        await page.locator("#L1 a").click()
        assert page.url.endswith("#L1")
        await look(opened, tmp_path / "running.png")

        await other.page.goto(host.url)
        await expect(other.page.locator("li.running")).to_contain_text("this is how far it came")
        await look(other, tmp_path / "list.png")
    assert opened.complaints == other.complaints == []


@pytest.mark.asyncio(loop_scope="module")
async def test_forms_and_links_need_no_scripts(host: Server, browser: Browser) -> None:
    async with tab(browser, 390, scripts=False) as opened:
        page = opened.page
        await page.goto(host.url)
        await expect(page.get_by_role("heading", name="Builds")).to_be_visible()
        await page.get_by_label("Packages", exact=True).fill("needsbroken")
        await page.get_by_role("button", name="Look it up").click()
        await expect(page.get_by_text(f"docker pull {host.host}/needsbroken", exact=True)).to_be_visible()
        assert await page.locator("button.copy:visible").count() == 0, "what cannot work is not shown"
        await page.get_by_role("button", name="Make it now").click()
        await page.wait_for_url("**/builds/*")
        failure = page.get_by_text("this is how it failed").first
        while not await failure.is_visible():
            await page.reload()
        assert await opened.overflow() <= 0
        await page.goto(host.url)
        await expect(page.locator("tr.failed").first).to_contain_text("building needsbroken failed")
        await page.get_by_role("searchbox", name="Find a package").fill("needsbroken")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/packages?q=needsbroken")
        long_name = f"{host.url}/v2/shell/haskellpackages.shellcheck/manifests/latest"
        async with aiohttp.ClientSession() as engine, engine.get(long_name) as made:
            assert made.status == 200, await made.text()
        link = page.get_by_role("link", name="shell/haskellpackages.shellcheck")
        await page.goto(f"{host.url}/images?q=haskellpackages")
        while not await link.is_visible():  # the list is some seconds old
            await page.reload()
        assert await opened.overflow() <= 0, "a long name has several lines"


@pytest.mark.asyncio(loop_scope="module")
async def test_the_combobox_by_keyboard_and_names_that_come_late(host: Server, browser: Browser) -> None:
    asked, released = asyncio.Event(), asyncio.Event()

    async def late(route: Route) -> None:
        asked.set()
        await released.wait()
        await route.continue_()

    async with tab(browser, 1280) as opened:
        page = opened.page
        await page.goto(host.url)
        names, listed = page.get_by_role("combobox", name="Packages"), page.get_by_role("listbox")
        await names.focus()
        await page.keyboard.type("hel")
        await expect(listed).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(listed).to_be_hidden()
        await names.fill("")
        await names.press_sequentially("slo", delay=20)
        await expect(page.get_by_role("option", name="slow", exact=True)).to_be_visible()
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await expect(names).to_have_value("slow ")

        await page.route("**/suggest?*", late)
        await names.fill("")
        await names.press_sequentially("hello")
        await asked.wait()
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Says hello")).to_be_visible()
        async with page.expect_response("**/suggest?*") as answer:
            released.set()
            await (await answer.value).finished()
        await page.evaluate("fetch('/status.json').then((answer) => answer.text())")
        assert not await page.locator("#names-list").is_visible(), "over what was looked up"


@pytest.mark.asyncio(loop_scope="module")
async def test_what_others_wrote_is_text(host: Server, browser: Browser, tmp_path: Path) -> None:
    async with tab(browser, 390) as opened:
        page = opened.page

        async def harmless(shown: str = MARKUP) -> None:
            await expect(page.get_by_text(shown).first).to_be_visible()
            assert await page.locator("img[src=x], svg[onload], main script").count() == 0
            assert await page.evaluate("typeof hit") == "undefined"

        await page.goto(f"{host.url}/packages?q=evil&set=hostile")
        while not await page.get_by_role("link", name="evil", exact=True).is_visible():
            await page.reload()  # the names are listed
        await harmless()
        await page.get_by_role("link", name="evil", exact=True).click()
        await harmless()
        await page.get_by_role("button", name="Make it now").click()
        await page.wait_for_url("**/builds/*")
        await expect(page.locator(".badge")).to_have_text("failed")
        await harmless()
        build = page.url
        for path in ("/", "/builds?state=failed"):
            await page.goto(host.url + path)
            await harmless("hostile/evil")
        await page.goto(build)  # a build that has ended, so that this page stays
        await harmless()
        await look(opened, tmp_path / "failed.png")
        await page.goto(host.url)
        await page.get_by_label("Package set").select_option("hostile")
        await page.get_by_role("combobox", name="Packages").press_sequentially("img")
        # Its description has the text. The attribute whose name is markup is none that a person can pull, so nobody offers it.
        await expect(page.locator("#names-list [role=option]")).to_contain_text(["evil"])
        await harmless("hostile/evil")
        await page.goto(f"{host.url}/images?q=evil")
        await page.get_by_role("link", name="evil", exact=True).click()
        await harmless()
        await harmless(TAG)
        await page.goto(f"{host.url}/{MARKUP}")
        await harmless()
        await look(opened, tmp_path / "nowhere.png")
        assert ["404" in each for each in opened.complaints] == [True], opened.complaints


ATTACK = """<!doctype html><title>attack</title><iframe name=frame></iframe>
<form method=post action="TARGET/make" target=frame><input name=repository value=alpha></form>
<form method=post action="TARGET/make" id=top><input name=repository value=alpha></form>
<script>
  const ended = (element) => new Promise((then) => { element.onload = element.onerror = then; });
  const image = new Image(), frame = document.querySelector("iframe");
  const read = (path, options) => fetch("TARGET" + path, options).then((answer) => answer.text()).catch(() => "");
  (async () => {
    const waits = [ended(image), ended(frame)];
    image.src = "TARGET/v2/alpha/manifests/latest";
    document.forms[0].submit();
    await Promise.all(waits);
    const body = new URLSearchParams({repository: "alpha"});
    const read_by_it = [await read("/status.json"), await read("/suggest?q=al"), await read("/make", {method: "POST", body}),
      await read("/make", {method: "POST", body, mode: "no-cors"}), await read("/v2/alpha/manifests/latest")];
    document.title = "read: " + read_by_it.join("");
  })();
</script>"""


@pytest.mark.asyncio(loop_scope="module")
async def test_another_web_site_builds_and_reads_nothing(host: Server, browser: Browser) -> None:
    async def page_of_the_attacker(_: web.Request) -> web.Response:
        return web.Response(text=ATTACK.replace("TARGET", host.url), content_type="text/html")

    site = web.Application()
    site.router.add_get("/", page_of_the_attacker)
    runner = web.AppRunner(site)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with tab(browser, 1280) as opened:
            page = opened.page
            await page.goto(f"http://{ATTACKER}:{runner.addresses[0][1]}/")
            await expect(page).to_have_title("read: ")
            await page.evaluate("document.getElementById('top').submit()")
            await expect(page.locator("body")).to_contain_text("may not do this")
            await page.goto(f"{host.url}/builds?q=alpha")
            await expect(page.get_by_text("No build is running now.")).to_be_visible()
            await expect(page.get_by_role("table")).to_have_count(0)
    finally:
        await runner.cleanup()
