"""Which headers of a message go on to the other side. Pure: pairs in, pairs out, order and case kept."""

from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit, urlunsplit

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
#: What web servers in front say about a request: made anew for the registry, by `forwarding`.
FORWARDING = frozenset(
    {"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip"}
)
# `Host` is made anew too: our client writes the registry's.
_CLIENT_ONLY = frozenset({"host"}) | FORWARDING


def forward(pairs: Pairs) -> list[tuple[str, str]]:
    """The headers of a client's request that the registry gets, all lines of each (docker sends many `Accept`)."""
    return [pair for pair in _without(pairs, _HOP_BY_HOP | _CLIENT_ONLY) if not waits([pair])]


def waits(pairs: Pairs) -> bool:
    """Whether the client waits for a 100 before it sends its body."""
    return any(name.lower() == "expect" and value.lower() == "100-continue" for name, value in pairs)


def backward(pairs: Pairs) -> list[tuple[str, str]]:
    """The headers of the registry's response that the client gets."""
    return _without(pairs, _HOP_BY_HOP)


def local_location(location: str, registry: str) -> str:
    """A `Location` of the registry as the client must see it, so that an upload comes back through us.

    One on the registry (an origin, `http://host:port`) becomes relative, which is right whatever name and scheme
    the client has for us. Relative ones, and those of other hosts, stay as they are.
    """
    try:
        parts = urlsplit(location)
        if not parts.netloc or _authority(parts) != _authority(urlsplit(registry)):
            return location
    except ValueError:  # no URL: what the registry said is what the client gets
        return location
    return urlunsplit(("", "", parts.path or "/", parts.query, parts.fragment))


def _authority(parts: SplitResult) -> tuple[str | None, int | None]:
    """Host and port, the scheme's own where none is given. Raises `ValueError`."""
    return parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


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
