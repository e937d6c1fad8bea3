"""The page in a real browser: an image is composed, made, watched and found, on a wide screen and on a narrow one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route, expect

from tests.support.browser import chromium, tab
from tests.support.front import PACKAGES
from tests.support.servers import Server, nixfront

SIZES = [
    pytest.param(1280, False, "slow", id="wide"),
    pytest.param(390, True, "slow/alpha", id="narrow and dark"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """nixfront as installed, on the tests' packages, with one image made and one that failed."""
    folder = tmp_path_factory.mktemp("page")
    sandbox = "substituters =\nsandbox = true\nextra-sandbox-paths = /bin /usr /lib /lib64\n"
    settings = {
        "packages": {"kind": "path", "path": str(PACKAGES)},
        "nix": {"store": str(folder / "store")},
        "builds": {"grace_seconds": 0},  # one of them never ends
    }
    async with nixfront(folder, settings=settings, env={"NIX_CONFIG": sandbox}) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("width", "dark", "image"), SIZES)
async def test_compose_make_watch_and_find(
    host: Server, browser: Browser, tmp_path: Path, width: int, dark: bool, image: str
) -> None:
    async with tab(browser, width, dark=dark) as opened:
        page = opened.page

        async def looked(name: str) -> None:
            picture = await page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
            assert len(picture) > 10_000, "something is to be seen"
            assert await opened.overflow() <= 0, f"{name} is wider than the window"
            assert await opened.unnamed() == [], name

        await page.goto(host.url)
        await looked("overview")
        names = page.get_by_role("combobox", name="Packages")
        await names.press_sequentially("slo", delay=20)
        await expect(page.get_by_role("option", name="slow", exact=True)).to_be_visible()
        await names.press("ArrowDown")
        await names.press("Enter")
        await expect(names).to_have_value("slow ")
        await names.fill(image.replace("/", " "))
        await names.press("Enter")
        await expect(page.locator("#composed").get_by_text("slow-1.0")).to_be_visible()
        await expect(page.get_by_text(f"docker pull {host.host}/{image}", exact=True)).to_be_visible()
        await looked("composed")

        await page.get_by_role("button", name="Make it now").click()
        await page.wait_for_url("**/builds/*")
        await expect(page.get_by_role("heading", level=1)).to_have_text(f"Build of {image}")
        await expect(page.locator(".badge")).to_have_text("made")
        await expect(page.get_by_text("docker pull")).to_be_visible()
        await looked("build")

        await page.get_by_role("link", name="Images").click()
        await page.get_by_role("link", name=image, exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(image)
        await expect(page.get_by_role("cell", name="slow-1.0", exact=True)).to_be_visible()
        await looked("image")
    assert opened.complaints == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("width", "dark"), [size.values[:2] for size in SIZES], ids=[size.id for size in SIZES]
)
async def test_a_build_is_watched_and_its_log_read(
    host: Server, browser: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    """It never ends, so that what is live is there to be seen; the second who wants it finds it under way and joins it."""
    async with tab(browser, width, dark=dark) as opened, tab(browser, width, dark=dark) as other:
        page = opened.page
        await page.goto(host.url)
        async with page.expect_response("**/suggest?*") as answer:
            await page.get_by_role("combobox", name="Packages").fill("endless")
        await (await answer.value).finished()
        await expect(page.locator("#said")).to_have_text("1 name fits")
        assert not await page.locator("#names-list").is_visible(), "the name that is there already"
        await page.get_by_role("button", name="Look it up").click()
        await page.get_by_role("button", name="Make it now").click()
        await page.wait_for_url("**/builds/*")
        await expect(page.locator(".badge")).to_have_text("running")
        await expect(page.locator("#log")).to_contain_text("this is how far it came")
        passed = await page.locator(".phase .quiet").inner_text()
        await expect(page.locator(".phase .quiet")).not_to_have_text(passed)
        await page.screenshot(path=tmp_path / "running.png", full_page=True)
        assert await opened.overflow() <= 0

        await other.page.goto(host.url)
        await expect(other.page.locator("li.running")).to_contain_text("endless-1.0")
        await other.page.screenshot(path=tmp_path / "list.png", full_page=True)
        assert await other.overflow() <= 0

        assert opened.complaints == other.complaints == []
        await page.get_by_role("link", name="as text").click()
        await expect(page.locator("body")).to_contain_text("this is how far it came")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_failure_says_why_where_it_was_begun(host: Server, browser: Browser) -> None:
    async with tab(browser, 390) as opened:
        await opened.page.goto(f"{host.url}/compose?names=needsbroken")
        await opened.page.get_by_role("button", name="Make it now").click()
        await expect(opened.page.get_by_text("this is how it failed").first).to_be_visible()
        await opened.page.goto(host.url)
        await expect(opened.page.locator("tr.failed").first).to_contain_text("building needsbroken failed")
        assert await opened.overflow() <= 0


@pytest.mark.asyncio(loop_scope="module")
async def test_the_essentials_need_no_scripts(host: Server, browser: Browser) -> None:
    async with tab(browser, 390, scripts=False) as opened:
        page = opened.page
        await page.goto(host.url)
        await expect(page.get_by_role("heading", name="Builds")).to_be_visible()
        await page.get_by_label("Packages", exact=True).fill("hello")
        await page.get_by_role("button", name="Look it up").click()
        await expect(page.get_by_text("Says hello")).to_be_visible()
        await expect(page.get_by_text(f"docker pull {host.host}/hello", exact=True)).to_be_visible()
        assert await page.locator("button.copy:visible").count() == 0, "what cannot work is not shown"


@pytest.mark.asyncio(loop_scope="module")
async def test_the_keyboard_is_enough(host: Server, browser: Browser) -> None:
    async with tab(browser, 1280) as opened:
        page = opened.page
        await page.goto(host.url)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        await page.get_by_role("combobox", name="Packages").focus()
        await page.keyboard.type("hel")
        await expect(page.get_by_role("listbox")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("listbox")).to_be_hidden()
        await page.keyboard.type("lo")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Says hello")).to_be_visible()


@pytest.mark.asyncio(loop_scope="module")
async def test_names_that_come_late_open_no_list(host: Server, browser: Browser) -> None:
    asked, released = asyncio.Event(), asyncio.Event()

    async def late(route: Route) -> None:
        asked.set()
        await released.wait()
        await route.continue_()

    async with tab(browser, 1280) as opened:
        page = opened.page
        await page.route("**/suggest?*", late)
        await page.goto(host.url)
        await page.get_by_role("combobox", name="Packages").press_sequentially("hello")
        await asked.wait()
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Says hello")).to_be_visible()
        async with page.expect_response("**/suggest?*") as answer:
            released.set()
        await (await answer.value).finished()
        await page.evaluate("fetch('/status.json').then((answer) => answer.text())")
        assert not await page.locator("#names-list").is_visible(), "over what was looked up"
