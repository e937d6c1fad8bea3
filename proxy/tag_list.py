"""`tags/list` of a name that can be built and has no tag yet: an empty list, where a registry knows no such name.

A registry's 404 would end `skopeo list-tags`, and tell a person who looks before a first pull that there is nothing to
pull. So where the registry said NAME_UNKNOWN to this client, and the name could be an image of ours, the answer is 200
with no tags. It starts no build and asks nobody anything; that it is empty keeps pages that read every tag's manifest
from starting one.
"""

import contextlib
import json

from aiohttp import ClientError, ClientResponse, hdrs, web

from proxy import names
from proxy.errors import NameInvalid
from proxy.names import Vocabulary

_LONGEST = 64 << 10  # bytes of a 404 that are read


def repository(request: web.Request, answer: ClientResponse, words: Vocabulary) -> str | None:
    """The repository whose tags were asked for, if this 404 may become an empty list."""
    if answer.status != 404 or request.method != hdrs.METH_GET:
        return None
    asked = names.tags_route(request.rel_url.raw_path)
    try:
        return asked if asked and names.parse(asked, "latest", words) else None
    except NameInvalid:
        return None


async def read(answer: ClientResponse) -> bytes:
    """The start of the answer's body: all of it if it is an error of a registry, and what came if it broke off."""
    said = b""
    with contextlib.suppress(ClientError):  # whoever reads on gets it again
        while len(said) < _LONGEST and (chunk := await answer.content.read(_LONGEST)):
            said += chunk
    return said


def unknown_name(said: bytes) -> bool:
    """Whether this is a registry's word that it knows no such repository."""
    try:
        errors = json.loads(said)["errors"]
        return [error["code"] for error in errors] == ["NAME_UNKNOWN"]
    except (ValueError, KeyError, TypeError):
        return False


def empty(name: str) -> web.Response:
    """No tags, as the stock registry writes it."""
    return web.Response(
        body=json.dumps({"name": name, "tags": []}, separators=(",", ":")).encode() + b"\n",
        content_type="application/json",
        charset="utf-8",
        headers={"Docker-Distribution-Api-Version": "registry/2.0"},
    )
