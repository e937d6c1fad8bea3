"""The subcommand `status`: whether the nixfront of this host is ready, and what it builds."""

import ssl
import time
from typing import Any

import aiohttp

from proxy.cli.command import Console
from proxy.cli.running import run
from proxy.core.errors import RegistryUnavailable
from proxy.registry.endpoint import Endpoint
from proxy.registry.no_answer import why
from proxy.settings import Settings
from proxy.settings.values import here
from proxy.wiring.registry import nixfront_endpoint

_TIMEOUT = aiohttp.ClientTimeout(total=15)


async def status(front: Endpoint, health: str) -> dict[str, Any]:
    """Whether the nixfront at `front` is ready, by its health at the origin `health`; and the board of builds.

    The page shows the builds that the user of `front` may pull. A question without a password goes to an address of this
    host, which no certificate names, so we check none. `builds` is None if nixfront has no page, or refuses to show it
    to us. Raises `RegistryUnavailable` if no nixfront answers.
    """
    headers = {"Authorization": front.credentials.basic()} if front.credentials.username else {}
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    try:
        async with aiohttp.ClientSession(
            timeout=_TIMEOUT, connector=aiohttp.TCPConnector(ssl=trusting)
        ) as session:
            async with session.get(f"{health}/readyz") as answer:
                ready, problems = answer.status == 200, (await answer.text()).strip().splitlines()
            async with session.get(
                f"{front.url}/status.json",
                headers=headers,
                ssl=(front.certificates or True) if headers else trusting,
            ) as answer:
                page = await answer.json() if answer.status == 200 else {}
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise RegistryUnavailable(f"no nixfront answers at {front.url}: {why(error)}") from error
    return {
        "ready": ready,
        "problems": [] if ready else problems,
        "version": page.get("version"),
        "store": page.get("store"),
        "builds": page.get("builds"),
    }


def show(settings: Settings, console: Console) -> int:
    """Ready or not, then the builds; 1 when it is not ready."""
    scheme = "https" if settings.http.certificate else "http"
    front = f"{scheme}://{here(settings.http.addr)}"
    health = f"http://{here(settings.status.addr)}" if settings.status.addr else front
    own = nixfront_endpoint(settings) if settings.registry.username else Endpoint(front)
    document = run(status(Endpoint(front, own.credentials, own.certificates), health))
    console.document(document)
    console.line("ready" if document["ready"] else "not ready", "green" if document["ready"] else "bold red")
    for problem in document["problems"]:
        console.line(f"    {problem}")
    if (store := document["store"]) and store["free_bytes"]:
        console.line(f"store: {store['store_bytes'] / 1e9:.1f} GB, {store['free_bytes'] / 1e9:.1f} GB free")
    if document["builds"] is None:
        console.line("builds: the page is off, or page.networks does not hold this address")
    elif document["builds"]:
        rows = [_row(build) for build in document["builds"]]
        console.table(("image", "state", "seconds", "machine", "what"), rows)
    return 0 if document["ready"] else 1


def _row(build: dict[str, Any]) -> tuple[str, ...]:
    took = (build["ended"] or time.time()) - build["started"]
    what = (
        build["phase"]
        if build["state"] == "running"
        else (build["error"].splitlines() or [build["digest"]])[0]
    )
    image = f"{build['repository']}:{build['tag']}"
    return image, build["state"], f"{took:.0f}", build.get("host", ""), what[:100]
