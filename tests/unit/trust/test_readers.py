"""What people read of a document: the same of both forms of ours, and within bounds of any that a stranger wrote."""

import json
from typing import Any

import pytest

from proxy.core.foreign import DocumentInvalid
from proxy.trust import readers
from proxy.trust.documents import documents
from proxy.trust.kinds import CYCLONEDX, KINDS, PROVENANCE, SPDX, Kind
from proxy.trust.readers import Materials, Part
from tests.support.image_facts import FACTS, PACKAGE

IMAGE = FACTS.manifest.digest
FIRST, SECOND = (layer.digest for layer in FACTS.layers[:2])
#: Values that stand where another kind of value has to be.
WRONG: tuple[Any, ...] = (1, "text", [None, 1])


@pytest.fixture(scope="module")
def ours() -> dict[str, bytes]:
    return dict(documents(FACTS))


@pytest.mark.parametrize("kind", [SPDX, CYCLONEDX], ids=lambda kind: kind.name)
def test_both_bills_of_materials_say_the_same(ours: dict[str, bytes], kind: Kind) -> None:
    said = readers.materials_of(kind, ours[kind.name])

    assert said.total == len(said.parts) == 4
    by_name = {(part.name, part.version): part for part in said.parts}
    assert by_name["glibc", "2.40-66"] == Part("glibc", "2.40-66", (), FIRST)
    hello = by_name["hello", "2.12.1"]
    assert hello.layer == SECOND
    assert sorted(hello.licences) == ["GPL-3.0-or-later", "Some Licence"], "by its name and no LicenseRef"


def test_provenance_says_from_what_and_by_whom(ours: dict[str, bytes]) -> None:
    origin = readers.origin_of(ours[PROVENANCE.name], IMAGE)

    assert (origin.package_set, origin.source) == ("nixpkgs", "https://example.org/set.tar.gz")
    assert origin.revision == "c" * 40
    assert (origin.builder, origin.version) == (FACTS.builder, FACTS.version)
    assert origin.derivations == (("hello", PACKAGE.drv_path),)


def test_a_statement_about_another_image_is_refused(ours: dict[str, bytes]) -> None:
    with pytest.raises(DocumentInvalid, match="not about this image"):
        readers.origin_of(ours[PROVENANCE.name], "sha256:" + "0" * 64)


def test_a_bill_of_another_program_is_read() -> None:
    spdx = {
        "packages": [
            {
                "name": "app",
                "SPDXID": "SPDXRef-app",
                "licenseConcluded": "MIT",
                "licenseDeclared": "NOASSERTION",
            },
            {"name": "image", "SPDXID": "SPDXRef-i", "primaryPackagePurpose": "CONTAINER"},
        ]
    }
    cyclonedx = {"components": [{"name": "app", "licenses": [{"expression": "MIT"}, {}]}]}

    for kind, document in ((SPDX, spdx), (CYCLONEDX, cyclonedx)):
        said = readers.materials_of(kind, json.dumps(document).encode())
        assert said == Materials((Part("app", licences=("MIT",)),), 1)


def test_what_a_reader_keeps_has_bounds() -> None:
    long, many = "x" * 300, readers.MOST_PARTS * 3
    licences = [{"license": {"name": f"{long}{number}"}} for number in range(100)]
    component = {"name": long, "version": long, "licenses": licences}
    cyclonedx = {"components": [component] + [{"name": "x"}] * (many - 1)}
    package = {"name": long, "versionInfo": long, "licenseDeclared": " AND ".join([long] * 10)}
    spdx = {"packages": [package] + [{"name": "x"}] * (many - 1)}
    for kind, document in ((SPDX, spdx), (CYCLONEDX, cyclonedx)):
        said = readers.materials_of(kind, json.dumps(document).encode())
        assert (said.total, len(said.parts)) == (many, readers.MOST_PARTS)
        first = said.parts[0]
        assert len(first.licences) < 10
        assert max(map(len, (first.name, first.version, *first.licences))) < 200

    dependencies = [{"uri": f"nix:{long}", "name": long}] * many
    statement = {
        "subject": [{"digest": {"sha256": IMAGE.removeprefix("sha256:")}}],
        "predicate": {"buildDefinition": {"resolvedDependencies": dependencies}},
    }
    origin = readers.origin_of(json.dumps(statement).encode(), IMAGE)
    assert (origin.total, len(origin.derivations)) == (many, readers.MOST_PARTS)
    assert max(len(text) for row in origin.derivations for text in row) < 200
    assert origin.source == "", "no derivation stands for the package set"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null]",
        b"\x7fELF\xff",
        b"[" * 100_000,
        b'{"packages": NaN, "components": NaN, "subject": NaN}',
        b'{"packages": [], "packages": [], "components": [], "components": []}',
        rb'{"components": [{"name": "\ud800"}], "packages": [{"name": "\ud800"}]}',
    ],
)
def test_what_is_no_document_is_refused(data: bytes) -> None:
    for kind in (SPDX, CYCLONEDX):
        with pytest.raises(DocumentInvalid):
            readers.materials_of(kind, data)
    with pytest.raises(DocumentInvalid):
        readers.origin_of(data, IMAGE)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_any_value_at_any_place_is_read_or_refused(ours: dict[str, bytes], kind: Kind) -> None:
    """Each value of a document of ours in turn becomes one of another type."""
    document = json.loads(ours[kind.name])
    refused = 0
    for holder, key in list(places(document)):
        before = holder[key]
        for wrong in WRONG:
            holder[key] = wrong
            data = json.dumps(document).encode()
            try:
                readers.origin_of(data, IMAGE) if kind == PROVENANCE else readers.materials_of(kind, data)
            except DocumentInvalid:
                refused += 1
        holder[key] = before

    assert refused > 20, "some of them are refused, and no other exception comes"


def places(value: Any) -> Any:
    """Each list or object in the value, with each key of it."""
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])
