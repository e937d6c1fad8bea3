"""What each kind of client shows of an error, and so the answer that each kind gets: one table. Pure.

Measured with the engines themselves (the rows are on the page deploy/troubleshooting.md, and a test replays each of them):

- docker with its own image store, podman, skopeo, crane and regctl print the message of a 404.
- What is built on containerd prints "not found" for a 404 and nothing else: containerd itself, docker with containerd's image
  store, BuildKit. After a HEAD that got 403 the newest ones send a GET and print the message in its body. Older ones, and all of
  them after a GET, print the reason phrase.
- oras reads the body of any answer but a 404.
- docker and containerd do not wait as a 429 asks them to: docker gives up, containerd asks six times at once. A 503 shows them
  its reason phrase. The others wait.

Some questions need "not found" for an answer, as the client then goes on. An engine that uses nixfront as a mirror asks the next
registry. containerd looks for a tag before it pushes one: a 404 lets it push, and a 403 ends the push.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_MANIFEST_TYPE = re.compile(r"application/vnd\.(?:docker\.distribution\.manifest|oci\.image)\.")


@dataclass(frozen=True, slots=True)
class Wire:
    """A code of the distribution specification ("Error Codes") and an HTTP status."""

    code: str
    status: int


DENIED = Wire("DENIED", 403)
UNAVAILABLE = Wire("UNAVAILABLE", 503)


@dataclass(frozen=True, slots=True)
class Reader:
    """A kind of client. `agents`: what the user agents of this kind have in common.

    `instead_of_404`, `instead_of_429`: the answer that this kind gets in place of that one; None where it reads that one.
    """

    name: str
    agents: re.Pattern[str]
    instead_of_404: Wire | None = None
    instead_of_429: Wire | None = None

    def answer(self, own: Wire, *, goes_on: bool) -> Wire:
        """The answer to this kind of client, where `own` is that of the error.

        `goes_on`: "not found" is what the client needs to go on.
        """
        instead = {404: None if goes_on else self.instead_of_404, 429: self.instead_of_429}
        return instead.get(own.status) or own


#: The first kind that fits counts.
READERS = (
    Reader("containerd", re.compile(r"containerd|buildkit", re.IGNORECASE), DENIED, UNAVAILABLE),
    Reader("oras", re.compile(r"^oras", re.IGNORECASE), DENIED),
    Reader("docker", re.compile(r"docker", re.IGNORECASE), None, UNAVAILABLE),
    Reader("others", re.compile("")),
)


def reader(user_agent: str) -> Reader:
    """The kind of client that has this user agent."""
    return next(kind for kind in READERS if kind.agents.search(user_agent))


def looks_before_a_push(accept: Iterable[str]) -> bool:
    """Whether a request with these Accept lines asks for one type of manifest: that of the manifest to push.

    Who pulls a tag does not know its type, and accepts several, or any.
    """
    kinds = {kind.partition(";")[0].strip() for line in accept for kind in line.split(",")}
    return len([kind for kind in kinds if _MANIFEST_TYPE.match(kind)]) == 1
