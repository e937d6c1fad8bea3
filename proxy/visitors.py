"""Who may see what is not for everybody: by network, from the address of every hop that a request tells of.

A web server in front of us names its client in a header, and a client can put anything there too. So each address has to be
in the networks, the connection's own and all that the headers name: a forged one can only take rights away.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

EVERYBODY = "*"


class Visitors:
    """The clients of some networks."""

    def __init__(self, networks: Iterable[str]) -> None:
        """`networks` as `10.0.0.0/8`, `fd00::/8`, `192.0.2.7`, or `*` for all."""
        listed = tuple(networks)
        self._everybody = EVERYBODY in listed
        self._networks = tuple(
            ip_network(network, strict=False) for network in listed if network != EVERYBODY
        )

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
