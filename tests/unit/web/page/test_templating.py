"""Lists in pages."""

import pytest
from aiohttp.test_utils import make_mocked_request

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
