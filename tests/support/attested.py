"""The documents of an image, validated by the libraries of their own formats."""

import json
import re
import sys
import threading
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cyclonedx.schema import SchemaVersion
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from proxy.core.model import digest_of
from proxy.trust import provenance

if TYPE_CHECKING:
    from cyclonedx.validation.json import JsonStrictValidator

#: What RFC 3987 allows nowhere in an IRI.
_NO_IRI = re.compile(r"[\x00-\x20\x7f-\x9f<>\"{}|\\^`\ud800-\udfff]|%(?![0-9a-fA-F]{2})")

_LOADING = threading.Lock()


def _cyclonedx_schema() -> "JsonStrictValidator":
    with _LOADING:  # several threads check documents
        return _loaded_schema()


@cache
def _loaded_schema() -> "JsonStrictValidator":
    """The library's validator, with a check of IRIs of our own: the one of `jsonschema` compiles a grammar for two seconds."""
    grammar = "rfc3987_syntax"
    loaded = sys.modules.get(grammar)
    sys.modules[grammar] = None  # type: ignore[assignment]  # then `jsonschema` goes without it
    try:
        from cyclonedx.validation.json import JsonStrictValidator
        from jsonschema.validators import Draft7Validator  # type: ignore[import-untyped]
    finally:
        del sys.modules[grammar]
        if loaded is not None:
            sys.modules[grammar] = loaded
    Draft7Validator.FORMAT_CHECKER.checks("iri-reference", raises=ValueError)(_is_iri)
    return JsonStrictValidator(SchemaVersion.V1_6)


def _is_iri(text: object) -> bool:
    """Whether it may be an IRI or a relative one, as far as characters and the authority go. Raises `ValueError` if not."""
    if not isinstance(text, str):
        return True
    urlsplit(text)
    return not _NO_IRI.search(text)


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
    error = _cyclonedx_schema().validate_str(json.dumps(document))
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
