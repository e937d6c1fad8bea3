"""What the page shows of a composed image."""

from dataclasses import replace

import pytest

from proxy.core.model import ImageRequest, Package
from proxy.web.page.composer.composed import composed
from proxy.web.page.composer.previews import Preview
from proxy.web.page.listed import ListedImage

COREUTILS = Package("coreutils", "coreutils-9", "", (), "", version="9")
GIT = Package("git", "git-2.39.5", "", (), "git", version="2.39.5")
REQUEST = ImageRequest("shell/git", "latest", ("coreutils", "git"), first="git")
PREVIEW = Preview((COREUTILS, GIT), "f" * 40, in_store=False)


def test_the_package_is_the_first_that_was_named() -> None:
    assert composed(REQUEST, PREVIEW, [], None).package == GIT
    assert composed(REQUEST, None, [], None).package is None


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("https://git-scm.com/", "https://git-scm.com/"),
        ("javascript:alert(1)", ""),
        ("https://x.org/ y", ""),
        ("", ""),
    ],
)
def test_a_homepage_is_linked_if_it_is_a_web_page(text: str, link: str) -> None:
    preview = replace(PREVIEW, packages=(COREUTILS, replace(GIT, homepage=text)))

    assert composed(REQUEST, preview, [], None).homepage == link
    assert composed(REQUEST, None, [], None).homepage == ""


def test_tags_to_choose_come_before_those_that_never_move() -> None:
    never = "0123456789abcdef" * 4
    image = ListedImage("shell/git", ("latest", "2.39.5", "mine", never), "sha256:0")
    tags = composed(REQUEST, PREVIEW, [], image).tags

    assert [tag.name for tag in tags] == ["latest", "2.39.5", "mine", never]
    assert [tag.what for tag in tags[2:]] == ["in the registry", "never moves"]
