"""A real Chromium, driven by Playwright: Debian's program, the driver from PyPI."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, async_playwright, expect

from tests.support.processes import program

#: A name of this host that is none of nixfront's, as a site of another person has.
ATTACKER = "attacker.example"
_FLAGS = (
    f"--host-resolver-rules=MAP {ATTACKER} 127.0.0.1",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_PATIENCE = 120_000.0  # milliseconds: a busy machine is no failure
_MOST_TABS = 80
_AXE = Axe()
expect.set_options(timeout=_PATIENCE)


@dataclass(frozen=True, slots=True)
class Tab:
    """A page of the browser, and what it complained of: errors of scripts, and what the security policy refused."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    async def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        wide: int = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return wide

    async def unfit(self, *rules: str) -> list[str]:
        """What axe-core says against this page, as the rule and the markup; by these of its rules alone, if any are named."""
        chosen = {"options": {"runOnly": list(rules)}} if rules else {}
        result = await _AXE.run(self.page, **chosen)
        return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in result.response["violations"]]

    async def tab_to(self, place: Locator) -> None:
        """Press Tab until the focus is there."""
        for _ in range(_MOST_TABS):
            if await place.evaluate("(element) => element === document.activeElement"):
                return
            await self.page.keyboard.press("Tab")
        raise AssertionError(f"the keyboard does not lead to {place}")


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser, for as long as the context lasts."""
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=program("chromium"), args=list(_FLAGS))
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def tab(
    browser: Browser, width: int, *, dark: bool = False, scripts: bool = True
) -> AsyncIterator[Tab]:
    """A window of this width, in CSS pixels."""
    context = await browser.new_context(
        viewport={"width": width, "height": 844},
        color_scheme="dark" if dark else "light",
        java_script_enabled=scripts,
        locale="en-GB",
    )
    context.set_default_timeout(_PATIENCE)
    page = await context.new_page()
    opened = Tab(page)

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error":
            opened.complaints.append(f"{message.text} ({message.location['url']})")

    page.on("console", heard)
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    try:
        yield opened
    finally:
        await context.close()
