"""What the image of some packages would be, before anybody builds it.

It evaluates as a pull does, with the same restrictions; evaluations are bounded in number, and their results are cached.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cachetools import TTLCache

from proxy.core import names
from proxy.core.errors import NixfrontError
from proxy.core.explained import explained
from proxy.core.model import Closure, ImageRequest, Package, PackageSet
from proxy.image import layering
from proxy.image.layer_table import NO_TABLE, LayerTable
from proxy.image.manifest import Compression
from proxy.nix.evaluate import Evaluator
from proxy.nix.sets import PackageSets
from proxy.nix.store import NixStore
from proxy.pipeline.contents.choice import chosen_set
from proxy.pipeline.packing import CODECS
from proxy.state import State, layer_key
from proxy.tools.flight import SingleFlight

_FRESH = 600.0  # seconds for which a preview is cached
_AT_ONCE = 2
_MOST_WAITING = 16  # previews that wait for their turn
_MOST_CONTENTS = 12  # store paths that a preview names


@dataclass(frozen=True, slots=True)
class Preview:
    """`size`: bytes of the unpacked closure, 0 if they are unknown. `layers_here` of the `layers` are packed already.

    `in_store`: the Nix store has the whole closure, so nothing needs to be built or fetched. `contents`: its largest store
    paths, as pairs of a name and bytes, of the `paths` that it has.
    """

    packages: tuple[Package, ...]
    revision: str
    in_store: bool
    size: int = 0
    layers: int = 0
    layers_here: int = 0
    bytes_here: int = 0
    contents: tuple[tuple[str, int], ...] = ()
    paths: int = 0


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
                    contents=_largest(closure),
                    paths=len(closure.paths),
                )
        self._cache[key] = preview
        return preview


def _largest(closure: Closure) -> tuple[tuple[str, int], ...]:
    """The names and sizes of the largest store paths."""
    largest = sorted(closure.paths, key=lambda info: (-info.nar_size, info.path))[:_MOST_CONTENTS]
    return tuple((", ".join(names.store_names(info.path)), info.nar_size) for info in largest)
