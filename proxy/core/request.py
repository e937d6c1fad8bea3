"""The id of a request: what the client reads in `X-Request-Id`, and every line of the log about it says.

A task that a request starts inherits its id, so a build has the id of the request that began it, whoever joins later.
"""

import itertools
import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from proxy.core.names import _REPOSITORY, _TAG

_MANIFEST_PATH = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")
_TAGS_PATH = re.compile(r"/v2/(?P<name>.+)/tags/list")
# distribution-spec: "<digest> ... MUST match `algorithm:encoded`"; the stock registry's are all of this form.
_DIGEST = r"[a-z0-9]+:[0-9a-f]{32,}"
_CONTENT_PATH = re.compile(rf"/v2/({_REPOSITORY.pattern})/(manifests|blobs)/({_TAG.pattern}|{_DIGEST})")
_UPLOAD_PATH = re.compile(rf"/v2/{_REPOSITORY.pattern}/blobs/uploads/[\w.~=-]*", re.ASCII)


def manifest_route(path: str) -> tuple[str, str] | None:
    """(repository, reference) if the path, as it came over the wire, is that of a manifest, else None."""
    match = _MANIFEST_PATH.fullmatch(path)
    return (match["name"], match["reference"]) if match else None


def tags_route(path: str) -> str | None:
    """The repository if the path, as it came over the wire, is that of its tags, else None."""
    match = _TAGS_PATH.fullmatch(path)
    return match["name"] if match else None


@dataclass(frozen=True, slots=True)
class Content:
    """What a path of the registry is about, told from a path that can be read in one way only."""

    repository: str
    kind: Literal["manifests", "blobs"]
    reference: str

    @property
    def path(self) -> str:
        """The path that says so."""
        return f"/v2/{self.repository}/{self.kind}/{self.reference}"


def content(path: str) -> Content | None:
    """What the path is about if it is spelled as the grammar has it, nothing escaped, and no query behind it."""
    match = _CONTENT_PATH.fullmatch(path)
    return Content(match[1], "manifests" if match[2] == "manifests" else "blobs", match[3]) if match else None


def is_upload(path: str) -> bool:
    """Whether the path, without its query, is one that blobs are sent to."""
    return _UPLOAD_PATH.fullmatch(path) is not None


HEADER = "X-Request-Id"
#: Of the request that is being answered, or that began what runs now; empty outside of any.
CURRENT: ContextVar[str] = ContextVar("request_id", default="")

# What a web server in front of us may have chosen; it goes into file names and pages.
_GIVEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,63}")
_PROCESS = secrets.token_hex(5)
_NUMBERS = itertools.count(1)


def choose(given: str | None) -> str:
    """The id that came with the request, if it can be one, else a new one: no other process has it."""
    if given is not None and _GIVEN.fullmatch(given):
        return given
    return f"{_PROCESS}{next(_NUMBERS):06x}"
