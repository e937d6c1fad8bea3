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
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

from proxy.core import foreign

#: What web servers in front say about a request.
FORWARDING = frozenset(
    {"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip"}
)
#: Among networks: every address.
EVERYBODY: Literal["*"] = "*"
_MOST_ADDRESSES = 4096
_NOBODY = "unknown"  # the word of RFC 7239, section 6.2; it is no address, so no network holds it
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
        said = forwarding(headers.items())
        return all(self.contain(hop) for hop in (peer or "", *said.chain, *said.others))


NO_NETWORKS = Networks()


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What the forwarding headers of a request say; nothing else in nixfront reads them.

    `chain`: the addresses in `X-Forwarded-For`, in their order. `others`: addresses in other headers. `hosts` and `schemes`: as
    web servers wrote them. Each web server adds its value behind the others.
    """

    chain: tuple[str, ...]
    others: tuple[str, ...]
    hosts: tuple[str, ...]
    schemes: tuple[str, ...]


def forwarding(pairs: Iterable[tuple[str, str]]) -> Forwarding:
    """The forwarding headers among these. The lines of one name are one list (RFC 9110, section 5.3).

    An element without text is the address of nobody, as is all of `Forwarded`. That header has a grammar of its own, and no web
    server sends it alone.
    """
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        if (lower := name.lower()) in FORWARDING:
            values.setdefault(lower, []).extend(part.strip() for part in value.split(","))
    others = [*values.get("x-real-ip", ()), *(_NOBODY for _ in values.get("forwarded", ()))]
    return Forwarding(
        tuple(hop or _NOBODY for hop in values.get("x-forwarded-for", ())),
        tuple(hop or _NOBODY for hop in others),
        tuple(filter(None, values.get("x-forwarded-host", ()))),
        tuple(values.get("x-forwarded-proto", ())),
    )


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
        return Client(plain(peer), scheme, host, (peer,) if peer else ())
    said = forwarding(headers)
    chain = (*said.chain, peer)
    address = next((hop for hop in reversed(chain) if not trusted.contain(hop)), chain[0])
    # The first value is that of the web server that is nearest to the client.
    proto = next(iter(said.schemes), "").lower()
    return Client(
        plain(address),
        proto if proto in ("http", "https") else scheme,
        next(iter(said.hosts), host),
        chain,
    )


def neighbourhood(address: str) -> str:
    """Whose address it is, for counting: one machine has as many IPv6 addresses as it likes, of one network."""
    if ":" not in address:
        return address
    try:
        return str(ip_network(f"{address.partition('%')[0]}/64", strict=False))
    except ValueError:
        return address


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


def plain(text: str) -> str:
    """The address in its one spelling; a text that is no address stays as it is."""
    return str(_address(text) or text)
