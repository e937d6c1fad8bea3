"""Which revision of a package set a request means, and its packages there."""

from collections.abc import Sequence

from proxy.core.errors import TagUnknown
from proxy.core.model import ImageRequest, Package, PackageSet
from proxy.core.names import unspelled_tag, version_tag
from proxy.nix.evaluate import Evaluator
from proxy.nix.sets import LATEST, PackageSets


async def chosen_set(
    request: ImageRequest, sets: PackageSets, evaluator: Evaluator, always: Sequence[str]
) -> PackageSet:
    """The revision that the request's tag chooses, or the default one if the tag is the version of the first package there.

    `always`: attributes of every image. Raises a `NixfrontError`.
    """
    try:
        return await sets.resolve(request.package_set, request.tag, request.preset.system)
    except TagUnknown as unknown:
        if version_tag(unspelled_tag(request.tag)) != request.tag:
            raise
        default = await sets.resolve(request.package_set, LATEST, request.preset.system)
        package = (await evaluated(request, default, evaluator, always))[
            request.first or request.attributes[0]
        ]
        if version_tag(package.version) == request.tag:
            return default
        there = f"has the version {package.version}" if package.version else "has no version"
        raise TagUnknown(f"{unknown}; {package.attribute} {there} at {LATEST}") from unknown


async def evaluated(
    request: ImageRequest, package_set: PackageSet, evaluator: Evaluator, always: Sequence[str]
) -> dict[str, Package]:
    """The packages of a request by their names as typed. `always` as above. Raises a `NixfrontError`."""
    attributes = sorted(request.attributes)
    optional = [name for name in always if name not in attributes]
    return await evaluator.evaluate(package_set, attributes, optional, request.preset.system)
