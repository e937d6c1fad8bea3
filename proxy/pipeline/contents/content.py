"""What an image holds, and how to get it, as values."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from proxy.core.model import ImageRequest, LayerPlan, Package, PackageSet, PathInfo
from proxy.image.recipe import Recipe
from proxy.image.root_tree import Root
from proxy.pipeline.contents.store_files import StoreFiles


@dataclass(frozen=True, slots=True)
class Content:
    """Store paths, where their files are, and the plans of their layers.

    `packages` are those of a request, by the name as typed. A named image has its `recipe` and its `root` already.
    `version_tag`: the tag that is the version of the image, where the image gets it. `set_name`: what the operator calls the
    package set. `paths`: the closure.
    """

    package_set: PackageSet
    plans: tuple[LayerPlan, ...]
    output_tag: str
    files: StoreFiles
    packages: Mapping[str, Package] = field(default_factory=dict)
    recipe: Recipe | None = None
    root: Root | None = None
    version_tag: str | None = None
    set_name: str = ""
    paths: tuple[PathInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class ResolvedContent:
    """The content that a request means. `key` names it; `open` builds it and holds it while it is open.

    `open` raises a `NixfrontError` on entry. `through_store`: the same content in another way, for when its files prove
    `CacheUnusable`.
    """

    key: str
    open: Callable[[], AbstractAsyncContextManager[Content]]
    through_store: "ResolvedContent | None" = None

    @property
    def ways(self) -> int:
        """How many ways to the content are left, this one among them."""
        return 1 + (self.through_store.ways if self.through_store else 0)


class Contents(Protocol):
    """One kind of contents."""

    async def resolve(self, request: ImageRequest) -> ResolvedContent:
        """The content that this request means now; builds nothing. Raises a `NixfrontError`."""
