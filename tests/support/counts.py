"""The counts of a running nixfront that have no labels: its memory, its descriptors, its tasks, its builds that wait."""

import re

import aiohttp


async def plain_counts(url: str) -> dict[str, float]:
    """Each of them by its name, from `/metrics` of the nixfront at this URL."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        text = await answer.text()
    return {name: float(value) for name, value in re.findall(r"^(\w+) ([0-9.e+]+)$", text, re.MULTILINE)}
