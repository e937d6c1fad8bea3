"""Which errors leave a platform out, and what its index says of it."""

import pytest

from proxy.core import errors
from proxy.core.errors import BuildTimedOut, NixfrontError, PackageRefused, PackageUnusable
from proxy.pipeline.platforms.missing import is_of_platform, reason

ELSEWHERE = {
    "NameInvalid",
    "NotMirrored",
    "NotMadeHere",
    "DigestLost",
}  # before or after the platforms are made


def test_every_error_that_would_come_again_concerns_its_platform_alone() -> None:
    classes = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NixfrontError)
    ]
    lasting = [kind for kind in classes if kind.lasting and kind.__name__ not in ELSEWHERE]

    assert len(lasting) > 5
    for kind in lasting:
        assert is_of_platform(kind("why")), kind
        assert reason(kind("why"))
    for kind in (errors.StoreFull, errors.NixUnavailable, errors.RegistryUnavailable, errors.Unforeseen):
        assert not is_of_platform(kind("why")), kind


@pytest.mark.parametrize("kind", [PackageRefused, PackageUnusable])
def test_a_reason_is_short(kind: type[NixfrontError]) -> None:
    assert reason(kind("x" * 10_000)) == "x" * 300 + "..."


def test_a_reason_quotes_no_log() -> None:
    assert "secret" not in reason(BuildTimedOut("the log: secret"))
