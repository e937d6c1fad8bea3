"""Nobody can tell nixfront from the registry: the same bytes are sent to a registry alone and to its twin behind nixfront."""

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from proxy.core.model import DOCKER_LIST, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST, canonical_json
from tests.support import handmade
from tests.support.front import Front, front
from tests.support.replay import ABSENT, DIFFERENCES, HOST, ROWS, SECTIONS, Row, chunked
from tests.support.servers import stock_registry
from tests.support.wire import Reply, exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")

FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
LARGE = bytes(range(256)) * 16384  # 4 MiB
_OF_THE_CONNECTION = (b"connection:", b"transfer-encoding:", b"content-length:")
# What a registry alone says otherwise each time it is asked.
_MASKS = (
    (rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", b"UUID"),
    (rb"_state=[\w%=-]+", b"_state=STATE"),
    (rb"(?m)^Date: [^\r]*", b"Date: NOW"),
    (rb"(?m)^X-Request-Id: [^\r]*\r\n", b""),  # nixfront names every answer
    (rb"boundary=\w+", b"boundary=LINE"),
    (rb"(?m)^--[0-9a-f]{60}", b"--LINE"),
    (rb'(?s)"signatures": \[.*\]', b"SIGNED"),  # a schema 1 manifest, made anew with each request
)


@dataclass(frozen=True, slots=True)
class Twins:
    """What both said to each row, and nixfront itself."""

    registry: str
    alone: list[Reply]
    behind: list[Reply]
    front: Front


@pytest.fixture
def nix_count() -> None:
    """Nothing here needs Nix (see `twins`), so it is not made ready for each row."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def twins(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Twins]:
    """There is no Nix for this nixfront: whatever starts one gets a 503."""
    folder = tmp_path_factory.mktemp("replay")
    async with (
        stock_registry(folder / "alone", quiet=True) as alone,
        stock_registry(folder / "twin", quiet=True) as twin,
        # Pages of other sites are refused under any name that is not nixfront's; the rows use this one.
        front(
            folder,
            folder / "nix-starts",
            twin.url,
            page={"enabled": False},
            http={"hosts": (HOST.partition(":")[0],)},
        ) as behind,
    ):
        prepared = [await stock(server.url) for server in (alone, twin)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", "/nonexistent")
            said = await asyncio.gather(replay(alone.url, prepared[0]), replay(behind.url, prepared[1]))
        yield Twins(alone.url, *said, behind)


async def stock(url: str) -> dict[str, bytes]:
    """What the rows find in the registry at `url`: values by name."""
    tars = [handmade.tar(entries) for entries in handmade.store_layers()]
    made = handmade.image(tars)
    oci = handmade.image(tars, media_type=OCI_MANIFEST)
    large = handmade.image([LARGE])
    index = f'{{"schemaVersion": 2, "mediaType": "{DOCKER_LIST}", "manifests": []}}'.encode()
    for name, tag, image in (
        ("team/tool", "v1", made),
        ("team/tool", "oci", oci),
        ("team/other", "v1", large),
        *((f"shelf/{letter}", "v1", made) for letter in "abcde"),
    ):
        await handmade.push(url, name, tag, image)
    await handmade.push(
        url, "team/tool", "index", handmade.HandmadeImage(index, DOCKER_LIST, b"{}", (LARGE,))
    )
    digest = handmade.digest_of
    child = {"mediaType": OCI_MANIFEST, "digest": digest(oci.manifest), "size": len(oci.manifest)}
    both = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]})
    suite = manifests()
    return {
        "layer": digest(made.layers[0]).encode(),
        "config": digest(made.config).encode(),
        "manifest": digest(made.manifest).encode(),
        "oci": digest(oci.manifest).encode(),
        "large": digest(LARGE).encode(),
        "new": digest(b"new blob").encode(),
        "pieces": digest(b"fourmorein pieces").encode(),
        "last": digest(b"fourlast").encode(),
        "both": digest(both).encode(),
        "new512": longer(b"new blob"),
        "oci512": longer(oci.manifest),
        "both512": longer(both),
        "absent512": longer(b"nobody has this"),
        "absent": ABSENT.encode(),
        "length": f"Content-Length: {len(made.manifest)}".encode(),
        "oci_length": f"Content-Length: {len(oci.manifest)}".encode(),
        "both_length": f"Content-Length: {len(both)}".encode(),
        "body both": both,
        "body manifest": made.manifest,
        "body oci": oci.manifest,
        "body chunked manifest": chunked(made.manifest[:100], made.manifest[100:]),
        "body large": LARGE,
        "body huge": b"{" + b" " * (4 << 20),
        "empty": digest(b"").encode(),
        "braces": digest(b"{}").encode(),
        **{name: digest(data).encode() for name, data in suite.items()},
        **{f"{name}_length": f"Content-Length: {len(data)}".encode() for name, data in suite.items()},
        **{f"body {name}": data for name, data in suite.items()},
    }


def manifests() -> dict[str, bytes]:
    """Manifests by name, as the conformance suite makes them; some of them of what no row pushes."""
    kind = "application/vnd.example.kind"
    blob = described(b"new blob", OCI_LAYER_GZIP)
    plain = oci_image(layers=[blob])
    subject = described(plain, OCI_MANIFEST)
    lost = described(b"never pushed", OCI_LAYER_GZIP)
    elsewhere = {**lost, "mediaType": FOREIGN, "urls": ["https://elsewhere.example/layer"]}
    child = {**subject, "platform": {"os": "linux", "architecture": "amd64"}}
    artifact = {"artifactType": kind, "annotations": {"org.example": "yes"}}
    nothing = described(b"{}", "application/vnd.oci.empty.v1+json")
    platforms = oci_index(manifests=[child])
    return {
        "plain": plain,
        "extra": oci_image(layers=[{**blob, "org.example": 1}], **{"org.example": {"a": [None, True]}}),
        "data": oci_image(layers=[{**blob, "data": base64.b64encode(b"new blob").decode()}]),
        "bare": oci_image(layers=[]),
        "annotated": oci_image(
            layers=[blob], annotations={f"org.example.{i}": "x" * 4096 for i in range(250)}
        ),
        "artifact": oci_image(
            layers=[{**blob, "mediaType": kind}], config=nothing, subject=subject, **artifact
        ),
        "foreign": oci_image(layers=[elsewhere]),
        "orphan": oci_image(layers=[blob], subject=described(b"{ }", OCI_MANIFEST)),
        "platforms": platforms,
        "nested": oci_index(manifests=[described(platforms, OCI_INDEX)]),
        "nobody": oci_index(manifests=[]),
        "attached": oci_index(manifests=[child], subject=subject, **artifact),
        "sparse": oci_image(layers=[lost]),
        "gaps": oci_index(manifests=[child, described(b"{ }", OCI_MANIFEST)]),
    }


def described(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": handmade.digest_of(data), "size": len(data)}


def oci_image(**fields: Any) -> bytes:
    """Its config is the shortest there is, unless it is among the fields."""
    config = described(b"{}", OCI_CONFIG)
    return canonical_json({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, **fields})


def oci_index(**fields: Any) -> bytes:
    return canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, **fields})


def longer(data: bytes) -> bytes:
    """The other digest that the image specification knows."""
    return f"sha512:{hashlib.sha512(data).hexdigest()}".encode()


async def replay(url: str, values: Mapping[str, bytes]) -> list[Reply]:
    """What the server at `url` says to the rows, one after the other."""
    known = dict(values)
    replies = []
    for row in ROWS:
        reply = await exchange(url, request(row, known), then=body(row.then, known))
        if row.keep:
            parts = urlsplit(reply.header("Location") or "")
            known[row.keep] = f"{parts.path}?{parts.query}".encode()
        replies.append(reply)
    return replies


def request(row: Row, values: Mapping[str, bytes]) -> bytes:
    """The bytes of a row."""
    host = () if row.bare else (f"Host: {HOST}",)
    head_lines = (row.version, *host, "Connection: close", *row.headers)
    text = {name: value.decode("latin-1") for name, value in values.items() if " " not in name}
    head = "".join(f"{line.format_map(text)}\r\n" for line in head_lines)
    return head.encode("latin-1") + b"\r\n" + body(row.body, values)


def body(wanted: bytes | str, values: Mapping[str, bytes]) -> bytes:
    return wanted if isinstance(wanted, bytes) else values[f"body {wanted}"]


def masked(data: bytes) -> bytes:
    for pattern, word in _MASKS:
        data = re.sub(pattern, word, data)
    return data


def lines_of(reply: Reply) -> list[bytes]:
    """The status line and the headers in their order; those of the connection itself, whose place is free, last."""
    return sorted(
        masked(reply.head + b"\r\n").split(b"\r\n"),
        key=lambda line: line.lower() if line.lower().startswith(_OF_THE_CONNECTION) else b"",
    )


def breach(row: Row, alone: Reply, behind: Reply) -> str:
    """What is wrong with the answer through nixfront, nothing if it is as it should be."""
    said = [(lines_of(reply), masked(reply.body), reply.complete, reply.interim) for reply in (alone, behind)]
    if row.differs is None:
        return "" if said[0] == said[1] else "the answers differ"
    _, status = row.differs
    if behind.status != status:
        return f"{status} was expected"
    return "it does not differ any more" if said[0] == said[1] else ""


@pytest.mark.parametrize("section", SECTIONS)
async def test_the_same_answers(twins: Twins, section: str) -> None:
    wrong = [
        f"{row.line[:200]} {row.headers!r:.200}: {what}\n  alone  {alone!r:.1500}\n  behind {behind!r:.1500}"
        for row, alone, behind in zip(ROWS, twins.alone, twins.behind, strict=True)
        if row in SECTIONS[section] and (what := breach(row, alone, behind))
    ]

    assert not wrong, "\n".join(wrong)


async def test_the_table_is_long_and_its_differences_are_few() -> None:
    distinct = {(row.line, row.headers, row.body, row.then, row.bare) for row in ROWS}
    plain = [row for row in ROWS if row.differs is None]

    assert len(distinct) >= 150
    assert len(plain) > 0.85 * len(ROWS)
    assert {row.differs[0] for row in ROWS if row.differs is not None} == set(DIFFERENCES)


async def test_many_requests_on_one_connection(twins: Twins) -> None:
    """Pipelined: an answer that has no end of its own, or an unread body, would swallow the next."""
    digest = handmade.digest_of(LARGE).encode()
    lines = [
        b"GET /v2/ HTTP/1.1",
        b"POST /v2/ HTTP/1.1\r\nContent-Length: 5",
        b"HEAD /v2/team/other/blobs/" + digest + b" HTTP/1.1",
        b"GET /v2/team/other/blobs/" + digest + b" HTTP/1.1\r\nRange: bytes=0-9",
        b"GET /v2/nosuch HTTP/1.1",
        b"GET /v2 HTTP/1.1",
        b"GET /v2/team/other/blobs/" + digest + b' HTTP/1.1\r\nIf-None-Match: "' + digest + b'"',
        b"GET /v2/_catalog?n=1 HTTP/1.1\r\nConnection: close",
    ]
    bodies = {1: b"hello"}
    sent = b"".join(
        line + b"\r\nHost: x\r\n\r\n" + bodies.get(number, b"") for number, line in enumerate(lines)
    )

    alone, behind = [await exchange(url, sent) for url in (twins.registry, twins.front.url)]

    assert masked(behind.body) == masked(alone.body)
    assert lines_of(behind) == lines_of(alone)
