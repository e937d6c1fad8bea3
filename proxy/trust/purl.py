"""Package URLs: `pkg:nix` for a store path, `pkg:oci` for an image.

The specification has no type `nix` yet (purl-spec#876). Qualifiers are those that Syft writes: `output` and `outputhash`.
"""

from packageurl import PackageURL

from proxy.trust.facts import Component, ImageFacts


def of_component(part: Component) -> PackageURL:
    """The package URL of a store path."""
    output = {"output": part.output} if part.output else {}
    return PackageURL("nix", None, part.name, part.version or None, {**output, "outputhash": part.hash})


def of_image(facts: ImageFacts) -> PackageURL:
    """The package URL of an image. The host is left out: every client has its own name for it."""
    name = facts.request.repository.rpartition("/")[2]
    return PackageURL("oci", None, name, facts.manifest.digest)
