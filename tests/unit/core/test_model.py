"""The JSON and the digests that every key of nixfront starts from, and that the values cannot be changed."""

import dataclasses
import hashlib
import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import model

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc\N{SNOWMAN}"), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param({"b": 1, "a": [1, "x"]}, '{"a":[1,"x"],"b":1}', id="keys sorted, no spaces"),
        pytest.param("\N{SNOWMAN}", '"\N{SNOWMAN}"', id="UTF-8, not escaped"),
        pytest.param('"\\\n', '"\\"\\\\\\n"', id="what must be escaped is"),
        pytest.param({"a": {"c": None, "b": True}}, '{"a":{"b":true,"c":null}}', id="sorted within, too"),
    ],
)
def test_canonical_json(value: object, text: str) -> None:
    assert model.canonical_json(value) == text.encode()


@given(JSON)
def test_canonical_json_says_what_it_was_given(value: object) -> None:
    assert json.loads(model.canonical_json(value)) == value


@given(st.dictionaries(st.text("abcdef", max_size=3), st.integers()), st.randoms(use_true_random=False))
def test_canonical_json_knows_no_order_of_keys(value: dict[str, int], random: Random) -> None:
    items = list(value.items())
    random.shuffle(items)

    assert model.canonical_json(dict(items)) == model.canonical_json(value)


def test_digests_are_sha256() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    assert model.sha256_hex(b"") == empty
    assert model.digest_of(b"") == f"sha256:{empty}"


@given(st.binary())
def test_a_digest_is_of_all_bytes(data: bytes) -> None:
    assert model.digest_of(data) == f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize(
    "value",
    [
        model.ImageRequest("git", "latest", ("git",)),
        model.PackageSet("nixpkgs", "/e", "r", "s", "1980-01-01T00:00:00Z"),
        model.Package("git", "git-2", "/d", (("out", "/o"),), "git"),
        model.PathInfo("/p", 1, ()),
        model.Closure((), ()),
        model.LayerPlan(("/p",)),
        model.Descriptor("t", 1, "sha256:0"),
        model.Layer("sha256:0", 1, "sha256:1"),
        model.Image(b"c", model.Descriptor("t", 1, "d"), b"m", model.Descriptor("t", 1, "d")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_compared_by_content_and_cannot_be_changed(value: object) -> None:
    assert dataclasses.is_dataclass(value)
    assert not isinstance(value, type)

    first = dataclasses.fields(value)[0].name

    assert dataclasses.replace(value) == value
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, first, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://me:secret@host/x.git", "https://host/x.git"),
        ("cannot fetch 'https://token@host/x': no", "cannot fetch 'https://host/x': no"),
        ("ssh://git@host/x and https://a:b@c/d", "ssh://host/x and https://c/d"),
        ("http://host/a@b", "http://host/a@b"),
        ("git@host:x", "git@host:x"),
    ],
)
def test_credentials_are_taken_out_of_addresses(text: str, told: str) -> None:
    assert model.without_credentials(text) == told
