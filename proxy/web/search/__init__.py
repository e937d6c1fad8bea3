"""`docker search HOST/TEXT` and `podman search HOST/TEXT`: packages that can be built, and images that are there.

Both clients ask by the registry's old interface, `/v1/search`, which a stock registry does not have (moby: registry/search.go;
containers/image: docker/docker_client.go). podman reads the catalog of the registry where that fails. So the answer has the
repositories of the catalog too, as far as the client's own credentials show them.

A search builds nothing and starts no Nix. The names of a revision are listed once, and a search that comes before the list is
ready finds images alone. The names alone are judged: policy and `access` hide what they name, and a pull may still find that the
policy refuses a licence.
"""

from functools import partial

from aiohttp import hdrs, web

from proxy.core import foreign
from proxy.core.errors import NixfrontError, SiteDenied
from proxy.core.model import EVERY_MANIFEST_TYPE, Policy
from proxy.core.names import Vocabulary
from proxy.web.access import Access
from proxy.web.passthrough import Passthrough
from proxy.web.search import matches
from proxy.web.search.lists import SetLists
from proxy.web.search.matches import Match, Question
from proxy.web.sites import Sites
from proxy.web.verbatim import start_of_body

_PATIENCE = 20.0  # seconds for a list of names
_MOST_REPOSITORIES = 1000
_LARGEST_CATALOG = 1 << 20  # bytes


class Search:
    """The answers of one nixfront."""

    def __init__(
        self,
        sites: Sites,
        access: Access,
        passthrough: Passthrough,
        lists: SetLists,
        words: Vocabulary,
        policy: Policy,
    ) -> None:
        """`words` and `policy` are those of a pull."""
        self._sites = sites
        self._access = access
        self._passthrough = passthrough
        self._lists = lists
        self._words = words
        self._policy = policy

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The answer to `/v1/search?q=TEXT&n=25&page=1`. Raises `SiteDenied`, `RegistryUnavailable`."""
        if reason := self._sites.registry_refusal(request) or self._sites.build_refusal(request):
            raise SiteDenied(reason)
        async with self._passthrough.send(request, path="/v2/") as answer:
            if answer.status != 200:  # such as a 401, after which the client logs in
                return await self._passthrough.relay(request, answer)
        question = matches.parse(request.query, self._words.package_sets)
        if question.package_set and not await self._may_pull_from(request, question.package_set):
            question = matches.parse(request.query, ())  # as on a host without this set
        packages = await self._packages(question) if await self._access.may_look(request) else []
        images = matches.images(await self._repositories(request), question)
        host = self._passthrough.client(request).host if _pastes(request) else ""
        return web.json_response(matches.answer(question, images, packages, host))

    async def _may_pull_from(self, request: web.Request, package_set: str) -> bool:
        """Whether the registry lets this client pull from the set: a package with its name stands for all of them."""
        async with self._passthrough.send(
            request, hdrs.METH_HEAD, EVERY_MANIFEST_TYPE, f"/v2/{package_set}/{package_set}/manifests/latest"
        ) as answer:
            # A registry checks the rights before it looks whether the manifest is there.
            return answer.status in (200, 404)

    async def _packages(self, question: Question) -> list[Match]:
        """The packages that hold the text; none as long as their names are being listed."""
        name = question.package_set
        try:
            index = await self._lists.index(name, _PATIENCE)
        except NixfrontError:  # a pull from this set meets the same error, and says it
            return []
        if index is None:
            return []
        aliases = {} if name else self._words.aliases
        fitting = await self._lists.search(partial(matches.packages, index, aliases, question, self._policy))
        return [each for each in fitting if self._access.makes(each.name)]

    async def _repositories(self, request: web.Request) -> list[str]:
        """The first page of the registry's catalog, as this client sees it; empty where the registry shows none."""
        async with self._passthrough.send(
            request, hdrs.METH_GET, path=f"/v2/_catalog?n={_MOST_REPOSITORIES}"
        ) as answer:
            body = await start_of_body(answer, _LARGEST_CATALOG) if answer.status == 200 else b""
        try:
            return [name for name in foreign.parse(body)["repositories"] if isinstance(name, str)]
        except (ValueError, KeyError, TypeError):
            return []


def _pastes(request: web.Request) -> bool:
    """Whether this client shows the name as it is. podman puts the name of the host in front by itself."""
    return request.headers.get(hdrs.USER_AGENT, "").lower().startswith("docker/")
