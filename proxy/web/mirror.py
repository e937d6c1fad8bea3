"""What a request to a mirror of another registry means: whether nixfront serves it, and what it asks for.

An engine that tries nixfront before docker.io sends it the request for *every* image. Most are not nixfront's, and the engine
waits for the answer before it goes on. An image of nixfront's under somebody else's name would silently replace that one. So a
mirror serves what the operator names, by `allow` or under `prefix`. Everything else is 404 at once: no evaluation, no build,
and no request to the registry either. The last one is deliberate: the registry may hold Nix's nginx under `nginx`, for a
direct client, and that must not become docker.io's nginx. A name that *is* allowed is served from the registry first, and
built only where the registry has nothing.

containerd says that it uses a mirror, with `?ns=docker.io` in every URL. The value is compared with a list. It is never
dialled, and the registry does not get it. It says so too where its hosts.toml has another address for a name of nixfront's
own. Such a client uses no mirror: with a name of `http.names` the request is direct, and may push and log in. dockerd, podman and CRI-O do not say that they use a mirror, so they need an address
of their own, `mirror.addr`. The list of namespaces holds docker.io by default, as it opens nothing while `allow` and `prefix`
are empty.

The path becomes the one that a direct client uses, without `library/` or the prefix, for manifests and blobs alike: both kinds
of client share the images. A mirror is read-only: it refuses every other method.
"""

import fnmatch
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from aiohttp import hdrs

from proxy.core import names
from proxy.core.errors import MirrorRefused, NotMirrored
from proxy.core.request import RegistryPath

_log = logging.getLogger(__name__)
_LIBRARY = "library/"


@dataclass(frozen=True, slots=True)
class MirrorRules:
    """The images that a mirror serves.

    `namespaces`: registries that we stand in for; `allow`: repositories, `*` for any characters in them; `prefix`:
    a path with a slash at its end, under which every package is served. `own_names`: by which clients call nixfront itself.
    """

    namespaces: Collection[str]
    allow: tuple[str, ...]
    prefix: str
    own_names: Collection[str] = ()

    def direct_name(self, repository: str) -> str:
        """The repository that a direct client names. Raises `NotMirrored` where this one is not for mirrors."""
        if not names.is_repository(repository):
            raise NotMirrored(f"{repository!r} is no name of a repository")
        plain = repository.removeprefix(_LIBRARY)
        if self.prefix and plain.startswith(self.prefix):
            return plain.removeprefix(self.prefix)
        if any(fnmatch.fnmatchcase(plain, pattern) for pattern in self.allow):
            return plain
        raise NotMirrored(f"{plain} is not among what this mirror serves (mirror.allow, mirror.prefix)")


class Mirror:
    """The rules, at one address."""

    def __init__(self, rules: MirrorRules, *, always: bool) -> None:
        """`always`: every client at this address uses a mirror, whether it says so or not."""
        self._rules = rules
        self._own_names = frozenset(rules.own_names)
        self._always = always

    def serves(self, path: RegistryPath) -> bool:
        """Whether the client of this request, as it came, uses nixfront as a mirror."""
        return self._always or not path.namespaces <= self._own_names

    def direct(self, path: RegistryPath, method: str) -> RegistryPath:
        """The same question as a client that uses no mirror asks it; itself, where it comes from such a client.

        Raises `NotMirrored`.
        """
        if not self.serves(path):
            return path.direct(path.repository) if path.namespaces else path
        repository = path.repository
        if repository:
            for unknown in path.namespaces - set(self._rules.namespaces):
                raise NotMirrored(
                    f"{unknown!r} is no registry that this mirror stands in for (mirror.namespaces)"
                )
            if method not in (hdrs.METH_GET, hdrs.METH_HEAD):
                raise NotMirrored("a mirror takes nothing: push to the registry itself")
            repository = self._rules.direct_name(repository)
        elif self._always and path.path.rstrip("/") != "/v2":
            raise NotMirrored("a mirror serves images and nothing else")
        return path.direct(repository)

    def check(self, path: RegistryPath, status: int, challenges: Iterable[str], *, has_login: bool) -> None:
        """Raises `MirrorRefused` where the registry refuses an image of ours to a client of a mirror, and logs it.

        Such a client has no login here. After a 401 it takes the image of the same name from another registry, and tells
        nobody. A challenge for a token stands, because engines fetch tokens without a login. `has_login`: the client sent one.
        """
        if status not in (401, 403) or not path.repository:
            return
        if not has_login and any(challenge.lstrip().lower().startswith("bearer") for challenge in challenges):
            return
        _log.warning(
            "a mirror's client gets the image of another registry: the registry refuses it ours repository=%s status=%d",
            path.repository,
            status,
        )
        raise MirrorRefused(
            f"the registry behind this mirror refuses {path.repository} to its clients, who have no login there (mirror)"
        )
