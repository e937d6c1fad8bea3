"""The composer: names of packages for what a person types, and what the image of these packages would be.

It builds nothing. It shows a visitor the names of those packages alone that the registry lets this visitor pull.
"""

import re
from collections.abc import Collection, Sequence

from aiohttp import web

from proxy.core import names
from proxy.core.errors import NixfrontError
from proxy.core.model import Package
from proxy.core.names import Vocabulary
from proxy.tools.name_index import NO_NAMES
from proxy.web import client as web_client
from proxy.web.client import NO_NETWORKS, Networks
from proxy.web.page import templating
from proxy.web.page.composer.composed import Composed, composed
from proxy.web.page.composer.lines import Line, Place, lines
from proxy.web.page.composer.previews import Previews
from proxy.web.page.visitor import Visitor
from proxy.web.search.lists import SetLists

_MOST_SUGGESTIONS = 12
_LONGEST_WORD = 100  # characters of what a person types
_PATIENCE = 4.0  # seconds for a list of names
_SEPARATORS = re.compile(r"[\s,/]+")
_NOTHING = {"names": [], "later": False}


class Composer:
    """Answers the questions of the page's form."""

    def __init__(
        self,
        previews: Previews,
        lists: SetLists,
        words: Vocabulary,
        trusted_proxies: Networks = NO_NETWORKS,
        platform: str = "",
    ) -> None:
        """`words` are those of a pull. `trusted_proxies` may say by which name their client calls us.

        `platform`: what this host's processor runs.
        """
        self._platform = platform
        self._previews = previews
        self._lists = lists
        self._trusted_proxies = trusted_proxies
        self._words = words

    async def choices(self, visitor: Visitor) -> dict[str, list[str]]:
        """What the form offers this visitor: package sets, and meta-packages."""
        sets = await visitor.package_sets(self._words.package_sets)
        return {"sets": sorted(sets), "presets": sorted(self._words.presets)}

    async def suggest(self, request: web.Request, visitor: Visitor) -> web.Response:
        """Names for the word that was typed so far; `later` means that the list of names is still being made."""
        text, package_set = request.query.get("q", "").strip()[:_LONGEST_WORD], request.query.get("set", "")
        is_there = not package_set or (
            package_set in self._words.package_sets and await visitor.package_sets([package_set])
        )
        if not text or not is_there:
            return web.json_response(_NOTHING)
        try:
            index = await self._lists.index(package_set, _PATIENCE)
        except NixfrontError as error:
            return web.json_response({**_NOTHING, "error": str(error)})
        positions = await self._lists.find(package_set, index, text)
        best = map((index or NO_NAMES).facts, positions[: 4 * _MOST_SUGGESTIONS])
        pairs = [(facts.name, pull) for facts in best if (pull := names.spelled(facts.name))]
        prefix = f"{package_set}/" if package_set else ""
        allowed = await visitor.pullable(prefix + pull for _, pull in pairs[:_MOST_SUGGESTIONS])
        presets = [] if package_set else sorted(self._words.presets)
        suggestions = [
            *(
                {"attribute": f"{name} (meta-package)", "pull": name}
                for name in presets
                if name.startswith(text.lower())
            ),
            *({"attribute": name, "pull": pull} for name, pull in pairs if prefix + pull in allowed),
        ]
        return web.json_response({"names": suggestions[:_MOST_SUGGESTIONS], "later": index is None})

    async def compose(self, request: web.Request, visitor: Visitor) -> web.Response:
        """What the image of these packages would be: a page, or with `part` the result alone."""
        words = [word for word in _SEPARATORS.split(request.query.get("names", "").strip().lower()) if word]
        package_set = request.query.get("set", "")
        repository = "/".join([*([package_set] if package_set else []), *words])[: names.LONGEST_REPOSITORY]
        context = {
            "words": " ".join(words),
            "package_set": package_set,
            "result": await self.result(request, visitor, repository) if words else None,
        }
        if request.query.get("part"):
            return templating.page(request, "parts/composed.html", context)
        return templating.page(request, "compose.html", {**context, **await self.choices(visitor)})

    def lines(
        self,
        request: web.Request,
        name: str,
        packages: Sequence[Package] = (),
        platforms: Collection[str] = (),
    ) -> list[Line]:
        """What this visitor types for the image of this name; `packages`: what nixfront knows to be in it.

        `platforms`: those of an image that is there.
        """
        client = web_client.client(
            request.headers.items(), request.remote or "", request.scheme, self._trusted_proxies
        )
        place = Place(client.host, client.scheme == "https", self._words.presets, self._platform)
        try:
            image = names.parse(name.partition(":")[0], "latest", self._words)
        except NixfrontError:  # somebody pushed it
            image = None
        return lines(place, name, image, packages, platforms)

    async def result(self, request: web.Request, visitor: Visitor, repository: str) -> Composed:
        """What the image of this name would be."""
        try:
            image_request = names.parse(repository, "latest", self._words)
            if image_request is None:
                return Composed(repository, f"{repository!r} is no name of an image")
            if not await visitor.pullable([repository]):
                return Composed(repository, f"The registry does not let you pull {repository}.", login=True)
            preview = None if image_request.image else await self._previews.of(image_request)
        except NixfrontError as error:
            return Composed(repository, str(error))
        listing = await visitor.images()
        image = next((image for image in listing.images if image.repository == repository), None)
        packages = preview.packages if preview is not None else ()
        return composed(image_request, preview, self.lines(request, repository, packages), image)
