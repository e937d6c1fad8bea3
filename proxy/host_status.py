"""What a nixfront that runs says of itself, asked over HTTP: for `nixfront status`."""

import ssl
from typing import Any

import aiohttp

from proxy.errors import RegistryUnavailable

_TIMEOUT = aiohttp.ClientTimeout(total=15)


async def status(front: str, watching: str) -> dict[str, Any]:
    """Whether the nixfront at the origin `front` is ready (asked at `watching`), and what it builds and built.

    Its certificate is not checked: it is asked at an address of this host, which no certificate names. `builds` is None
    where it has no page, or not for us. Raises `RegistryUnavailable` where none answers.
    """
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    try:
        async with aiohttp.ClientSession(
            timeout=_TIMEOUT, connector=aiohttp.TCPConnector(ssl=trusting)
        ) as session:
            async with session.get(f"{watching}/readyz") as answer:
                ready, told = answer.status == 200, (await answer.text()).strip().splitlines()
            async with session.get(f"{front}/status.json") as answer:
                page = await answer.json() if answer.status == 200 else {}
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise RegistryUnavailable(f"no nixfront answers at {front}: {error}") from error
    return {
        "ready": ready,
        "problems": [] if ready else told,
        "version": page.get("version"),
        "builds": page.get("builds"),
    }
