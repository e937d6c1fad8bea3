"""What a document says, for people. Anybody may have written it, so each reader bounds what it keeps.

The documents of other programs (Syft, BuildKit, Trivy) have the same forms, so they are read too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.core import foreign
from proxy.core.foreign import DocumentInvalid, to_list, to_object, to_text
from proxy.trust.kinds import CYCLONEDX, Kind

#: Components and derivations that a reader keeps.
MOST_PARTS = 1000
_MOST_LICENCES = 5  # of a component
_LONGEST = 160  # characters of a text
_OF_NO_PACKAGE = ("CONTAINER", "ARCHIVE")  # the image and its layers
_NO_LICENCE = ("", "NOASSERTION", "NONE")
_LAYER = "nixfront:layer"


@dataclass(frozen=True, slots=True)
class Part:
    """A component of an image. `layer`: the digest of the layer that holds it, or empty."""

    name: str
    version: str = ""
    licences: tuple[str, ...] = ()
    layer: str = ""


@dataclass(frozen=True, slots=True)
class Materials:
    """The components of an image; `total` counts those too that are left out."""

    parts: tuple[Part, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Origin:
    """How an image was made. `derivations`: names with paths; `total` counts those too that are left out."""

    package_set: str = ""
    source: str = ""
    revision: str = ""
    builder: str = ""
    version: str = ""
    derivations: tuple[tuple[str, str], ...] = ()
    total: int = 0


def materials_of(kind: Kind, data: bytes) -> Materials:
    """The components in a bill of materials of this kind. Raises `DocumentInvalid`."""
    document = to_object(foreign.parse(data), "the document")
    if kind == CYCLONEDX:
        listed = to_list(document.get("components"), "components")
        return Materials(tuple(map(_of_cyclonedx, listed[:MOST_PARTS])), len(listed))
    packages = [to_object(each, "a package") for each in to_list(document.get("packages"), "packages")]
    listed = [each for each in packages if each.get("primaryPackagePurpose") not in _OF_NO_PACKAGE]
    layers, names = _layers(document, packages), _licence_names(document)
    parts = (_of_spdx(each, layers, names) for each in listed[:MOST_PARTS])
    return Materials(tuple(parts), len(listed))


def origin_of(data: bytes, image: str) -> Origin:
    """What a statement of in-toto and SLSA says about the manifest `image`. Raises `DocumentInvalid`."""
    document = to_object(foreign.parse(data), "the statement")
    digests = [
        to_object(to_object(each, "a subject").get("digest"), "the digest of a subject")
        for each in to_list(document.get("subject"), "subject")
    ]
    algorithm, _, hexadecimal = image.partition(":")
    if not any(digest.get(algorithm) == hexadecimal for digest in digests):
        raise DocumentInvalid("the statement is not about this image")
    predicate = to_object(document.get("predicate"), "predicate")
    definition = to_object(predicate.get("buildDefinition"), "buildDefinition")
    run = to_object(predicate.get("runDetails"), "runDetails")
    builder = to_object(run.get("builder"), "builder")
    materials = to_list(definition.get("resolvedDependencies"), "resolvedDependencies")
    dependencies = [to_object(each, "a dependency") for each in materials]
    derivations = [each for each in dependencies if _text(each, "uri").startswith("nix:")]
    source = next((each for each in dependencies if not _text(each, "uri").startswith("nix:")), {})
    return Origin(
        package_set=_text(source, "name"),
        source=_text(source, "uri"),
        revision=_text(to_object(source.get("annotations"), "annotations"), "revision"),
        builder=_text(builder, "id"),
        version=_text(to_object(builder.get("version"), "version"), "nixfront"),
        derivations=tuple(
            (_text(each, "name"), _text(each, "uri").removeprefix("nix:"))
            for each in derivations[:MOST_PARTS]
        ),
        total=len(derivations),
    )


def _of_cyclonedx(value: Any) -> Part:
    component = to_object(value, "a component")
    properties = [
        to_object(each, "a property") for each in to_list(component.get("properties"), "properties")
    ]
    layers = (_text(each, "value") for each in properties if each.get("name") == _LAYER)
    choices = [to_object(each, "a licence") for each in to_list(component.get("licenses"), "licenses")]
    return Part(
        _text(component, "name"),
        _text(component, "version"),
        tuple(name for name in map(_choice, choices[:_MOST_LICENCES]) if name),
        next(layers, ""),
    )


def _choice(choice: Mapping[str, Any]) -> str:
    licence = to_object(choice.get("license"), "license")
    return _text(choice, "expression") or _text(licence, "id") or _text(licence, "name")


def _of_spdx(package: Mapping[str, Any], layers: Mapping[str, str], names: Mapping[str, str]) -> Part:
    declared, concluded = (_text(package, key) for key in ("licenseDeclared", "licenseConcluded"))
    expression = concluded if declared in _NO_LICENCE else declared
    licences = [] if expression in _NO_LICENCE else expression.split(" AND ")[:_MOST_LICENCES]
    return Part(
        _text(package, "name"),
        _text(package, "versionInfo"),
        tuple(names.get(each, each) for each in licences),
        layers.get(_text(package, "SPDXID"), ""),
    )


def _layers(document: Mapping[str, Any], packages: list[Mapping[str, Any]]) -> dict[str, str]:
    """The digest of the layer that holds a package, by the id of the package."""
    digests = {
        _text(each, "SPDXID"): _text(each, "versionInfo")
        for each in packages
        if each.get("primaryPackagePurpose") == "ARCHIVE"
    }
    return {
        part: digests[layer]
        for layer, kind, part in _relations(document)
        if kind == "CONTAINS" and layer in digests
    }


def _relations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for value in to_list(document.get("relationships"), "relationships"):
        relation = to_object(value, "a relationship")
        yield (
            _text(relation, "spdxElementId"),
            _text(relation, "relationshipType"),
            _text(relation, "relatedSpdxElement"),
        )


def _licence_names(document: Mapping[str, Any]) -> dict[str, str]:
    """What the document calls licences that SPDX does not list, by their ids."""
    key = "hasExtractedLicensingInfos"
    infos = (to_object(each, "a licence") for each in to_list(document.get(key), key))
    return {_text(each, "licenseId"): _text(each, "name") for each in infos if each.get("name")}


def _text(value: Mapping[str, Any], key: str) -> str:
    """The text of this key, cut to a length that a page can show."""
    text = to_text(value.get(key), key)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
