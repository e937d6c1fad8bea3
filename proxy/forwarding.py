"""Who asks, by which name and scheme: what the socket says, or what a front proxy says that the operator trusts.

Pure. `X-Forwarded-*` of anybody else is not believed and goes no further. What the registry is told is made anew here,
so that the absolute addresses which it makes of it name what the client sees.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from proxy.headers import FORWARDING

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
