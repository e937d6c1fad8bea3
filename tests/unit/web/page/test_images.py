"""Which images a person sees, in which order, and which share their layers."""

import pytest

from proxy.web.page import images
from proxy.web.page.listed import ListedImage, ListedLayer

SMALL, LARGE = ListedLayer("sha256:1", 10, shared_by=2), ListedLayer("sha256:2", 100)
NEVER = "0123456789abcdef" * 2
GIT = ListedImage(
    "git",
    ("latest", "2.39", NEVER),
    "a",
    layers=(SMALL,),
    platforms=("linux/arm64",),
    is_ours=True,
    made=100,
    pulled=300,
    pulls=2,
)
JQ = ListedImage("jq", ("latest",), "b", layers=(SMALL, LARGE), is_ours=True, made=200, description="jq 1.6")
APP = ListedImage("team/app", ("v1",), "c", pulls=12)
EVERY = [GIT, JQ, APP]


@pytest.mark.parametrize(
    ("word", "origin", "order", "chosen"),
    [
        ("", "", "", [GIT, JQ, APP]),
        ("", "", "nosuch", [GIT, JQ, APP]),
        ("", "ours", "", [GIT, JQ]),
        ("", "pushed", "", [APP]),
        ("1.6", "", "", [JQ]),
        ("v1", "", "", [APP]),
        ("", "", "age", [JQ, GIT, APP]),
        ("", "", "size", [JQ, GIT, APP]),
        ("", "", "pull", [GIT, JQ, APP]),
        ("", "", "pulls", [APP, GIT, JQ]),
    ],
)
def test_images_are_chosen_and_put_in_order(
    word: str, origin: str, order: str, chosen: list[ListedImage]
) -> None:
    assert images.choose(EVERY, word, origin, order) == chosen


def test_images_of_one_platform() -> None:
    assert images.choose(EVERY, "", "", "", "linux/arm64") == [GIT]
    assert images.choose(EVERY, "", "", "", "linux/amd64") == []


def test_a_layer_knows_the_other_images_that_hold_it() -> None:
    assert images.holders(JQ, EVERY) == {"sha256:1": [GIT], "sha256:2": []}


def test_tags_to_choose_stand_apart_from_those_that_never_move() -> None:
    assert (GIT.names, GIT.fixed) == (("latest", "2.39"), (NEVER,))
