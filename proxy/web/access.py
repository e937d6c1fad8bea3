"""Who may have an image made, where the operator narrows that. Everybody whom the registry let ask, by default.

The registry is asked first, always, and this file comes after its 404: it can take rights away and give none. It looks at
nothing but the name and the client, and before anybody looks whether the image exists, so a refusal tells nothing
about what the registry holds.

The user is the one named in the request's `Authorization`. It was the registry that checked the password or the
signature, so the name counts only where the registry checks at all: the same request without it must be refused.

The rate is of builds that a client *begins*: what exists, is under way, or failed a moment ago costs nothing, and
neither does asking for the same name again.
"""

import fnmatch
import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from ipaddress import ip_network

from aiohttp import hdrs, web
from cachetools import LRUCache

from proxy.core.errors import BuildDenied, NotMadeHere, TooManyBuilds
from proxy.core.model import ImageRequest
from proxy.web import client as web_client
from proxy.web.client import NO_NETWORKS, Networks
from proxy.web.passthrough import Passthrough

ANYBODY = "*"  # among users: whoever the registry knows
_MOST_CLIENTS = 8192
_WINDOW = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The operator's choice; what is empty or 0 narrows nothing. `repositories`: `*` for any characters in them."""

    repositories: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    networks: Networks = NO_NETWORKS
    builds_per_minute: int = 0

    def makes(self, repository: str) -> bool:
        """Whether images of this name are made at all."""
        patterns = self.repositories
        return not patterns or any(fnmatch.fnmatchcase(repository, pattern) for pattern in patterns)


class Rate:
    """Counts what each client began within the last minute."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`most` in a minute; the clients that are forgotten are those that began nothing for the longest time."""
        self._most = most
        self._clock = clock
        self._begun: LRUCache[str, dict[Hashable, float]] = LRUCache(_MOST_CLIENTS)

    def count(self, client: str, what: Hashable) -> None:
        """One more; the same thing counts once. Raises `TooManyBuilds`."""
        now = self._clock()
        begun = {key: then for key, then in self._begun.get(client, {}).items() if now - then < _WINDOW}
        if what not in begun and len(begun) >= self._most:
            wait = math.ceil(min(begun.values()) + _WINDOW - now)
            raise TooManyBuilds(
                f"{client} began {len(begun)} builds within a minute, and access.builds_per_minute of this host allows "
                f"{self._most}; try again in {wait} s",
                wait,
            )
        begun.setdefault(what, now)
        self._begun[client] = begun


class Access:
    """The rules, applied to requests."""

    def __init__(self, rules: AccessRules, passthrough: Passthrough) -> None:
        """`passthrough` knows clients, and asks the registry as one would."""
        self._rules = rules
        self._passthrough = passthrough
        self._rate = Rate(rules.builds_per_minute) if rules.builds_per_minute else None

    def makes(self, repository: str) -> bool:
        """Whether images of this name are made for anybody."""
        return self._rules.makes(repository)

    @property
    def has_rate(self) -> bool:
        """Whether the builds that a client begins are counted."""
        return self._rate is not None

    def charge(self, client: str, wanted: ImageRequest) -> None:
        """Count a build that is about to begin for this client of `admit`. Raises `TooManyBuilds`."""
        if self._rate is not None:
            self._rate.count(client, (wanted.repository, wanted.tag))

    async def admit(self, request: web.Request, wanted: ImageRequest) -> str:
        """The name under which builds are counted and queued for the client of this request, which got a 404.

        Raises `NotMadeHere`, `BuildDenied`, `RegistryUnavailable`.
        """
        rules = self._rules
        if not rules.makes(wanted.repository):
            raise NotMadeHere(f"this host makes no image named {wanted.repository!r} (access.repositories)")
        address = self._passthrough.client(request).address
        if rules.networks and not rules.networks.contain(address):
            raise BuildDenied(f"this host makes no images for clients at {address} (access.networks)")
        user = ""
        if rules.users or self._rate is not None:
            user = await self._user(request)
        if rules.users and not (user and (ANYBODY in rules.users or user in rules.users)):
            raise BuildDenied(
                f"this host makes no images for user {user!r} (access.users)"
                if user
                else "this host makes images only for users who are logged in (access.users): docker login"
            )
        return f"user {user!r}" if user else _neighbourhood(address)

    async def _user(self, request: web.Request) -> str:
        """The user that the registry accepted for this request, empty for none."""
        named = web_client.user(request.headers.getall(hdrs.AUTHORIZATION, []))
        return named if named and await self._passthrough.refuses_anonymous(request) else ""


def _neighbourhood(address: str) -> str:
    """Whose address it is, for counting: one machine has as many IPv6 addresses as it likes, of one network."""
    if ":" not in address:
        return address
    try:
        return str(ip_network(f"{address.partition('%')[0]}/64", strict=False))
    except ValueError:
        return address
