"""Values as people read them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.web.page import views
from proxy.web.page.listed import ListedLayer
from proxy.web.page.views import WIDTH


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (12_345_678, "12.3 MB"),
        (999_999, "1.0 MB"),
        (123_456_789, "123 MB"),
        (5e15, "5000 TB"),
    ],
)
def test_sizes(number: float, shown: str) -> None:
    assert views.size(number) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (3.21, "3.2 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (250, "4 min 10 s"),
        (7500, "2 h 5 min"),
        (200_000, "2 d"),
    ],
)
def test_spans(seconds: float, shown: str) -> None:
    assert views.span(seconds) == shown


@pytest.mark.parametrize(
    ("passed", "shown"),
    [
        (-5, "just now"),
        (4, "just now"),
        (40, "40 s ago"),
        (250, "4 min ago"),
        (7500, "2 h ago"),
        (200_000, "2 d ago"),
    ],
)
def test_how_long_ago(passed: float, shown: str) -> None:
    assert views.ago(1_000_000 - passed, 1_000_000) == shown


@pytest.mark.parametrize(
    ("comment", "shown"),
    [
        ("", ""),
        ("a layer of somebody else", "a layer of somebody else"),
        (f"/nix/store/{'a' * 32}-hello-1.0", "hello-1.0"),
        (" ".join(f"/nix/store/{'a' * 32}-p{n}" for n in range(6)), "p0, p1, p2, p3 and 2 more"),
    ],
)
def test_what_is_in_a_layer(comment: str, shown: str) -> None:
    assert views.contents(comment) == shown


def test_references() -> None:
    assert views.reference("a/b", "latest") == "a/b"
    assert views.reference("a/b", "1.0") == "a/b:1.0"


@given(st.lists(st.integers(0, 10**10), max_size=125))
def test_the_picture_holds_every_layer_side_by_side(sizes: list[int]) -> None:
    layers = [ListedLayer(f"sha256:{number}", size) for number, size in enumerate(sizes)]

    blocks = views.picture(layers)

    assert sorted(block.layer.digest for block in blocks) == sorted(layer.digest for layer in layers)
    assert all(block.width >= 1 for block in blocks)
    assert all(one.x + one.width <= other.x + 0.02 for one, other in itertools.pairwise(blocks))
    assert not blocks or blocks[-1].x + blocks[-1].width <= WIDTH + 0.1
    assert [block.layer.size for block in blocks] == sorted(sizes, reverse=True)
