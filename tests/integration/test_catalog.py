"""The management side sees what is in the registry, past the first page."""

import warnings

import aiohttp

from proxy.registry.endpoint import Endpoint
from tests.support import handmade, stored
from tests.support.servers import Server


async def test_every_page_of_the_catalog(registry: Server) -> None:
    made = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
    names = sorted(f"team/tool-{number:03}" for number in range(103))
    for name in names:
        await handmade.push(registry.url, name, "v1", made)
    digest = await handmade.push(registry.url, names[0], "latest", made)
    async with (
        aiohttp.ClientSession() as session,
        session.delete(f"{registry.url}/v2/{names[1]}/manifests/{digest}") as deleted,
    ):
        assert deleted.status == 202
    filters = list(warnings.filters)

    found = await stored.listed(Endpoint(registry.url))

    assert sorted(found) == names
    assert found[names[0]] == ("latest", "v1")
    assert found[names[1]] == (), "its only manifest was deleted"
    assert warnings.filters == filters, "the library's silence does not outlive its import"
