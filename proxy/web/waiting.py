"""How a client waits for a build: which answer it gets, at which hop, after how long.

Clients give up for different reasons (measured with dockerd 20.10, 26.1 and 28.5, this one on either of its stores and
with its BuildKit, containerd 1.6, 1.7 and 2.1, skopeo 1.9 to 1.22 and podman 4.3 to 5.8; read in the sources of later
ones). containerd from 2.3 on, and docker engines built on it, end a request that has no headers after 30 s;
containerd's Kubernetes plugin ends a pull that got no byte of a *body* for some minutes; docker stops at the tenth
redirect. All can be held silently otherwise (11 minutes were tried), and none bears 1xx answers or drips in a body.
So there is one way for all, and it keeps no state but the number in the query:

    HEAD   held for `patience`, then 405: engines that send HEAD fall back to GET. User agents of `question_agents` do not,
           as they only ask what a tag is; their HEAD waits as a GET does
    GET    held for `hop_seconds`, then a 307 to itself with `?wait=n`, `hops` times: headers and a small body each time
    then   user agents of `restart_agents` are held for `restart_seconds` and get 408, upon which they start over (five
           times in all); others are held for `hold_seconds`, which they bear, and get 503

When the build ends or fails, every client that waits gets its answer at once. No image is built twice: each client joins the
build that is under way.
The last answer says in its reason phrase, the one thing that every client prints, how far the build is.
"""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, TypeVar

from aiohttp import hdrs, web

from proxy.builds.board import BuildBoard
from proxy.core.errors import StillBuilding
from proxy.core.model import ImageRequest
from proxy.core.request import WAIT, RegistryPath
from proxy.web import error_responses
from proxy.web.error_responses.ways_out import LogPlace

T = TypeVar("T")
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
    question_agents: tuple[str, ...]
    restart_agents: tuple[str, ...]
    restart_seconds: float
    hold_seconds: float


def decide(method: str, hop: int, agent: str, rules: WaitingRules) -> tuple[float, Then]:
    """For how many seconds this request is held, and what it gets if the build has not ended by then."""
    if method == hdrs.METH_HEAD and rules.hops and not _is_among(rules.question_agents, agent):
        return rules.patience, Then.ASK_WITH_GET
    if hop < rules.hops:
        return rules.hop_seconds, Then.ASK_AGAIN
    if _is_among(rules.restart_agents, agent):
        return rules.restart_seconds, Then.START_OVER
    return rules.hold_seconds, Then.GIVE_UP


def _is_among(words: tuple[str, ...], agent: str) -> bool:
    return any(word.lower() in agent.lower() for word in words)


@dataclass(frozen=True, slots=True)
class Overdue:
    """The client can be held no longer, and nobody can send it on any more. `status`: of the last answer."""

    status: int


#: What comes of work that a client waits for: its result; a response on which the client asks again; or `Overdue`.
Outcome: TypeAlias = T | web.Response | Overdue


class Waiting:
    """Between a client that has limits and a build that has others."""

    def __init__(self, board: BuildBoard, rules: WaitingRules, log: LogPlace) -> None:
        """`log` tells a person, in a few words, where the log of an image's build is."""
        self._board = board
        self._rules = rules
        self._log = log

    async def hold(self, request: web.Request, path: RegistryPath, work: Awaitable[T]) -> Outcome[T]:
        """Hold the client of this request until the work ends, or for as long as the client bears.

        `path`: as the client sent it, with its hop. Raises what the work raises.
        """
        agent = request.headers.get(hdrs.USER_AGENT, "")
        seconds, then = decide(request.method, path.hop or 0, agent, self._rules)
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            return _again(path, then)

    async def still_building(
        self, request: web.Request, image: ImageRequest, overdue: Overdue
    ) -> web.Response:
        """The last answer to a client that waits for this image."""
        return error_responses.response(StillBuilding(await self._message(request, image)), overdue.status)

    async def _message(self, request: web.Request, image: ImageRequest) -> str:
        await self._board.refresh()
        build = self._board.current(image.repository, image.tag)
        if build is None:
            how_far = "waiting for its turn, or being made by another machine"
        else:
            age = max(0.0, time.time() - build.started)
            where = "" if self._board.is_here(build) else f" on {build.host}"
            how_far = f"still being made after {age:.0f} s{where} ({_shortened(build.step)})"
        return f"{how_far}; pull again to go on waiting; {self._log(request, image)}"


def _again(path: RegistryPath, then: Then) -> web.Response | Overdue:
    """The response on which a client asks again at once; `Overdue` where there is none."""
    match then:
        case Then.START_OVER | Then.GIVE_UP:
            return Overdue(then.value)
        case Then.ASK_WITH_GET:
            return web.Response(status=then.value, headers={hdrs.ALLOW: hdrs.METH_GET})
        case Then.ASK_AGAIN:
            # Relative to the client's own address for nixfront: a web server in front may have paths of its own.
            query = f"{path.query}&" if path.query else ""
            there = f"?{query}{WAIT}={(path.hop or 0) + 1}"
            return web.Response(status=then.value, headers={hdrs.LOCATION: there}, body=_BODY)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_STEP else text[: _LONGEST_STEP - 3] + "..."
