"""What a person can do after an error, said for this very client: where to look for names, and where the log is. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from aiohttp import hdrs, web

from proxy.core.errors import BuildFailed, NixfrontError, PackageUnknown
from proxy.core.explained import says_missing
from proxy.core.model import ImageRequest
from proxy.core.platforms import client_first

#: What a user agent holds -> the command with which that client searches a registry.
_SEARCHES = {"docker/": "docker search", "libpod/": "podman search"}
# docker's user agent names the architecture of its host.
_ARCHITECTURE = re.compile(r"\barch/(\w+)")
#: Where the log of this image's build is, for the client of this request.
LogPlace = Callable[[web.Request, ImageRequest], str]
#: Our origin as the client of this request has it, and whether this client may see the page for people there.
OriginPlace = Callable[[web.Request], tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class WaysOut:
    """What errors say in addition, at one address."""

    log: LogPlace
    origin: OriginPlace

    def add(self, error: NixfrontError, request: web.Request, image: ImageRequest) -> NixfrontError:
        """The error, with the way out where there is one; of several platforms, that of the client comes first."""
        if (own := _ARCHITECTURE.search(request.headers.get(hdrs.USER_AGENT, ""))) is not None:
            message = client_first(str(error), own[1])
            error = error if message == str(error) else type(error)(message)
        if isinstance(error, PackageUnknown):
            return type(error)("; ".join([str(error), *self._search(request, image, str(error))]))
        if isinstance(error, BuildFailed):
            return type(error)(f"{error}\n{self.log(request, image)}")
        return error

    def _search(self, request: web.Request, image: ImageRequest, message: str) -> list[str]:
        """Where to look for the names of packages that the message says are missing."""
        if image.image:
            return []
        words = image.repository.split("/")
        package_set = [words.pop(0)] if image.package_set else []
        origin, sees_page = self.origin(request)
        ways = []
        if sees_page:
            fields = {"names": " ".join(words), **({"set": image.package_set} if package_set else {})}
            ways.append(f"look for names at {origin}/compose?{urlencode(fields)}")
        agent = request.headers.get(hdrs.USER_AGENT, "").lower()
        if command := next((_SEARCHES[part] for part in _SEARCHES if part in agent), ""):
            missing = words if len(words) == 1 else [word for word in words if says_missing(message, word)]
            name = "/".join([*package_set, *(missing or ["NAME"])[:1]])
            ways.append(f"{command} {origin.partition('://')[2]}/{name}")
        return ways
