"""The documents of an image follow from its facts alone, and the libraries of their formats accept them."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.core.model import OCI_MANIFEST
from proxy.trust import kinds, record
from proxy.trust.documents import documents
from proxy.trust.facts import split_name
from tests.support.attested import check_documents
from tests.support.image_facts import FACTS, GLIBC, HASHES, HELLO, HELLO_DEV, ODD, PACKAGE


@pytest.fixture(scope="module")
def parsed() -> dict[str, Any]:
    return check_documents(documents(FACTS), FACTS.manifest.digest)


def relations(spdx: dict[str, Any]) -> set[tuple[str, str, str]]:
    ids = {package["SPDXID"]: package.get("packageFileName", package["name"]) for package in spdx["packages"]}
    return {
        (ids.get(one["spdxElementId"], ""), one["relationshipType"], ids[one["relatedSpdxElement"]])
        for one in spdx["relationships"]
    }


def test_spdx_says_what_is_where_and_what_needs_what(parsed: dict[str, Any]) -> None:
    assert relations(parsed["spdx"]) == {
        ("", "DESCRIBES", "shell/hello"),
        ("shell/hello", "CONTAINS", "layer 0"),
        ("shell/hello", "CONTAINS", "layer 1"),
        ("shell/hello", "CONTAINS", "layer 2"),
        ("layer 0", "CONTAINS", GLIBC),
        ("layer 1", "CONTAINS", HELLO),
        ("layer 1", "CONTAINS", HELLO_DEV),
        ("layer 1", "CONTAINS", ODD),
        ("shell/hello", "DEPENDS_ON", HELLO),
        ("shell/hello", "DEPENDS_ON", HELLO_DEV),
        (HELLO, "DEPENDS_ON", GLIBC),
        (HELLO_DEV, "DEPENDS_ON", HELLO),
    }


def test_spdx_has_what_the_package_set_says_of_a_package(parsed: dict[str, Any]) -> None:
    packages = {package.get("packageFileName"): package for package in parsed["spdx"]["packages"]}
    hello, glibc = packages[HELLO], packages[GLIBC]

    assert (hello["name"], hello["versionInfo"]) == ("hello", "2.12.1")
    assert hello["licenseDeclared"] == "GPL-3.0-or-later AND LicenseRef-nix-Some-Licence"
    assert hello["homepage"] == "https://www.gnu.org/software/hello/"
    assert hello["description"] == "Says hello"
    assert {reference["referenceLocator"] for reference in hello["externalRefs"]} == {
        f"pkg:nix/hello@2.12.1?outputhash={HASHES[1]}",
        "https://nvd.nist.gov/vuln/detail/CVE-2026-0001",
    }
    assert "nobody mends it" in hello["comment"]
    assert (glibc["name"], glibc["versionInfo"]) == ("glibc", "2.40-66")
    assert glibc["licenseDeclared"] == "NOASSERTION"
    assert parsed["spdx"]["creationInfo"]["created"] == "2026-01-31T00:00:00Z"


def test_cyclonedx_says_the_same(parsed: dict[str, Any]) -> None:
    document = parsed["cyclonedx"]
    components = {component["bom-ref"]: component for component in document["components"]}
    needs = {one["ref"]: set(one.get("dependsOn", ())) for one in document["dependencies"]}
    properties = {one["name"]: one["value"] for one in components[HELLO_DEV]["properties"]}

    assert set(components) == {GLIBC, HELLO, HELLO_DEV, ODD}
    assert needs[HELLO] == {GLIBC}
    assert needs[f"shell/hello@{FACTS.manifest.digest}"] == {HELLO, HELLO_DEV}
    assert components[HELLO_DEV]["purl"] == f"pkg:nix/hello@2.12.1?output=dev&outputhash={HASHES[2]}"
    assert components[HELLO]["licenses"] == [
        {"license": {"id": "GPL-3.0-or-later"}},
        {"license": {"name": "Some Licence"}},
    ]
    assert properties == {
        "nixfront:layer": "sha256:" + "2" * 64,
        "nixfront:output": "dev",
        "nixfront:attribute": "hello",
        "nixfront:derivation": PACKAGE.drv_path,
        "nixfront:requested": "true",
    }
    known = document["vulnerabilities"]
    assert [one.get("id") for one in known] == ["CVE-2026-0001", None]
    assert [{target["ref"] for target in one["affects"]} for one in known] == [{HELLO, HELLO_DEV}] * 2


def test_provenance_says_what_the_image_is_made_of(parsed: dict[str, Any]) -> None:
    predicate = parsed["provenance"]["predicate"]
    definition = predicate["buildDefinition"]

    assert definition["externalParameters"] == {
        "repository": "shell/hello",
        "metaPackages": ["shell"],
        "attributes": ["bash", "hello"],
        "system": "x86_64-linux",
    }
    assert definition["internalParameters"] == {"layers.compression": "tar1", "layers.most": 100}
    source, derivation = definition["resolvedDependencies"]
    assert source["uri"] == "https://example.org/set.tar.gz"
    assert source["digest"] == {"gitCommit": "c" * 40, "narHash": "00" * 32}
    assert derivation["uri"] == f"nix:{PACKAGE.drv_path}"
    assert derivation["annotations"]["outputs"] == {"out": HELLO, "dev": HELLO_DEV}
    assert predicate["runDetails"]["builder"] == {
        "id": "https://images.example.org",
        "version": {"nixfront": "1.2.3"},
    }
    assert "latest" not in json.dumps(parsed["provenance"]), "many tags name one image"


@pytest.mark.parametrize(
    "page", ["https://example.org/a b", "https://example.org/<a>", "https://[::1", "https://example.org/%zz"]
)
def test_the_validator_refuses_what_is_no_address(page: str) -> None:
    document = json.loads(documents(FACTS)["cyclonedx"])
    component = next(one for one in document["components"] if "externalReferences" in one)
    component["externalReferences"][0]["url"] = page

    with pytest.raises(AssertionError, match="the CycloneDX document is invalid"):
        check_documents({"cyclonedx": json.dumps(document).encode()}, FACTS.manifest.digest)


def test_no_document_names_a_path_of_the_host() -> None:
    assert b"/of/this/host" not in b"".join(documents(FACTS).values())


def test_documents_are_the_same_in_any_process_at_any_time(tmp_path: Path) -> None:
    """Also in the process that the server starts, with another seed of hashes and another zone.

    A file of facts that is wrong costs its own documents alone.
    """
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_bytes(record.write(FACTS))
    wrong.write_bytes(b'{"manifest": {}}')
    printed = subprocess.run(
        [sys.executable, "-m", "proxy.trust"],
        input=json.dumps([str(wrong), str(right)]).encode(),
        check=True,
        capture_output=True,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"},
    ).stdout
    size, _, answer = printed.partition(b"\n")
    made = json.loads(answer)

    assert int(size) == len(answer)
    assert set(made[str(wrong)]) == {"error"}
    assert {kind: text.encode() for kind, text in made[str(right)].items()} == documents(FACTS)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("request",), None),
        (("request", "attributes"), "bash"),
        (("request", "preset", "environment"), [["name", "value", "more"]]),
        (("manifest", "size"), "1234"),
        (("packages", 0, "outputs"), {"out": HELLO}),
        (("paths", 0, "references", 0), 7),
        (("layers",), 7),
        (("settings",), {"layers.most": None}),
        (("settings",), []),
        (("builder",), None),
    ],
)
def test_a_record_of_something_else_is_refused(place: tuple[str | int, ...], value: object) -> None:
    document = json.loads(record.write(FACTS))
    inside = document
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = value

    with pytest.raises(ValueError, match="no facts of an image"):
        record.read(json.dumps(document).encode())


def test_a_record_of_another_version_is_read_as_far_as_it_goes() -> None:
    """A field that came later has a default here, and one that is gone there is nobody's."""
    document = json.loads(record.write(FACTS))
    del document["packages"][0]["vulnerabilities"]
    document["packages"][0]["novel"] = [1]

    facts = replace(FACTS, packages=(replace(PACKAGE, vulnerabilities=()),))
    assert record.read(json.dumps(document).encode()) == facts

    del document["builder"]
    with pytest.raises(ValueError, match="builder"):
        record.read(json.dumps(document).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "", "name": "x"},
        {"licenses": ("MIT", "mit", "AND", "a (b", "ü" * 200, "a(b", "GPL-2.0+", "LicenseRef-x")},
        {"homepage": "javascript:alert(1)"},
        {"homepage": "https://example.org/a b"},
        {"homepage": "https://example.org/ü"},
        {"homepage": "http://localhost"},
        {"description": "\x1b[31m\u2028</script>" + "x" * 900},
        {"version": "1 2/3?#&@%\n\x00"},
        {"vulnerabilities": ("", "CVE-2026-0001 and CVE-2026-0002", "x" * 1000)},
        {"name": "-", "version": "-"},
    ],
)
def test_a_package_set_may_write_anything(changes: dict[str, Any]) -> None:
    facts = replace(FACTS, packages=(replace(PACKAGE, **changes),))

    check_documents(documents(record.read(record.write(facts))), facts.manifest.digest)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hello-2.12.1", ("hello", "2.12.1", "")),
        ("glibc-2.40-66-bin", ("glibc", "2.40-66", "bin")),
        ("python3.11-numpy-1.24.2", ("python3.11-numpy", "1.24.2", "")),
        ("nss-cacert-3.98", ("nss-cacert", "3.98", "")),
        ("source", ("source", "", "")),
        ("gcc-13.2.0-lib", ("gcc", "13.2.0", "lib")),
        ("bash-interactive-5.2-p15", ("bash-interactive", "5.2-p15", "")),
        ("-1", ("-1", "", "")),
    ],
)
def test_the_name_of_a_store_path_has_name_version_and_output(name: str, parts: tuple[str, str, str]) -> None:
    assert split_name(name) == parts


def test_an_artifact_names_its_image_and_holds_its_document() -> None:
    artifact = kinds.artifact(kinds.SPDX, b"{}", FACTS.manifest)
    manifest = json.loads(artifact.manifest)

    assert manifest["subject"] == {
        "mediaType": OCI_MANIFEST,
        "size": 1234,
        "digest": FACTS.manifest.digest,
    }
    assert manifest["artifactType"] == "application/spdx+json"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", manifest["layers"][0]["digest"])
    assert kinds.kind_of(manifest["annotations"]) == "spdx"
    assert kinds.kind_of({"nixfront.document": "other"}) == ""
    assert kinds.kind_of({}) == ""
