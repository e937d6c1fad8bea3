"""What the fuzz of the front takes for a fault, without its servers."""

import pytest

from tests.support.front_fuzz import grown, problem
from tests.support.fuzz_cases import Case

LIST = Case(1, "fuzz1", (b"GET /v2/fuzz1/tags/list?n=1 HT", b"TP/1.1\r\n\r\n"), 1, is_http=True)
MANIFEST = Case(2, "fuzz2", (b"GET /v2/fuzz2/manifests/latest HTTP/1.1\r\n\r\n",), 1, is_http=True)
ODD = Case(3, "fuzz3", (b"G(T /v2/fuzz3/tags/list HTTP/1.1\r\n\r\n",), 1, is_http=False)


def samples(*memory: int) -> list[dict[str, float]]:
    return [
        {"process_resident_memory_bytes": each << 20, "process_open_fds": 20, "nixfront_tasks": 5}
        for each in memory
    ]


def test_memory_that_grows_is_found_and_noise_is_not() -> None:
    assert grown(samples(80, 90, 150)) == ["process_resident_memory_bytes grew from 94371840 to 157286400"]
    assert grown(samples(10, 10, 90, 95, 99, 100)) == []
    more = samples(80, 90, 90)
    more[-1]["process_open_fds"] = 60
    assert grown(more) == ["process_open_fds grew from 20 to 60"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_samples_say_nothing(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} samples"):
        grown(samples(*[80] * count))


@pytest.mark.parametrize(
    ("case", "ours", "right", "expected"),
    [
        (LIST, 200, 404, ""),
        (MANIFEST, 200, 404, "another class of status"),
        (LIST, 404, 200, "another class of status"),
        (LIST, 404, 400, ""),
        (ODD, 400, 200, ""),
        (ODD, 500, 400, "an error of ours"),
        (ODD, 505, 400, ""),
        (MANIFEST, None, 404, "no answer and no end"),
        (MANIFEST, None, None, ""),
    ],
)
def test_problem_of_two_answers(case: Case, ours: int | None, right: int | None, expected: str) -> None:
    assert problem(case, ours, right) == expected
