"""The bill of materials of an image in CycloneDX 1.6, made with `cyclonedx-python-lib`.

The library would write the time and a random serial number. Here the time is the date of the image, which is that of the
source, and the serial number follows from the digest.
"""

import json
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime

from cyclonedx.model import ExternalReference, ExternalReferenceType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.bom_ref import BomRef
from cyclonedx.model.component import Component as Part
from cyclonedx.model.component import ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.impact_analysis import ImpactAnalysisState
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.model.tool import ToolRepository
from cyclonedx.model.vulnerability import BomTarget, Vulnerability, VulnerabilityAnalysis
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.spdx import is_supported_id

from proxy.core.model import canonical_json
from proxy.trust import purl
from proxy.trust.facts import CVE, Component, ImageFacts

_SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:nixfront:cyclonedx")


def document(facts: ImageFacts) -> bytes:
    """The document, as canonical JSON."""
    name, digest = facts.request.repository, facts.manifest.digest
    refs = {part.path: BomRef(part.path) for part in facts.components}
    image = Part(
        name=name,
        version=digest,
        type=ComponentType.CONTAINER,
        bom_ref=f"{name}@{digest}",
        purl=purl.of_image(facts),
    )
    tool = Part(name="nixfront", version=facts.version, type=ComponentType.APPLICATION)
    bom = Bom(
        serial_number=uuid.uuid5(_SPACE, f"{name}@{digest}"),
        metadata=BomMetaData(
            component=image,
            tools=ToolRepository(components=[tool]),
            timestamp=datetime.fromisoformat(facts.package_set.created).astimezone(UTC),
        ),
        components=[_component(part, refs[part.path], facts) for part in facts.components],
        dependencies=_dependencies(facts, image.bom_ref, refs),
        vulnerabilities=_vulnerabilities(facts),
    )
    return canonical_json(json.loads(JsonV1Dot6(bom).output_as_string()))


def _component(part: Component, ref: BomRef, facts: ImageFacts) -> Part:
    package = part.package
    return Part(
        name=part.name,
        version=part.version or None,
        type=ComponentType.LIBRARY,
        bom_ref=ref.value,
        purl=purl.of_component(part),
        description=(package.description or None) if package else None,
        licenses=[_license(name) for name in (package.licenses if package else ())],
        external_references=[
            ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(page)) for page in _pages(part)
        ],
        properties=list(_properties(part, facts)),
    )


def _pages(part: Component) -> list[str]:
    return [part.homepage] if part.homepage else []


def _properties(part: Component, facts: ImageFacts) -> Iterable[Property]:
    yield Property(name="nixfront:layer", value=part.layer)
    if part.output:
        yield Property(name="nixfront:output", value=part.output)
    if part.package is not None:
        yield Property(name="nixfront:attribute", value=part.package.attribute)
        yield Property(name="nixfront:derivation", value=part.package.drv_path)
    if facts.is_requested(part):
        yield Property(name="nixfront:requested", value="true")


def _license(name: str) -> DisjunctiveLicense:
    return DisjunctiveLicense(id=name) if is_supported_id(name) else DisjunctiveLicense(name=name)


def _dependencies(facts: ImageFacts, image: BomRef, refs: dict[str, BomRef]) -> list[Dependency]:
    requested = [Dependency(refs[part.path]) for part in facts.components if facts.is_requested(part)]
    return [
        Dependency(image, requested),
        *(
            Dependency(refs[part.path], [Dependency(refs[path]) for path in part.needs if path in refs])
            for part in facts.components
        ),
    ]


def _vulnerabilities(facts: ImageFacts) -> list[Vulnerability]:
    """What the package set knows of, and the policy let pass: one for each text of a package."""
    affected: dict[str, list[str]] = {}
    for part in facts.components:
        for text in part.package.vulnerabilities if part.package else ():
            affected.setdefault(text, []).append(part.path)
    return [
        Vulnerability(
            bom_ref=f"vulnerability-{number}",
            id=match[0] if (match := CVE.search(text)) else None,
            description=text,
            analysis=VulnerabilityAnalysis(state=ImpactAnalysisState.IN_TRIAGE),
            affects=[BomTarget(ref=path) for path in paths],
        )
        for number, (text, paths) in enumerate(sorted(affected.items()))
    ]
