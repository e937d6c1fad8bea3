"""Who may start builds, and who may write to the registry through nixfront.

By default every client that the registry answers may start builds. A foreign registry decides about writes itself. The
embedded one asks nobody for a login, so by default only this host writes to it.

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
from typing import Literal
from urllib.parse import unquote, urlsplit

from aiohttp import hdrs, web
from cachetools import LRUCache

from proxy.builds.coordinator import Coordinator
from proxy.core.errors import BuildDenied, NotMadeHere, PushDenied, TooManyBuilds
from proxy.core.model import ImageRequest
from proxy.web import client as web_client
from proxy.web.client import NO_NETWORKS, Network, Networks
from proxy.web.passthrough import Passthrough

ANYBODY = "*"  # among users: everybody who can log in at the registry
_MOST_CLIENTS = 8192
_WINDOW = 60.0  # seconds
_MOST_ESCAPES = 4  # times that a path can be escaped before nobody has to read it
_READS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS, hdrs.METH_TRACE})
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
#: Who may write: everybody, only users of the registry (with the embedded one, which has no users: this host), or nobody.
Push = Literal["all", "users", "none"]


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The operator's choice; what is empty or 0 narrows nothing. `repositories`: `*` for any characters in them.

    `is_embedded`: the registry is nixfront's child, which asks nobody for a login.
    """

    repositories: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    networks: Networks = NO_NETWORKS
    builds_per_minute: int = 0
    push: Push = "all"
    is_embedded: bool = False

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

    async def build(
        self, builds: Coordinator, image: ImageRequest, client: str, *, is_absent: bool = False
    ) -> None:
        """The registry has the image when this returns; a build that begins for this client of `admit` counts against its rate.

        `is_absent`: as for `Coordinator.image`. Raises a `NixfrontError`.
        """
        if self._rate is not None and await builds.is_new(image, is_absent=is_absent):
            self._rate.count(client, image.key)
            is_absent = True
        await builds.image(image, client, is_absent=is_absent)

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
        return f"user {user!r}" if user else web_client.neighbourhood(address)

    async def may_look(self, request: web.Request) -> bool:
        """Whether this client may read which images could be made: it may start builds. The registry has accepted its login.

        Raises `RegistryUnavailable`.
        """
        rules = self._rules
        if rules.networks and not rules.networks.contain(self._passthrough.client(request).address):
            return False
        if not rules.users:
            return True
        user = web_client.user(request.headers.getall(hdrs.AUTHORIZATION, []))
        named = bool(user) and (ANYBODY in rules.users or user in rules.users)
        return named and await self._passthrough.asks_for_login(request)

    async def admit_write(self, request: web.Request) -> None:
        """Raises `PushDenied` if this request writes and its client may not; `RegistryUnavailable`."""
        push = self._rules.push
        if push == "all" or request.method in _READS or not _may_be_registry(request.raw_path):
            return
        if push == "none":
            raise PushDenied("this host takes no pushes (access.push)")
        if self._rules.is_embedded:
            if not _is_this_host(request):
                raise PushDenied("only this host itself may push to its registry (access.push)")
        elif not (
            web_client.user(request.headers.getall(hdrs.AUTHORIZATION, []))
            and await self._passthrough.asks_for_login(request)
        ):
            raise PushDenied("only users of the registry may push to this host (access.push): docker login")

    async def _user(self, request: web.Request) -> str:
        """The user that the registry accepted for this request, empty for none."""
        named = web_client.user(request.headers.getall(hdrs.AUTHORIZATION, []))
        return named if named and await self._passthrough.refuses_anonymous(request) else ""


def _may_be_registry(target: str) -> bool:
    """Whether any server could read this target of a request as a path of the registry's interface."""
    path = target if target.startswith("/") else urlsplit(target).path
    for _ in range(_MOST_ESCAPES):
        path, escaped = unquote(path), path
        if path == escaped:
            return "v2" in path.lower().replace("\\", "/").split("/")
    return True


def _is_this_host(request: web.Request) -> bool:
    """Whether the request came over loopback, or from our own address, and through no web server of another client."""
    networks = list[Network](_LOOPBACK)
    here = request.transport.get_extra_info("sockname") if request.transport is not None else None
    if isinstance(here, tuple):
        networks.append(ip_network(here[0].partition("%")[0]))
    return Networks(networks).contain_every_hop(request.remote, request.headers)
