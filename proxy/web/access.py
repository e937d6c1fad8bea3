"""Who may start builds. By default, every client that the registry answers.

The registry answers first, always, and this file applies after its 404: it takes rights away and gives none. It reads only the
name and the client, before anything looks whether the image exists. So a refusal reveals nothing about the registry's content.

The user is the one in the request's `Authorization`. The registry checks the password or the signature. So the name counts only
where the registry does check: the same request without it must be refused.

The rate counts the builds that a client *begins*. An image that exists, is being built, or failed a moment ago costs nothing,
and neither does a second request for the same name.
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

ANYBODY = "*"  # among users: everybody who can log in at the registry
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
        """Whether nixfront builds images of this name."""
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
        """`passthrough` reads clients from requests, and asks the registry in their name."""
        self._rules = rules
        self._passthrough = passthrough
        self._rate = Rate(rules.builds_per_minute) if rules.builds_per_minute else None

    def makes(self, repository: str) -> bool:
        """Whether nixfront builds images of this name for any client."""
        return self._rules.makes(repository)

    @property
    def has_rate(self) -> bool:
        """Whether the builds that a client begins are counted."""
        return self._rate is not None

    def charge(self, client: str, image: ImageRequest) -> None:
        """Count a build that is about to begin for this client of `admit`. Raises `TooManyBuilds`."""
        if self._rate is not None:
            self._rate.count(client, (image.repository, image.tag))

    async def admit(self, request: web.Request, image: ImageRequest) -> str:
        """The name under which builds are counted and queued for the client of this request, which got a 404.

        Raises `NotMadeHere`, `BuildDenied`, `RegistryUnavailable`.
        """
        rules = self._rules
        if not rules.makes(image.repository):
            raise NotMadeHere(f"this host makes no image named {image.repository!r} (access.repositories)")
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
