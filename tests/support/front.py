"""nixfront in this process, on a package set of the tests' own: what the integration tests talk to."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from proxy import settings
from proxy.core.events import Event
from proxy.wiring import server
from tests.support.servers import stock_registry
from tests.support.validate import ValidatedImage, validate

PACKAGES = Path(__file__).parents[1] / "integration" / "packages"
E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Front:
    """A running nixfront: its origin, what it told about its builds, and where Nix's starts are counted.

    `attaches`: it attaches documents to images.
    """

    url: str
    events: list[Event]
    count: Path
    attaches: bool = True

    async def get(self, path: str, method: str = "GET", **options: Any) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one request."""
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(method, self.url + path, allow_redirects=False, **options) as answer,
        ):
            return answer.status, dict(answer.headers), await answer.read()

    async def pull(
        self,
        repository: str,
        tag: str = "latest",
        *,
        commanded: tuple[int, int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ValidatedImage:
        """The whole image with its documents, validated; `commanded` and `headers` as there."""
        return await validate(
            self.url, repository, tag, commanded=commanded, headers=headers, has_documents=self.attaches
        )

    def told(self, kind: type[E]) -> list[E]:
        """The events of this kind, in their order."""
        return [event for event in self.events if isinstance(event, kind)]

    def nix_starts(self, program: str = "") -> int:
        """How many Nix processes were started: of this program (and first argument), or in all."""
        if not self.count.exists():
            return 0
        lines = self.count.read_text(encoding="ascii").splitlines()
        return sum(line.startswith(program) for line in lines)


@asynccontextmanager
async def front(
    folder: Path, count: Path, registry_url: str, *, without_documents: str = "", **sections: Any
) -> AsyncIterator[Front]:
    """Start nixfront with data and store in `folder`; `sections` are settings, as `layers={"most": 10}`.

    Images get documents, unless a test has a reason to go `without_documents`.
    """
    sections["nix"] = {"store": str(folder / "store"), **sections.get("nix", {})}
    # On a busy host a first image may take longer than clients are simply held, and most tests are not about that.
    patient = {"patience": 60, "hop_seconds": 60, "grace_seconds": 0}
    sections["builds"] = {**patient, **sections.get("builds", {})}
    # All tests of a file are one client, whose builds nobody counts.
    sections["access"] = {"builds_per_minute": 0, **sections.get("access", {})}
    # Most tests read the manifest of a tag. What an index adds has tests of its own.
    sections["image"] = {"index": False, **sections.get("image", {})}
    sections["trust"] = {"attach": not without_documents, **sections.get("trust", {})}
    sections["packages"] = {"kind": "path", "path": str(PACKAGES), **sections.get("packages", {})}
    chosen = settings.load(
        None,
        {},
        http={"addr": "127.0.0.1:0", **sections.pop("http", {})},
        data={"dir": str(folder / "data")},
        registry={"url": registry_url, **sections.pop("registry", {})},
        **sections,
    )
    events: list[Event] = []
    async with server.serve(chosen, events.append) as url:
        yield Front(url, events, count, chosen.trust.attach)


@asynccontextmanager
async def machine(folder: Path, count: Path, **nix: object) -> AsyncIterator[Front]:
    """A machine with a store, a data folder and a registry of its own."""
    await asyncio.to_thread((folder / "registry").mkdir, parents=True)
    async with (
        stock_registry(folder / "registry") as registry,
        front(folder, count, registry.url, nix=nix) as started,
    ):
        yield started
