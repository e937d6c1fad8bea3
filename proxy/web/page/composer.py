"""The composer: names of packages for what a person types, and what the image of these packages would be.

It builds nothing. It evaluates as a pull does, with the same restrictions; evaluations are bounded in number, and their
results are cached.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from cachetools import TTLCache

from proxy.core import names
from proxy.core.errors import NixfrontError
from proxy.core.explained import explained
from proxy.core.model import ImageRequest, Package, PackageSet
from proxy.core.names import Vocabulary
from proxy.image import layering
from proxy.image.layer_table import NO_TABLE, LayerTable
from proxy.image.manifest import Compression
from proxy.nix.evaluate import Evaluator
from proxy.nix.sets import PackageSets
from proxy.nix.store import NixStore
from proxy.pipeline.contents import chosen_set
from proxy.pipeline.packing import CODECS
from proxy.state import State, layer_key
from proxy.tools import suggest
from proxy.tools.flight import SingleFlight
from proxy.web.page import templating, views
from proxy.web.page.visitor import Visitor

_FRESH = 600.0  # seconds for which a preview is cached
_AT_ONCE = 2
_MOST_WAITING = 16  # previews that wait for their turn
_MOST_SUGGESTIONS = 12
_LONGEST_WORD = 100  # characters of what a person types
_PATIENCE = 4.0  # seconds for a list of names
_SEPARATORS = re.compile(r"[\s,/]+")


@dataclass(frozen=True, slots=True)
class Preview:
    """`size`: bytes of the unpacked closure, 0 if they are unknown. `layers_here` of the `layers` are packed already.

    `in_store`: the Nix store has the whole closure, so nothing needs to be built or fetched.
    """

    packages: tuple[Package, ...]
    revision: str
    in_store: bool
    size: int = 0
    layers: int = 0
    layers_here: int = 0
    bytes_here: int = 0


class Previews:
    """The previews of one application."""

    def __init__(
        self,
        sets: PackageSets,
        evaluator: Evaluator,
        store: NixStore,
        state: State,
        *,
        always: Sequence[str],
        most_layers: int,
        compression: Compression,
        tables: Mapping[str, LayerTable],
    ) -> None:
        """The options are those of the pipeline."""
        self._sets = sets
        self._evaluator = evaluator
        self._store = store
        self._state = state
        self._always = always
        self._most_layers = most_layers
        self._codec = CODECS[compression]
        self._tables = tables
        self._cache: TTLCache[tuple[str, str], Preview] = TTLCache(512, _FRESH)
        self._flights: SingleFlight[tuple[str, str], Preview] = SingleFlight()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._lists: SingleFlight[str, tuple[str, ...]] = SingleFlight()

    async def attributes(self, package_set: str, patience: float) -> tuple[str, ...] | None:
        """The names of a set; None if the list is not ready within `patience` seconds. Raises a `NixfrontError`."""
        try:
            return await asyncio.wait_for(
                self._lists.run(package_set, lambda: self._list(package_set)), patience
            )
        except TimeoutError:
            return None

    async def of(self, request: ImageRequest) -> Preview | None:
        """The preview of this image; None if too many others wait for theirs. Raises a `NixfrontError`."""
        key = (request.repository, request.tag)
        preview = self._cache.get(key)
        if preview is not None and preview.in_store:
            return preview
        if key not in self._flights.keys and len(self._flights.keys) >= _MOST_WAITING:
            return None
        return await self._flights.run(key, lambda: self._make(key, request))

    async def close(self) -> None:
        """Cancel what is under way."""
        await self._flights.close()
        await self._lists.close()

    async def _list(self, package_set: str) -> tuple[str, ...]:
        return await self._evaluator.names(await self._sets.resolve(package_set, "latest"))

    async def _packages(self, package_set: PackageSet, request: ImageRequest) -> Mapping[str, Package]:
        """The packages by name as typed. Raises a `NixfrontError`."""
        try:
            return await self._evaluator.evaluate(
                package_set,
                sorted(request.attributes),
                [name for name in self._always if name not in request.attributes],
                request.preset.system,
            )
        except NixfrontError as error:
            raise explained(error, request) from error

    async def _make(self, key: tuple[str, str], request: ImageRequest) -> Preview:
        async with self._slots:
            package_set = await chosen_set(request, self._sets, self._evaluator, self._always)
            by_name = await self._packages(package_set, request)
            packages = tuple(by_name.values())
            chosen = tuple(by_name[name] for name in request.attributes)
            closure = await self._store.closure(packages)
            if closure is None:
                size = await self._store.to_fetch(package_set, packages) if package_set.substitutes else 0
                preview = Preview(chosen, package_set.revision, in_store=False, size=size)
            else:
                plans = layering.plan(
                    closure, self._most_layers - 1, self._tables.get(request.package_set, NO_TABLE)
                )
                keys = [layer_key(plan, self._codec) for plan in plans]
                here = [layer for layer, _ in (await self._state.recall(keys, request.repository)).values()]
                preview = Preview(
                    chosen,
                    package_set.revision,
                    in_store=True,
                    size=sum(info.nar_size for info in closure.paths),
                    layers=len(plans) + 1,  # and the root
                    layers_here=len(here),
                    bytes_here=sum(layer.size for layer in here),
                )
        self._cache[key] = preview
        return preview


class Composer:
    """Answers the questions of the page's form."""

    def __init__(self, previews: Previews, words: Vocabulary) -> None:
        self._previews = previews
        self._words = words

    @property
    def choices(self) -> dict[str, list[str]]:
        """What the form offers: package sets, and meta-packages."""
        return {"sets": sorted(self._words.package_sets), "presets": sorted(self._words.presets)}

    async def suggest(self, request: web.Request, _: Visitor) -> web.Response:
        """Names for the word that was typed so far; `later` means that the list of names is still being made."""
        text, package_set = request.query.get("q", "").strip()[:_LONGEST_WORD], request.query.get("set", "")
        if not text or (package_set and package_set not in self._words.package_sets):
            return web.json_response({"names": [], "later": False})
        try:
            attributes = await self._previews.attributes(package_set, _PATIENCE)
        except NixfrontError as error:
            return web.json_response({"names": [], "later": False, "error": str(error)})
        matches = await asyncio.to_thread(suggest.search, text, attributes or ())
        pairs = [(name, names.spelled(name)) for name in matches[: 4 * _MOST_SUGGESTIONS]]
        presets = [] if package_set else sorted(self._words.presets)
        suggestions = [
            *(
                {"attribute": f"{name} (meta-package)", "pull": name}
                for name in presets
                if name.startswith(text.lower())
            ),
            *({"attribute": name, "pull": pull} for name, pull in pairs if pull),
        ]
        return web.json_response({"names": suggestions[:_MOST_SUGGESTIONS], "later": attributes is None})

    async def compose(self, request: web.Request, visitor: Visitor) -> web.Response:
        """What the image of these packages would be: a page, or with `part` the result alone."""
        words = [word for word in _SEPARATORS.split(request.query.get("names", "").strip().lower()) if word]
        package_set = request.query.get("set", "")
        repository = "/".join([*([package_set] if package_set else []), *words])[: names.LONGEST_REPOSITORY]
        context = {
            "words": " ".join(words),
            "result": await self._result(request, visitor, repository) if words else None,
        }
        if request.query.get("part"):
            return templating.page(request, "_composed.html", context)
        return templating.page(request, "compose.html", {**context, **self.choices})

    async def _result(self, request: web.Request, visitor: Visitor, repository: str) -> Mapping[str, Any]:
        try:
            image_request = names.parse(repository, "latest", self._words)
            if image_request is None:
                return {"error": f"{repository!r} is no name of an image", "pull": None}
            preview = None if image_request.image else await self._previews.of(image_request)
        except NixfrontError as error:
            return {"error": str(error), "pull": None}
        images, _ = await visitor.images()
        return {
            "error": "",
            "repository": repository,
            "pull": views.pull_lines(request.host, repository),
            "preview": preview,
            "named": image_request.image,
            "image": next((image for image in images if image.repository == repository), None),
        }
