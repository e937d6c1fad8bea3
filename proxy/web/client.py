"""Who asks, by which name and scheme: what the socket says, or what a front proxy says that the operator trusts.

Pure. `X-Forwarded-*` of anybody else is not believed and goes no further. What the registry is told is made anew here,
so that the absolute addresses which it makes of it name what the client sees.

Who may see what is not for everybody: by network, from the address of every hop that a request tells of.

A web server in front of us names its client in a header, and a client can put anything there too. So each address has to be
in the networks, the connection's own and all that the headers name: a forged one can only take rights away.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal

#: What web servers in front say about a request: made anew for the registry, by `forwarding`.
FORWARDING = frozenset(
    {"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip"}
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Client:
    """Who sent a request: `host` is our name as the client has it, `chain` the addresses it came by, its own first."""

    address: str
    scheme: str
    host: str
    chain: tuple[str, ...]

    def headers(self) -> list[tuple[str, str]]:
        """What the registry is told about the client."""
        told = [
            ("X-Forwarded-For", ", ".join(self.chain)),
            ("X-Forwarded-Host", self.host),
            ("X-Forwarded-Proto", self.scheme),
        ]
        return [(name, value) for name, value in told if value]


def client(
    pairs: Iterable[tuple[str, str]],
    peer: str,
    scheme: str,
    trusted: Sequence[Network] = (),
    authority: str = "",
) -> Client:
    """The client of a request with these headers that came from address `peer`.

    Its address is the last one in the chain that is not of a `trusted` network. `authority` is that of a request line
    that holds a whole URL, and counts for more than `Host` (RFC 9112, section 3.2.2).
    """
    said: dict[str, list[str]] = {}
    for name, value in pairs:
        if (lower := name.lower()) == "host" or lower in FORWARDING:
            said.setdefault(lower, []).append(value)
    host = authority or said.get("host", [""])[0]
    if not within(peer, trusted):
        return Client(_plain(peer), scheme, host, (peer,) if peer else ())
    before = [hop.strip() for value in said.get("x-forwarded-for", ()) for hop in value.split(",")]
    chain = (*(hop for hop in before if hop), peer)
    address = next((hop for hop in reversed(chain) if not within(hop, trusted)), chain[0])
    # Proxies add their word behind: the first is that of the one nearest to the client.
    proto = _first(said, "x-forwarded-proto").lower()
    return Client(
        _plain(address),
        proto if proto in ("http", "https") else scheme,
        _first(said, "x-forwarded-host") or host,
        chain,
    )


def within(address: str, networks: Sequence[Network]) -> bool:
    """Whether the address is in one of the networks; what is no address is in none."""
    if not networks:
        return False
    parsed = _address(address)
    return parsed is not None and any(parsed in network for network in networks)


def _address(text: str) -> Address | None:
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
    """The address in its one spelling; what is none stays as it is."""
    return str(_address(text) or text)


def _first(said: dict[str, list[str]], name: str) -> str:
    return said.get(name, [""])[0].partition(",")[0].strip()


def user(authorizations: Sequence[str]) -> str:
    """The user whom a request names in its `Authorization`, empty where it names none: to be believed only after
    a registry let this very request in, for it is the registry that reads the password or the signature.

    Basic (RFC 7617), or a token that is a JWT (RFC 7519): its `sub`.
    """
    if len(authorizations) != 1:
        return ""
    scheme, _, rest = authorizations[0].strip().partition(" ")
    try:
        if scheme.lower() == "basic":
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[0]
        if scheme.lower() == "bearer":
            _, payload, _ = rest.strip().split(".")
            subject = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]
            return subject if isinstance(subject, str) else ""
    except (ValueError, KeyError, TypeError):  # no token of that kind: who it is for is not known
        pass
    return ""


EVERYBODY: Literal["*"] = "*"


class Visitors:
    """The clients of some networks."""

    def __init__(self, networks: Iterable[Network | Literal["*"]]) -> None:
        """`*` among the networks stands for every client."""
        listed = tuple(networks)
        self._everybody = EVERYBODY in listed
        self._networks = tuple(network for network in listed if network != EVERYBODY)

    def may(self, remote: str | None, headers: Mapping[str, str]) -> bool:
        """Whether a request from this address, with these headers, is theirs."""
        if self._everybody:
            return True
        named = [headers.get(name, "") for name in ("X-Forwarded-For", "X-Real-Ip")]
        hops = [remote or "", *(part.strip() for value in named if value for part in value.split(","))]
        # `Forwarded` has a grammar of its own; nobody sends it alone, and what cannot be read is nobody's address.
        return "Forwarded" not in headers and all(self._holds(hop) for hop in hops)

    def _holds(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)


@lru_cache(maxsize=1024)
def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(address.strip("[]"))
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found
