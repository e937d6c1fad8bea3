"""Which headers of a message go on to the other side. Pure: pairs in, pairs out, order and case kept."""

from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit

Pairs = Iterable[tuple[str, str]]

# RFC 9110, section 7.6.1, and the ones it names as historically sent hop by hop.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# `Host` is made anew for the registry; `Expect` has been answered by our own server.
_CLIENT_ONLY = frozenset({"host", "expect"})


def forward(pairs: Pairs) -> list[tuple[str, str]]:
    """The headers of a client's request that the registry gets, all lines of each (docker sends many `Accept`)."""
    return _without(pairs, _HOP_BY_HOP | _CLIENT_ONLY)


def backward(pairs: Pairs) -> list[tuple[str, str]]:
    """The headers of the registry's response that the client gets."""
    return _without(pairs, _HOP_BY_HOP)


def local_location(location: str, registry: str, here: str) -> str:
    """A `Location` of the registry as the client must see it, so that an upload comes back through us.

    `registry` and `here` are origins (`http://host:port`). Relative ones, and those of other hosts, stay as they are.
    """
    base = urlsplit(registry)
    try:
        parts = urlsplit(location)
    except ValueError:  # no URL: what the registry said is what the client gets
        return location
    if not parts.netloc or parts.netloc.lower() != base.netloc.lower():
        return location
    mine = urlsplit(here)
    return urlunsplit((mine.scheme, mine.netloc, parts.path, parts.query, parts.fragment))


def _without(pairs: Pairs, dropped: frozenset[str]) -> list[tuple[str, str]]:
    """The pairs less `dropped` and less what `Connection` itself names (RFC 9110, section 7.6.1)."""
    kept = list(pairs)
    named = {
        token.strip().lower()
        for name, value in kept
        if name.lower() == "connection"
        for token in value.split(",")
    }
    gone = dropped | named
    return [(name, value) for name, value in kept if name.lower() not in gone]
