"""What a request means that comes as to a mirror of another registry: whether it is ours, and what it asks for.

An engine that is set to try nixfront before docker.io asks it for *every* image. Most are none of ours, and the engine
waits for our answer before it goes on; and an image of ours under the name of somebody else's would be taken for
that, silently. So a mirror serves what the operator names, by `allow` or under `prefix`, and everything else is 404 at
once: no evaluation, no build, and no question to the registry either. That last is deliberate. What the registry
holds under `nginx` may be Nix's nginx that a direct client asked for, and it must not become docker.io's. What it
holds under a name that *is* allowed is served, whoever put it there, before anything is built.

How a mirror request is known: containerd says it, with `?ns=docker.io` in every URL. The value is compared with a list
and never dialled, and it does not reach the registry. dockerd, podman and CRI-O give no sign, so they need an
address of their own, `mirror.addr`: a switch for the whole process would need a second process, with a store and a
state of its own, for the direct clients. The list of namespaces holds docker.io by default, as it opens nothing
while `allow` and `prefix` are empty.

The path becomes the one that a direct client uses, one `library/` or the prefix less, for manifests and blobs alike:
both kinds of client share what was built. Mirrors are read: what writes is refused.
"""

import fnmatch
from collections.abc import Collection
from dataclasses import dataclass

from aiohttp import hdrs

from proxy.core import names
from proxy.core.errors import NotMirrored
from proxy.core.request import RegistryPath

_LIBRARY = "library/"


@dataclass(frozen=True, slots=True)
class MirrorRules:
    """What the operator lets a mirror serve.

    `namespaces`: registries that we stand in for; `allow`: repositories, `*` for any characters in them; `prefix`:
    a path with a slash at its end, under which every package is served.
    """

    namespaces: Collection[str]
    allow: tuple[str, ...]
    prefix: str

    def served(self, repository: str) -> str:
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
        """`always`: whatever comes here is a mirror's, said or not."""
        self._rules = rules
        self._always = always

    def direct(self, path: RegistryPath, method: str) -> RegistryPath:
        """The same question as a client that uses no mirror asks it; itself, where it comes from such a client.

        Raises `NotMirrored`.
        """
        if not path.namespaces and not self._always:
            return path
        repository = path.repository
        if repository:
            for unknown in path.namespaces - set(self._rules.namespaces):
                raise NotMirrored(
                    f"{unknown!r} is no registry that this mirror stands in for (mirror.namespaces)"
                )
            if method not in (hdrs.METH_GET, hdrs.METH_HEAD):
                raise NotMirrored("a mirror takes nothing: push to the registry itself")
            repository = self._rules.served(repository)
        elif self._always and path.path.rstrip("/") != "/v2":
            raise NotMirrored("a mirror serves images and nothing else")
        return path.direct(repository)
