"""How far Nix is, by what it says."""

import pytest

from proxy.nix.output import NixCounts, advance

HASH = "a" * 32


def after(*lines: str) -> NixCounts:
    counts = NixCounts()
    for line in lines:
        counts = advance(counts, line)
    return counts


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], NixCounts(), id="nothing"),
        pytest.param(["this derivation will be built:"], NixCounts(to_build=1), id="one to build"),
        pytest.param(["these 12 derivations will be built:"], NixCounts(to_build=12), id="many to build"),
        pytest.param(
            ["this path will be fetched (0.04 MiB download, 0.2 MiB unpacked):"],
            NixCounts(to_fetch=1),
            id="one to fetch",
        ),
        pytest.param(
            ["these 3 paths will be fetched (1.04 MiB download, 4.2 MiB unpacked):"],
            NixCounts(to_fetch=3),
            id="many",
        ),
        pytest.param(
            [f"building '/nix/store/{HASH}-hello-1.0.drv'..."],
            NixCounts(built=1, to_build=1, now="hello-1.0"),
            id="begun",
        ),
        pytest.param(
            [
                "these 2 paths will be fetched:",
                f"copying path '/nix/store/{HASH}-zlib-1.3' from 'https://cache'...",
            ],
            NixCounts(fetched=1, to_fetch=2, now="zlib-1.3"),
            id="fetched",
        ),
        pytest.param(
            ["these 2 derivations will be built:", "these 3 derivations will be built:"],
            NixCounts(to_build=5),
            id="rounds",
        ),
        pytest.param(["checking for gcc... gcc", "  building it"], NixCounts(), id="a builder's own words"),
    ],
)
def test_lines(lines: list[str], expected: NixCounts) -> None:
    assert after(*lines) == expected


def test_no_count_is_above_its_total() -> None:
    lines = [
        "this derivation will be built:",
        *(f"building '/nix/store/{HASH}-p{n}.drv'..." for n in range(4)),
    ]

    counts = after(*lines)

    assert (counts.built, counts.to_build) == (4, 4)
