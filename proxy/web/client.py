"""The client of a request: its address, and the name and scheme by which it calls nixfront.

Pure. `X-Forwarded-*` headers count only when they come from a web server that the operator trusts, and the registry never
gets them: `Client.headers` makes them anew, so that the registry's absolute addresses name what the client sees.

`Networks` decides who may see what is not for everybody. A web server in front names its client in a header, and a client
can put anything there too. So each address of the request has to be in the networks: the connection's own, and all that
the headers name. A forged address can only take rights away.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal

from proxy.core import foreign

#: What web servers in front say about a request.
FORWARDING = frozenset(
    {"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip"}
)
#: Among networks: every address.
EVERYBODY: Literal["*"] = "*"
_MOST_ADDRESSES = 4096
Network = IPv4Network | IPv6Network


class Networks:
    """Some networks, and the addresses in them."""

    def __init__(self, networks: Iterable[Network | Literal["*"]] = ()) -> None:
        """`*` among the networks stands for all of them."""
        listed = tuple(networks)
        self._everybody = EVERYBODY in listed
        self._networks = tuple(network for network in listed if network != EVERYBODY)

    def __bool__(self) -> bool:
        """Whether there is any network."""
        return self._everybody or bool(self._networks)

    def contain(self, address: str) -> bool:
        """Whether the address is in one of the networks; a text that is no address is in none."""
        if self._everybody:
            return True
        if not self._networks:
            return False
        parsed = _address(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def contain_every_hop(self, peer: str | None, headers: Mapping[str, str]) -> bool:
        """Whether a request from address `peer` with these headers came through these networks alone."""
        if self._everybody:
            return True
        forwarding = _forwarding(headers.items())
        hops = (peer or "", *_listed(forwarding, "x-forwarded-for"), *_listed(forwarding, "x-real-ip"))
        # `Forwarded` has a grammar of its own, and no web server sends it alone: an address in it counts as a stranger's.
        return "forwarded" not in forwarding and all(self.contain(hop) for hop in hops)


NO_NETWORKS = Networks()


@dataclass(frozen=True, slots=True)
class Client:
    """Who sent a request: `host` is nixfront's name as the client has it, `chain` the addresses on the way, its own first."""

    address: str
    scheme: str
    host: str
    chain: tuple[str, ...]

    def headers(self) -> list[tuple[str, str]]:
        """What the registry gets to read about the client."""
        pairs = [
            ("X-Forwarded-For", ", ".join(self.chain)),
            ("X-Forwarded-Host", self.host),
            ("X-Forwarded-Proto", self.scheme),
        ]
        return [(name, value) for name, value in pairs if value]


def client(
    pairs: Iterable[tuple[str, str]],
    peer: str,
    scheme: str,
    trusted: Networks = NO_NETWORKS,
    authority: str = "",
) -> Client:
    """The client of a request with these headers that came from address `peer`.

    Its address is the last one in the chain that is not in a `trusted` network. `authority` is that of a request line
    that holds a whole URL, and counts for more than `Host` (RFC 9112, section 3.2.2).
    """
    headers = list(pairs)
    host = authority or next((value for name, value in headers if name.lower() == "host"), "")
    if not trusted.contain(peer):
        return Client(_plain(peer), scheme, host, (peer,) if peer else ())
    forwarding = _forwarding(headers)
    chain = (*_listed(forwarding, "x-forwarded-for"), peer)
    address = next((hop for hop in reversed(chain) if not trusted.contain(hop)), chain[0])
    # Each web server adds its value behind the others: the first is that of the one nearest to the client.
    proto = _first(forwarding, "x-forwarded-proto").lower()
    return Client(
        _plain(address),
        proto if proto in ("http", "https") else scheme,
        _first(forwarding, "x-forwarded-host") or host,
        chain,
    )


def user(authorizations: Sequence[str]) -> str:
    """The user whom a request names in its `Authorization`, empty where it names none.

    Basic (RFC 7617), or a token that is a JWT (RFC 7519): its `sub`. Nothing is verified here: the name counts only after
    a registry, which checks the password or the signature, has answered this very request.
    """
    if len(authorizations) != 1:
        return ""
    scheme, _, rest = authorizations[0].strip().partition(" ")
    try:
        if scheme.lower() == "basic":
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[0]
        if scheme.lower() == "bearer":
            _, payload, _ = rest.strip().split(".")
            subject = foreign.parse(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]
            return subject if isinstance(subject, str) else ""
    except (ValueError, KeyError, TypeError):  # a token of another kind names nobody
        pass
    return ""


def _forwarding(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The headers of web servers in front, by lowercase name: the values of all lines."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        if (lower := name.lower()) in FORWARDING:
            values.setdefault(lower, []).append(value)
    return values


def _listed(forwarding: Mapping[str, Sequence[str]], name: str) -> list[str]:
    """The values of a header that is a list, from all its lines; empty ones are none (RFC 9110, section 5.6.1)."""
    parts = [part.strip() for line in forwarding.get(name, ()) for part in line.split(",")]
    return [part for part in parts if part]


def _first(forwarding: Mapping[str, Sequence[str]], name: str) -> str:
    return forwarding.get(name, [""])[0].partition(",")[0].strip()


@lru_cache(_MOST_ADDRESSES)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address, an IPv4 one also where it is written as IPv6, with or without a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _plain(text: str) -> str:
    """The address in its one spelling; a text that is no address stays as it is."""
    return str(_address(text) or text)
