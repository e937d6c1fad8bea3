"""What a request of the registry's interface is about, parsed once, and the id by which the log names it.

The path is read as it came over the wire, escapes and all. `RegistryPath` says with `is_canonical` whether it can be read
in one way only; only such a path may be compared with another one, or become the name of a file.
"""

import itertools
import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import unquote_plus

from proxy.core.names import is_repository, is_tag

Kind = Literal[
    "manifest", "upload", "blob", "tags", "catalog", "referrers", "ping", "stream", "page", "other"
]

_ROUTE = re.compile(
    r"/v2/(?P<repository>.+)/"
    r"(?:manifests/(?P<manifest>[^/]+)|blobs/(?P<blob>.+)|tags/(?P<tags>list)|referrers/(?P<referrers>[^/]+))"
)
# distribution-spec: "<digest> ... MUST match `algorithm:encoded`"; the stock registry's digests all have this form.
_DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f]{32,}")
_UPLOAD_ID = re.compile(r"[\w.~=-]*", re.ASCII)
_UPLOADS = "uploads/"
_STREAM = re.compile(r"/events|/builds/[^/]+/events")
_PAGE = re.compile(r"/|/(?:builds|images|static)/.+|/images|/compose|/suggest|/status\.json")
_HOP = re.compile(r"[0-9]{1,3}")
#: The parameter in the query of a manifest or blob that counts how often nixfront sent this client on while it waits.
WAIT = "wait"


@dataclass(frozen=True, slots=True)
class RegistryPath:
    """What one request is about.

    `path`: as it came over the wire. `query`: likewise, without the hop of a client that waits. `repository` and `reference`
    are empty where the route has none; `reference` is a tag, a digest, or the rest of an upload's path.

    `is_canonical`: repository and reference are spelled as the grammar has them, with nothing escaped. `is_alone`: the
    request named nothing else, such as a query, a fragment or a host. `hop`: None unless nixfront sent the client on.
    `namespaces`: the registries that the query names with `ns`, as containerd does with a mirror.
    """

    path: str
    kind: Kind
    repository: str = ""
    reference: str = ""
    query: str = ""
    is_canonical: bool = False
    is_alone: bool = True
    hop: int | None = None
    namespaces: frozenset[str] = frozenset()

    @property
    def is_digest(self) -> bool:
        """Whether the reference is a digest, which no tag can be."""
        return ":" in self.reference

    @property
    def target(self) -> str:
        """Path and query, as a request line holds them."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def direct(self, repository: str) -> "RegistryPath":
        """The same question of a client that uses no mirror, who calls the repository by this name."""
        _, query = _take(self.query, "ns")
        path = (
            f"/v2/{repository}{self.path[len('/v2/') + len(self.repository) :]}" if repository else self.path
        )
        return replace(
            self, path=path, repository=repository, query=query, is_alone=not query, namespaces=frozenset()
        )


def parse(path: str, query: str = "", target: str | None = None) -> RegistryPath:
    """What a request is about; it never raises.

    `path` and `query`: as they came over the wire. `target`: all that the request line holds, where that is more than both.
    """
    kind, repository, reference = _route(path)
    is_canonical = is_repository(repository) and _is_canonical_reference(kind, reference)
    if not query:
        is_alone = target is None or target == path
        return RegistryPath(path, kind, repository, reference, "", is_canonical, is_alone)
    hop = None
    if kind in ("manifest", "blob"):
        hops, query = _take(query, WAIT)
        if hops:
            hop = int(hops[-1]) if _HOP.fullmatch(hops[-1]) else 0
    namespaces, _ = _take(query, "ns")
    # A hop is nixfront's own: without it the client asks for the manifest alone.
    return RegistryPath(
        path,
        kind,
        repository,
        reference,
        query,
        is_canonical,
        is_alone=hop is not None and not query,
        hop=hop,
        namespaces=frozenset(unquote_plus(value) for value in namespaces),
    )


def _route(path: str) -> tuple[Kind, str, str]:
    """Kind, repository and reference; a route that has no kind of its own may have a repository all the same."""
    match = _ROUTE.fullmatch(path)
    if match is None:
        return _route_without_repository(path), "", ""
    repository = match["repository"]
    if match["manifest"] is not None:
        return "manifest", repository, match["manifest"]
    if (blob := match["blob"]) is not None:
        if blob.startswith(_UPLOADS):
            return "upload", repository, blob.removeprefix(_UPLOADS)
        return ("other" if "/" in blob else "blob"), repository, blob
    if match["tags"] is not None:
        return "tags", repository, ""
    return "referrers", repository, match["referrers"]


def _route_without_repository(path: str) -> Kind:
    if path in ("/v2", "/v2/"):
        return "ping"
    if path == "/v2/_catalog":
        return "catalog"
    if _STREAM.fullmatch(path):
        return "stream"
    return "page" if _PAGE.fullmatch(path) else "other"


def _is_canonical_reference(kind: Kind, reference: str) -> bool:
    match kind:
        case "manifest" | "blob" | "referrers":
            return is_tag(reference) or _DIGEST.fullmatch(reference) is not None
        case "upload":
            return _UPLOAD_ID.fullmatch(reference) is not None
        case "tags":
            return True
        case _:
            return False


def _take(query: str, parameter: str) -> tuple[list[str], str]:
    """The values of a parameter, and the query without it; what remains stays as it was, byte for byte."""
    values, others = [], []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == parameter:
            values.append(value)
        else:
            others.append(part)
    return values, "&".join(others)


HEADER = "X-Request-Id"
#: The id of the request that is being answered, or that began what runs now; empty outside of any. A task that a request
#: starts inherits it, so a build has the id of the request that began it, whichever others join later.
CURRENT: ContextVar[str] = ContextVar("request_id", default="")

# A web server in front of nixfront may choose the id; it goes into file names and pages.
_FOREIGN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,63}")
_PROCESS = secrets.token_hex(5)
_NUMBERS = itertools.count(1)


def choose(received: str | None) -> str:
    """The id that came with the request, if it has the form of one, else a new one that no other process uses."""
    if received is not None and _FOREIGN_ID.fullmatch(received):
        return received
    return f"{_PROCESS}{next(_NUMBERS):06x}"
