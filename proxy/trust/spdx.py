"""The bill of materials of an image in SPDX 2.3, made with `spdx-tools`.

The document describes the image, which contains its layers; a layer contains store paths, and these depend on one another. The
image depends on what the request names. `created` is a duty in SPDX: it is the date of the image, which is that of the source.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache

from license_expression import LicenseExpression, Licensing, get_spdx_licensing
from spdx_tools.spdx.jsonschema.document_converter import DocumentConverter
from spdx_tools.spdx.model import (
    Actor,
    ActorType,
    Checksum,
    ChecksumAlgorithm,
    CreationInfo,
    Document,
    ExternalPackageRef,
    ExternalPackageRefCategory,
    ExtractedLicensingInfo,
    Package,
    PackagePurpose,
    Relationship,
    RelationshipType,
    SpdxNoAssertion,
)

from proxy.core.model import canonical_json
from proxy.trust import purl
from proxy.trust.facts import CVE, Component, ImageFacts

_DOCUMENT = "SPDXRef-DOCUMENT"
_IMAGE = "SPDXRef-image"
_NAMESPACE = "https://spdx.org/spdxdocs/nixfront"
_NO_ID = re.compile(r"[^a-zA-Z0-9.-]+")


def document(facts: ImageFacts) -> bytes:
    """The document, as canonical JSON."""
    licenses = _Licenses()
    identity = facts.manifest.digest.replace(":", "-")
    packages = [_image(facts), *_layers(facts), *(_package(part, licenses) for part in facts.components)]
    written = Document(
        CreationInfo(
            "SPDX-2.3",
            _DOCUMENT,
            f"{facts.request.repository}@{facts.manifest.digest}",
            f"{_NAMESPACE}/{facts.request.repository}/{identity}",
            [Actor(ActorType.TOOL, f"nixfront-{facts.version}")],
            created(facts.package_set.created),
            data_license="CC0-1.0",
        ),
        packages=packages,
        relationships=[Relationship(_DOCUMENT, RelationshipType.DESCRIBES, _IMAGE), *_relations(facts)],
        extracted_licensing_info=licenses.extracted,
    )
    # The library validates for seconds; the tests do it.
    return canonical_json(DocumentConverter().convert(written))  # type: ignore[no-untyped-call]


def created(date: str) -> datetime:
    """The date in RFC 3339 as a time in UTC, without its zone and its fractions, as SPDX wants it."""
    return datetime.fromisoformat(date).astimezone(UTC).replace(tzinfo=None, microsecond=0)


def _image(facts: ImageFacts) -> Package:
    return Package(
        _IMAGE,
        facts.request.repository,
        SpdxNoAssertion(),
        version=facts.manifest.digest,
        files_analyzed=False,
        checksums=[_checksum(facts.manifest.digest)],
        license_concluded=SpdxNoAssertion(),
        license_declared=SpdxNoAssertion(),
        copyright_text=SpdxNoAssertion(),
        external_references=[_reference(str(purl.of_image(facts)))],
        primary_package_purpose=PackagePurpose.CONTAINER,
    )


def _layers(facts: ImageFacts) -> Iterator[Package]:
    for number, layer in enumerate(facts.layers):
        yield Package(
            _layer_id(number),
            f"layer {number}",
            SpdxNoAssertion(),
            version=layer.digest,
            files_analyzed=False,
            checksums=[_checksum(layer.digest)],
            license_concluded=SpdxNoAssertion(),
            license_declared=SpdxNoAssertion(),
            copyright_text=SpdxNoAssertion(),
            primary_package_purpose=PackagePurpose.ARCHIVE,
            comment=None if layer.paths else "links to the store paths, and files in /etc",
        )


def _package(part: Component, licenses: "_Licenses") -> Package:
    package = part.package
    vulnerabilities = package.vulnerabilities if package else ()
    advisories = sorted({name for text in vulnerabilities for name in CVE.findall(text)})
    return Package(
        _path_id(part.path),
        part.name,
        SpdxNoAssertion(),
        version=part.version or None,
        file_name=part.path,
        files_analyzed=False,
        homepage=part.homepage or None,
        source_info=f"built from {package.drv_path}" if package and package.drv_path else None,
        license_concluded=SpdxNoAssertion(),
        license_declared=licenses.expression(package.licenses if package else ()),
        copyright_text=SpdxNoAssertion(),
        description=(package.description or None) if package else None,
        comment="; ".join(f"vulnerability that the policy let pass: {text}" for text in vulnerabilities)
        or None,
        external_references=[
            _reference(str(purl.of_component(part))),
            *(
                ExternalPackageRef(
                    ExternalPackageRefCategory.SECURITY,
                    "advisory",
                    f"https://nvd.nist.gov/vuln/detail/{name}",
                )
                for name in advisories
            ),
        ],
    )


def _relations(facts: ImageFacts) -> Iterator[Relationship]:
    for number, layer in enumerate(facts.layers):
        yield Relationship(_IMAGE, RelationshipType.CONTAINS, _layer_id(number))
        for path in layer.paths:
            yield Relationship(_layer_id(number), RelationshipType.CONTAINS, _path_id(path))
    there = {part.path for part in facts.components}
    for part in facts.components:
        if facts.is_requested(part):
            yield Relationship(_IMAGE, RelationshipType.DEPENDS_ON, _path_id(part.path))
        for other in part.needs:
            if other in there:
                yield Relationship(_path_id(part.path), RelationshipType.DEPENDS_ON, _path_id(other))


class _Licenses:
    """Licences as SPDX writes them. What is no identifier of SPDX becomes a `LicenseRef` of this document."""

    def __init__(self) -> None:
        self.extracted: list[ExtractedLicensingInfo] = []
        self._ids: dict[str, str] = {}

    def expression(self, names: tuple[str, ...]) -> LicenseExpression | SpdxNoAssertion:
        """All of these licences together."""
        if not names:
            return SpdxNoAssertion()
        ids = dict.fromkeys(self._id(name) for name in names)
        return _licensing().parse(" AND ".join(ids))

    def _id(self, name: str) -> str:
        if name in _licensing().known_symbols:
            return name
        if name not in self._ids:
            stem = _NO_ID.sub("-", name).strip("-") or "other"
            identity = f"LicenseRef-nix-{stem[:60]}"
            if identity in self._ids.values():
                identity = f"{identity}-{len(self._ids)}"
            self._ids[name] = identity
            self.extracted.append(
                ExtractedLicensingInfo(identity, f"The package set names this licence {name}.", name)
            )
        return self._ids[name]


@cache
def _licensing() -> Licensing:
    """What SPDX knows of licences. It takes long to load, and many images have no licence that the set names."""
    return get_spdx_licensing()


def _checksum(digest: str) -> Checksum:
    return Checksum(ChecksumAlgorithm.SHA256, digest.removeprefix("sha256:"))


def _reference(url: str) -> ExternalPackageRef:
    return ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", url)


def _layer_id(number: int) -> str:
    return f"SPDXRef-layer-{number}"


def _path_id(path: str) -> str:
    """The hash in the path makes it unique."""
    return f"SPDXRef-{_NO_ID.sub('-', path.removeprefix('/nix/store/'))}"
