"""Conditions of requests for manifests (RFC 9110, section 13): nixfront decides them by the answer that this client would get.

The stock registry compares one value with the digest of the tag, before it looks at `Accept`. So it answers 304 to a client
that would have got another document, reads no list and no weak validator, and leaves the `ETag` out. Here the registry
gets no condition. Its answer has an `ETag`, and a 304 is sent only where the client's condition names that one.

The condition changes nothing in the registry's answer. So an answer from the cache serves these clients too, and a poll of
a moving tag counts as a pull.
"""

import re
from collections.abc import Iterable, Mapping

from aiohttp import hdrs, web
from multidict import MultiMapping

from proxy.telemetry.requests import path_of

#: The header of the condition, lowercase.
HEADER = "if-none-match"
#: Set where the image is ours, which goes to every client as it is stored: the answer then says `Vary: Accept`.
VARIES: web.RequestKey[bool] = web.RequestKey("varies", bool)
_READS = (hdrs.METH_GET, hdrs.METH_HEAD)
# An entity tag, or a value without quotes: older tools send the digest so, and the stock registry takes it.
_VALIDATOR = re.compile(r'(?:W/)?"([^"]*)"|([^\s",]+)')
# Of a 304, the body that it does not have.
_OF_THE_BODY = ("content-", "transfer-encoding")


def is_decided_here(request: web.Request) -> bool:
    """Whether nixfront decides the condition of this request, and the registry does not get it."""
    return request.method in _READS and path_of(request).kind == "manifest"


def is_met(request: web.Request, etag: str, digest: str) -> bool:
    """Whether the client has the representation with this `ETag` already. Without one, the digest stands for it."""
    lines = request.headers.getall(hdrs.IF_NONE_MATCH, None)
    return lines is not None and names(lines, etag, digest)


def names(lines: Iterable[str], etag: str, digest: str) -> bool:
    """Whether these lines of If-None-Match name the representation, by the weak comparison (section 8.8.3.2)."""
    wanted = ", ".join(lines)
    if wanted.strip() == "*":
        return True
    own = {digest} if digest else set()
    if validator := _VALIDATOR.fullmatch(etag.strip()):
        own.add(validator[1] or validator[2] or "")
    return any((quoted or bare) in own for quoted, bare in _VALIDATOR.findall(wanted))


def is_unchanged(request: web.Request, status: int, headers: Mapping[str, str]) -> bool:
    """Whether a 304 takes the place of this answer of the registry."""
    return (
        status == 200
        and hdrs.IF_NONE_MATCH in request.headers
        and is_decided_here(request)
        and is_met(request, headers.get(hdrs.ETAG, ""), headers.get("Docker-Content-Digest", ""))
    )


def headers_for(request: web.Request, headers: MultiMapping[str]) -> list[tuple[str, str]]:
    """These headers of the registry's answer to this request, with `Vary: Accept` where nixfront chose the type."""
    pairs = [*headers.items()]
    if request.get(VARIES) and "accept" not in headers.get(hdrs.VARY, "").lower():
        pairs.append((hdrs.VARY, hdrs.ACCEPT))
    return pairs


def without_body(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers of the 304 that takes the place of an answer with these headers: `ETag`, `Vary`, `Date` and others stay."""
    return [(name, value) for name, value in pairs if not name.lower().startswith(_OF_THE_BODY)]
