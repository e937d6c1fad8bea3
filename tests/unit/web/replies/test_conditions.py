"""Which conditions name an answer, and what a 304 says."""

import pytest

from proxy.core.model import DOCKER_MANIFEST, EVERY_MANIFEST_TYPE, OCI_INDEX, OCI_MANIFEST
from proxy.web.replies import conditions
from proxy.web.replies.negotiation import takes_manifests_alone, types

DIGEST = "sha256:" + "1" * 64
ETAG = f'"{DIGEST}"'


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([ETAG], True),
        ([f"W/{ETAG}"], True),
        ([DIGEST], True),
        (['"other", ' + ETAG], True),
        (['"other",' + ETAG + ', "third"'], True),
        (['"other"', f"W/{ETAG}"], True),
        (["*"], True),
        ([" * "], True),
        ([""], False),
        (['""'], False),
        (['"other"'], False),
        (['"a, *, b"'], False),
        ([f'"x{DIGEST}"'], False),
        ([f'"{DIGEST}x"'], False),
        ([f"{DIGEST}x"], False),
        ([f'w/"{DIGEST}x"'], False),
    ],
)
def test_what_names_an_answer(lines: list[str], named: bool) -> None:
    assert conditions.names(lines, ETAG, DIGEST) is named
    assert conditions.names(lines, f"W/{ETAG}", DIGEST) is named
    assert conditions.names(lines, "", DIGEST) is named, "a registry may leave the ETag out"


def test_an_answer_with_no_name_is_named_by_a_star_alone() -> None:
    assert not conditions.names(['"", "x"'], "", "")
    assert conditions.names(["*"], "", "")


def test_a_long_condition_is_read_in_linear_time() -> None:
    assert not conditions.names(['"' * 200_001, "W/" * 100_000, "," * 200_000], ETAG, DIGEST)


def test_a_304_has_all_headers_but_those_of_the_body() -> None:
    pairs = [
        ("Content-Type", "a"),
        ("ETag", ETAG),
        ("content-length", "3"),
        ("Date", "now"),
        ("Vary", "Accept"),
    ]

    assert conditions.without_body(pairs) == [("ETag", ETAG), ("Date", "now"), ("Vary", "Accept")]


@pytest.mark.parametrize(
    ("lines", "alone"),
    [
        ([], False),
        (["*/*"], False),
        (["application/*", DOCKER_MANIFEST], False),
        ([OCI_MANIFEST, OCI_INDEX], False),
        ([f"{DOCKER_MANIFEST}, */*"], False),
        ([EVERY_MANIFEST_TYPE], False),
        (["text/html"], False),
        ([DOCKER_MANIFEST, f" {OCI_MANIFEST.upper()};q=0.1"], True),
    ],
)
def test_who_takes_manifests_and_no_index(lines: list[str], alone: bool) -> None:
    assert takes_manifests_alone(types(lines)) is alone
