"""How a client waits while its image is made: which answer, at which hop, after how long.

Clients give up for different reasons (measured with dockerd 20.10, 26.1 and 28.5, this one on either of its stores and
with its BuildKit, containerd 1.6, 1.7 and 2.1, skopeo 1.9 to 1.22 and podman 4.3 to 5.8; read in the sources of later
ones). containerd from 2.3 on, and docker engines built on it, end a request that has no headers after 30 s;
containerd's Kubernetes plugin ends a pull that got no byte of a *body* for some minutes; docker stops at the tenth
redirect. All can be held silently otherwise (11 minutes were tried), and none bears 1xx answers or drips in a body.
So there is one way for all, and it keeps no state but the number in the query:

    HEAD   held for `patience`, then 405: every client that sends HEAD falls back to GET
    GET    held for `hop_seconds`, then a 307 to itself with `?wait=n`, `hops` times: headers and a small body each time
    then   user agents of `restart_agents` are held for `restart_seconds` and get 408, upon which they start over (five
           times in all); others are held for `hold_seconds`, which they bear, and get 503

A build that ends meanwhile is answered at once, its failure too. It is never waited for twice: whoever comes joins it.
The last answer says in its reason phrase, the one thing that every client prints, how far the build is.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from aiohttp import hdrs, web
from yarl import URL

from proxy.builds.board import BuildBoard
from proxy.builds.coordinator import Coordinator, Puller
from proxy.core.errors import StillBuilding
from proxy.core.model import ImageRequest
from proxy.core.request import manifest_route
from proxy.web import error_responses

T = TypeVar("T")
_PARAMETER = "wait"
_HOP = re.compile(r"[0-9]{1,3}")
_BODY = b"still being built\n"  # containerd's Kubernetes plugin counts bytes of bodies
_LONGEST_STEP = 90  # characters in a message, so that what follows stays in the reason phrase


class Then(Enum):
    """What a client gets that has waited in vain: the HTTP status."""

    ASK_WITH_GET = 405
    ASK_AGAIN = 307
    START_OVER = 408
    GIVE_UP = 503


@dataclass(frozen=True, slots=True)
class WaitingRules:
    """The operator's choice of the above; with no `hops` a HEAD waits as a GET does."""

    patience: float
    hop_seconds: float
    hops: int
    restart_agents: tuple[str, ...]
    restart_seconds: float
    hold_seconds: float


def decide(method: str, hop: int, agent: str, rules: WaitingRules) -> tuple[float, Then]:
    """For how many seconds this request is held, and what it gets if the build has not ended by then."""
    if method == hdrs.METH_HEAD and rules.hops:
        return rules.patience, Then.ASK_WITH_GET
    if hop < rules.hops:
        return rules.hop_seconds, Then.ASK_AGAIN
    if any(word.lower() in agent.lower() for word in rules.restart_agents):
        return rules.restart_seconds, Then.START_OVER
    return rules.hold_seconds, Then.GIVE_UP


def read_query(query: str) -> tuple[int, str]:
    """The hop that a query says, 0 if none, and the query without it: what remains stays as it was, byte for byte."""
    hop, kept = 0, []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == _PARAMETER:
            hop = int(value) if _HOP.fullmatch(value) else 0
        else:
            kept.append(part)
    return hop, "&".join(kept)


def as_asked(request: web.Request) -> tuple[int, web.Request]:
    """The hop of a client that was sent on, 0 for any other, and its request as it was before that."""
    given = request.rel_url.raw_query_string
    hop, query = read_query(given) if given else (0, given)
    if query == given or not manifest_route(request.rel_url.raw_path):
        return 0, request
    path = request.rel_url.raw_path
    return hop, request.clone(rel_url=URL(f"{path}?{query}" if query else path, encoded=True))


#: Where the log of this image's build is, for the client of this request.
LogPlace = Callable[[web.Request, ImageRequest], str]


class Waiting:
    """Between a client that has limits and a build that has others."""

    def __init__(self, builds: Coordinator, board: BuildBoard, rules: WaitingRules, log: LogPlace) -> None:
        """`log` tells a person, in a few words, where the log of an image's build is."""
        self._builds = builds
        self._board = board
        self._rules = rules
        self._log = log

    async def ensure(
        self, request: web.Request, hop: int, wanted: ImageRequest, asker: Puller
    ) -> web.Response | None:
        """None: the image is in the registry. Else what this client gets, as the build is going on.

        `request` is the client's at this hop, without our number; `asker` as for `Builds.ensure`. Raises the
        `NixfrontError` that ended the build.
        """
        outcome = await self._held(request, hop, self._builds.ensure(wanted, asker))
        match outcome:
            case Then.START_OVER | Then.GIVE_UP:
                return error_responses.response(
                    StillBuilding(await self._message(request, wanted)), outcome.value
                )
            case Then():
                return _sent_on(request, hop, outcome)
            case _:
                return None

    async def unless_long(self, request: web.Request, hop: int, look: Awaitable[bool]) -> bool | web.Response:
        """What comes of a look at an image that is there; where that takes long, what this client gets meanwhile.

        False where it takes longer than a client waits: the image that is there is better than none.
        """
        outcome = await self._held(request, hop, look)
        match outcome:
            case Then.START_OVER | Then.GIVE_UP:
                return False
            case Then():
                return _sent_on(request, hop, outcome)
            case _:
                return outcome

    async def _held(self, request: web.Request, hop: int, work: Awaitable[T]) -> T | Then:
        """The result of the work, or what the client gets who may wait no longer for it."""
        agent = request.headers.get(hdrs.USER_AGENT, "")
        seconds, then = decide(request.method, hop, agent, self._rules)
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            return then

    async def _message(self, request: web.Request, wanted: ImageRequest) -> str:
        await self._board.refresh()
        build = self._board.current(wanted.repository, wanted.tag)
        if build is None:
            how_far = "waiting for its turn, or being made by another machine"
        else:
            age = max(0.0, time.time() - build.started)
            where = "" if self._board.is_here(build) else f" on {build.host}"
            how_far = f"still being made after {age:.0f} s{where} ({_shortened(build.step)})"
        return f"{how_far}; pull again to go on waiting; {self._log(request, wanted)}"


def _sent_on(request: web.Request, hop: int, then: Then) -> web.Response:
    """The answer upon which a client asks again at once."""
    if then is Then.ASK_WITH_GET:
        return web.Response(status=then.value, headers={hdrs.ALLOW: hdrs.METH_GET})
    # Relative to wherever the client found us: it may have come through a proxy with paths of its own.
    query = request.rel_url.raw_query_string
    there = f"?{query}&{_PARAMETER}={hop + 1}" if query else f"?{_PARAMETER}={hop + 1}"
    return web.Response(status=then.value, headers={hdrs.LOCATION: there}, body=_BODY)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_STEP else text[: _LONGEST_STEP - 3] + "..."
