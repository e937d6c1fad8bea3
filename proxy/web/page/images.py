"""The pages of images: all of them with filters and an order, one of them with its layers and documents."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from aiohttp import web

from proxy.web.page import templating, views
from proxy.web.page.documents import Documents, section
from proxy.web.page.listed import ListedImage
from proxy.web.page.templating import Pages
from proxy.web.page.visitor import Visitor

_OF_A_PAGE = 25
_LONGEST_WORD = 100  # characters of what a person types
_MOST_OTHERS = 3  # images that a layer names
#: Where an image comes from, and its orders, as the form names them.
ORIGINS = {"": "all", "ours": "made by this host", "pushed": "pushed"}
ORDERS = {"": "name", "age": "newest", "size": "largest", "pull": "last pulled", "pulls": "most pulls"}
_KEYS: Mapping[str, Callable[[ListedImage], Any]] = {
    "age": lambda image: (-image.made, image.name),
    "size": lambda image: (-image.size, image.name),
    "pull": lambda image: (-image.pulled, image.name),
    "pulls": lambda image: (-image.pulls, image.name),
}


def choose(
    images: Sequence[ListedImage], word: str, origin: str, order: str, platform: str = ""
) -> list[ListedImage]:
    """The images whose names, tags or contents hold the word, of this origin and platform, in this order."""
    chosen = [
        image
        for image in images
        if word in " ".join((image.repository, *image.tags, image.description)).lower()
        and (not platform or platform in image.platforms)
        and (origin not in ("ours", "pushed") or image.is_ours == (origin == "ours"))
    ]
    return sorted(chosen, key=_KEYS[order]) if order in _KEYS else chosen


def holders(image: ListedImage, images: Sequence[ListedImage]) -> dict[str, list[ListedImage]]:
    """For each layer of the image the other images that hold it."""
    own = {layer.digest for layer in image.layers}
    others: dict[str, list[ListedImage]] = {digest: [] for digest in own}
    for other in images:
        if other is not image:
            for digest in own & {layer.digest for layer in other.layers}:
                others[digest].append(other)
    return others


async def all_images(request: web.Request, visitor: Visitor) -> web.Response:
    """The images that a person wants to see."""
    listing = await visitor.images()
    word = request.query.get("q", "").strip().lower()[:_LONGEST_WORD]
    origin, order = request.query.get("from", ""), request.query.get("sort", "")
    platforms = sorted({platform for image in listing.images for platform in image.platforms})
    platform = request.query.get("platform", "")
    chosen = choose(listing.images, word, origin, order, platform if platform in platforms else "")
    pages = Pages(request, len(chosen), _OF_A_PAGE)
    context = {
        "images": listing.counted(pages.part(chosen)),
        "pages": pages,
        "total": len(listing.images),
        "trouble": listing.trouble,
        "word": word,
        "origin": origin,
        "order": order,
        "origins": ORIGINS,
        "platform": platform,
        "platforms": platforms,
        "orders": ORDERS,
    }
    return templating.page(request, "images.html", context)


async def one_image(
    request: web.Request,
    visitor: Visitor,
    documents: Documents,
    lines: Callable[[ListedImage], Sequence[object]],
) -> web.Response:
    """An image with its layers and documents, of the platform in the query.

    `lines` gives what a person types for an image.
    """
    name, digest = request.match_info["name"], request.match_info["digest"]
    listing = await visitor.images()
    image = next((each for each in listing.images if (each.repository, each.digest) == (name, digest)), None)
    if image is None:
        message = listing.trouble or f"{name} has no image {views.short(digest)} here."
        return templating.missing(request, message)
    platform = request.query.get("platform", "")
    wanted = (each for each in image.children if platform in each.platforms)
    child = next(chain(wanted, image.children), None)  # without a wish the first one
    shown = image if child is None else replace(image, layers=child.layers)
    manifest = digest if child is None else child.digest
    attached = await documents.section(name, manifest)
    materials = attached.materials
    context = {
        "manifest": manifest,
        "attached": attached,
        "components": section.rows(materials, shown.layers) if materials else [],
        "licences": section.licences(materials) if materials else [],
        "image": listing.counted([shown])[0],
        "platform": "" if child is None else ", ".join(child.platforms),
        "holders": holders(shown, [each for each in listing.images if each is not image]),
        "most_others": _MOST_OTHERS,
        "lines_to_type": lines(image),
    }
    return templating.page(request, "image.html", context)
