"""How each client asks for a tag, and what a person then reads in the terminal: written after the clients' own sources.

A client here sends real requests with its own user agent and headers, follows what it would follow, and prints what it would
print. The newest engines are not packaged by Debian; for the others `tests/e2e/test_errors.py` has the real ones.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from proxy.core.model import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.support.wire import Reply, exchange

EVERY_TYPE = (DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX)
_MOST_HOPS = 9
_MOST_TRIES = 5


@dataclass(frozen=True, slots=True)
class Question:
    """Who asks, and for what. `seen`: the method and status of each answer so far, without the redirects."""

    url: str
    path: str
    agent: str
    accept: Sequence[str] = (*EVERY_TYPE, "*/*")
    seen: list[tuple[str, int]] = field(default_factory=list)

    async def ask(self, method: str) -> Reply:
        """The answer at the end of all redirects."""
        target = self.path
        for _ in range(_MOST_HOPS + 1):
            lines = (
                f"{method} {target} HTTP/1.1",
                "Host: images.example",
                f"User-Agent: {self.agent}",
                f"Accept: {', '.join(self.accept)}",
                "Connection: close",
            )
            reply = await exchange(self.url, "\r\n".join((*lines, "", "")).encode())
            if reply.status != 307:
                self.seen.append((method, reply.status))
                return reply
            target = self.path.partition("?")[0] + str(reply.header("Location"))
        raise AssertionError("more redirects than a client follows")


def reason(reply: Reply) -> str:
    """Status and reason phrase, as Go's `Response.Status` has them."""
    return reply.head.partition(b"\r\n")[0].decode("ascii").partition(" ")[2]


def message(reply: Reply) -> str:
    """The first message of the body, empty where there is none."""
    try:
        return str(json.loads(reply.body)["errors"][0]["message"])
    except (ValueError, LookupError, TypeError):
        return ""


async def _docker(question: Question) -> str:
    """docker's own image store (moby, distribution/pull_v2.go): a HEAD that failed is a GET, and a 5xx loses its body."""
    if (await question.ask("HEAD")).status == 200:
        return "pulled"
    return _body_of_4xx(await question.ask("GET"))


async def _containers(question: Question) -> str:
    """podman and skopeo (containers/image, docker/docker_client.go): a GET at once. After a 429 they try again; this is their last try."""
    return _body_of_4xx(await question.ask("GET"))


def _body_of_4xx(reply: Reply) -> str:
    if reply.status == 200:
        return "pulled"
    if reply.status >= 500:
        return f"received unexpected HTTP status: {reason(reply)}"
    return message(reply)


async def _containerd_head(question: Question) -> tuple[str, Reply]:
    """The method and the answer on which containerd ends (core/remotes/docker/resolver.go, `doWithRetries`)."""
    method = "HEAD"
    reply = await question.ask(method)
    for _ in range(_MOST_TRIES):
        if reply.status == 405:
            method = "GET"
        elif reply.status != 408:
            break
        reply = await question.ask(method)
    return method, reply


async def _containerd(question: Question) -> str:
    """containerd up to 2.2, ctr and BuildKit: a 404 is "not found", and all else its reason phrase."""
    method, reply = await _containerd_head(question)
    if reply.status == 200:
        return "pulled"
    if reply.status == 404:
        return "not found"
    return f"unexpected status from {method} request: {reason(reply)}"


async def _new_containerd(question: Question) -> str:
    """The newest containerd, as docker's engine and crictl print it: a HEAD's 403 is followed by a GET for its body."""
    method, reply = await _containerd_head(question)
    if method == "HEAD" and reply.status == 403:
        again = await question.ask("GET")
        if again.status == 403 and message(again):
            return f"unexpected status from HEAD request: {reason(reply)}\n{message(again)}"
    if reply.status == 200:
        return "pulled"
    if reply.status == 404:
        return "not found"
    return f"unexpected status from {method} request: {reason(reply)}"


async def _oras(question: Question) -> str:
    """oras (oras-go, registry/remote): a GET; a 404 is "not found", and every other body is read."""
    reply = await question.ask("GET")
    if reply.status == 200:
        return "pulled"
    return "not found" if reply.status == 404 else message(reply) or reason(reply)


async def _crane(question: Question) -> str:
    """crane (go-containerregistry, remote/transport/error.go): a GET, for `crane digest` after a HEAD; it reads every body."""
    reply = await question.ask("GET")
    return "pulled" if reply.status == 200 else message(reply) or reason(reply)


async def _regctl(question: Question) -> str:
    """regctl (regclient, internal/reghttp): it prints the body as it is, but that of a 429: it tries again until it gives up."""
    reply = await question.ask("GET")
    if reply.status == 200:
        return "pulled"
    return "retry limit exceeded" if reply.status == 429 else message(reply) or reason(reply)


@dataclass(frozen=True, slots=True)
class Terminal:
    """A client: its user agent, and what it prints for a question."""

    agent: str
    pull: Callable[[Question], Awaitable[str]]


#: By the names of the table in `deploy/troubleshooting.md`.
TERMINALS = {
    "docker, its own store": Terminal(
        r"docker/26.1.5 go/go1.21 git-commit/411e817 kernel/6.1 os/linux arch/amd64 UpstreamClient(Docker-Client/26.1.5 \(linux\))",
        _docker,
    ),
    "docker, containerd's store": Terminal(
        r"docker/29.8.0 go/go1.25 os/linux arch/amd64 containerd-client/2.2.0 storage-driver/overlayfs "
        r"UpstreamClient(Docker-Client/29.8.0 \(linux\))",
        _new_containerd,
    ),
    "crictl, kubelet": Terminal("containerd/v2.3.0", _new_containerd),
    "ctr": Terminal("containerd/1.6.20~ds1", _containerd),
    "BuildKit": Terminal("buildkit/v0.25", _containerd),
    "oras": Terminal("oras/1.3.0", _oras),
    "crane": Terminal("crane/v0.21.0 go-containerregistry/v0.21.0", _crane),
    "regctl": Terminal("regclient/regctl (v0.11.0)", _regctl),
    "podman": Terminal("libpod/5.4.2", _containers),
    "skopeo": Terminal("skopeo/1.18.0", _containers),
}
