"""An image that a build has just made -> the facts for its documents."""

import json

from proxy import __version__
from proxy.core.model import Image, ImageRequest
from proxy.pipeline.contents.content import Content
from proxy.pipeline.keys import ImageOptions, byte_settings
from proxy.trust.facts import ImageFacts, LayerFacts


def facts_of(
    request: ImageRequest, content: Content, image: Image, options: ImageOptions, builder: str
) -> ImageFacts:
    """The facts of this image of a content; `builder` is the URI of this builder."""
    digests = [layer["digest"] for layer in json.loads(image.manifest)["layers"]]
    plans = [*(plan.paths for plan in content.plans), ()]  # and the root layer
    if content.recipe is not None:
        packages = content.recipe.packages
        requested = [package.attribute for package in packages]
    else:
        packages = tuple(content.packages.values())
        requested = [content.packages[name].attribute for name in request.attributes]
    return ImageFacts(
        request=request,
        manifest=image.manifest_descriptor,
        package_set=content.package_set,
        system=request.preset.system or options.system,
        packages=packages,
        requested=tuple(requested),
        paths=content.paths,
        layers=tuple(LayerFacts(*layer) for layer in zip(digests, plans, strict=True)),
        settings=byte_settings(options, content.set_name),
        builder=builder,
        version=__version__,
    )
