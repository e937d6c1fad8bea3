"""The documents of an image, validated by the libraries of their own formats."""

import json
from collections.abc import Mapping
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from proxy.core.model import digest_of
from proxy.trust import provenance

_CYCLONEDX_SCHEMA = JsonStrictValidator(SchemaVersion.V1_6)


def check_documents(documents: Mapping[str, bytes], digest: str) -> dict[str, Any]:
    """The parsed documents by kind, each valid and about the image with this digest. Raises `AssertionError`."""
    parsed = {kind: json.loads(document) for kind, document in documents.items()}
    for kind, document in documents.items():
        checked = (kind, digest_of(document), digest)
        if checked not in _VALID:
            _CHECKS[kind](parsed[kind], digest)
            _VALID.add(checked)
    return parsed


def _check_spdx(document: dict[str, Any], digest: str) -> None:
    read = JsonLikeDictParser().parse(document)  # type: ignore[no-untyped-call]
    messages = validate_full_spdx_document(read, "SPDX-2.3")
    assert not messages, f"the SPDX document is invalid: {messages[:3]}"
    image = next(package for package in document["packages"] if package["SPDXID"] == "SPDXRef-image")
    assert image["versionInfo"] == digest


def _check_cyclonedx(document: dict[str, Any], digest: str) -> None:
    error = _CYCLONEDX_SCHEMA.validate_str(json.dumps(document))
    assert error is None, f"the CycloneDX document is invalid: {error}"
    assert document["specVersion"] == "1.6"
    assert document["metadata"]["component"]["version"] == digest


def _check_provenance(document: dict[str, Any], digest: str) -> None:
    """What in-toto's statement v1 and SLSA's predicate v1 demand; neither has a schema in a library."""
    assert document["_type"] == provenance.STATEMENT
    assert document["predicateType"] == provenance.PREDICATE
    assert [subject["digest"] for subject in document["subject"]] == [{"sha256": digest.split(":")[1]}]
    assert set(document) == {"_type", "subject", "predicateType", "predicate"}
    predicate = document["predicate"]
    assert set(predicate) <= {"buildDefinition", "runDetails"}
    definition = predicate["buildDefinition"]
    assert set(definition) <= {
        "buildType",
        "externalParameters",
        "internalParameters",
        "resolvedDependencies",
    }
    assert definition["externalParameters"], "SLSA demands external parameters"
    for uri in (definition["buildType"], predicate["runDetails"]["builder"]["id"]):
        assert ":" in uri, f"{uri!r} is no URI"
    for dependency in definition["resolvedDependencies"]:
        assert dependency.get("uri") or dependency.get("digest"), "a dependency says nothing"
        assert all(isinstance(value, str) for value in dependency.get("digest", {}).values())


#: A schema takes longer than all else that a test does with an image, and many tests have the same image.
_VALID: set[tuple[str, str, str]] = set()
_CHECKS = {"spdx": _check_spdx, "cyclonedx": _check_cyclonedx, "provenance": _check_provenance}
