"""Lists in pages, and the colours that a visitor chose."""

import re
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from proxy.web.page import templating
from proxy.web.page.templating import Pages


@pytest.mark.parametrize(
    ("page", "number", "part"),
    [
        ("", 1, [0, 1]),
        ("2", 2, [2, 3]),
        ("3", 3, [4]),
        ("99", 3, [4]),
        ("0", 1, [0, 1]),
        ("-1", 1, [0, 1]),
        ("x", 1, [0, 1]),
    ],
)
def test_a_page_of_a_list(page: str, number: int, part: list[int]) -> None:
    pages = Pages(make_mocked_request("GET", f"/builds?state=made&page={page}"), 5, 2)

    assert (pages.number, pages.last) == (number, 3)
    assert list(pages.part(range(5))) == part
    assert pages.url(2) == "/builds?state=made&page=2"


def test_an_empty_list_has_one_page() -> None:
    pages = Pages(make_mocked_request("GET", "/builds"), 0, 25)

    assert (pages.number, pages.last, list(pages.part([]))) == (1, 1, [])


def test_both_ways_to_dark_colours_have_the_same() -> None:
    sheet = (Path(templating.__file__).parent / "static/style.css").read_text()
    by_device, by_choice = (
        re.findall(r"--[a-z-]+: [^;]+;", sheet.partition(selector)[2].partition("}")[0])
        for selector in (':root:not([data-colours="light"]) {', ':root[data-colours="dark"] {')
    )

    assert by_device == by_choice
    assert len(by_device) > 10
