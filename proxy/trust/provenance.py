"""How an image was made: an in-toto statement v1 with the predicate of SLSA v1.

The statement holds what decides the bytes: the request, the revision of the package set, the derivations, and settings. It has
no times and no id of a run, so an image has the same statement wherever it is made.
"""

import base64
import re
from typing import Any

from proxy.core.model import canonical_json
from proxy.trust.facts import ImageFacts

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
#: What `externalParameters` and `internalParameters` mean: config/trust.md says it.
BUILD_TYPE = "urn:nixfront:image:v1"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def document(facts: ImageFacts) -> bytes:
    """The statement, as canonical JSON."""
    algorithm, _, hexadecimal = facts.manifest.digest.partition(":")
    return canonical_json(
        {
            "_type": STATEMENT,
            "subject": [{"name": facts.request.repository, "digest": {algorithm: hexadecimal}}],
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": _request(facts),
                    "internalParameters": dict(facts.settings),
                    "resolvedDependencies": [_source(facts), *_derivations(facts)],
                },
                "runDetails": {
                    "builder": {"id": facts.builder, "version": {"nixfront": facts.version}},
                },
            },
        }
    )


def _request(facts: ImageFacts) -> dict[str, Any]:
    """What the client named, without the tag: many tags name one image, and the revision is below."""
    request = facts.request
    fields: dict[str, Any] = {
        "repository": request.repository,
        "packageSet": request.package_set,
        "metaPackages": list(request.presets),
        "attributes": list(request.attributes),
        "image": request.image,
    }
    return {**{name: value for name, value in fields.items() if value}, "system": facts.system}


def _source(facts: ImageFacts) -> dict[str, Any]:
    """The package set, as a ResourceDescriptor of in-toto."""
    chosen = facts.package_set
    digest = {}
    if _COMMIT.fullmatch(chosen.revision):
        digest["gitCommit"] = chosen.revision
    if nar := _sha256(chosen.nar_hash):
        digest["narHash"] = nar
    annotations = {"revision": chosen.revision, "narHash": chosen.nar_hash}
    return {
        "name": chosen.name,
        "uri": chosen.source,
        **({"digest": digest} if digest else {}),
        "annotations": {name: value for name, value in annotations.items() if value},
    }


def _derivations(facts: ImageFacts) -> list[dict[str, Any]]:
    """The derivation of each package, with its outputs."""
    return [
        {
            "name": package.attribute,
            "uri": f"nix:{package.drv_path}",
            "annotations": {"outputs": dict(package.outputs)},
        }
        for package in sorted(facts.packages, key=lambda package: (package.attribute, package.drv_path))
        if package.drv_path
    ]


def _sha256(sri: str) -> str:
    """The hexadecimal digits of a hash as `sha256-BASE64`; empty for another text."""
    algorithm, _, text = sri.partition("-")
    if algorithm != "sha256":
        return ""
    try:
        return base64.b64decode(text, validate=True).hex()
    except ValueError:
        return ""
