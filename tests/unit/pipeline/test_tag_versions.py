"""Whose version grows with which write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pipeline.tag_versions import ALL, TagVersions

REPOSITORIES = st.sampled_from(["a", "b", "c", "d", "e"])


def test_a_write_makes_its_repository_newer_before_and_after() -> None:
    versions = TagVersions()
    before, other = versions.of("a"), versions.of("b")

    with versions.write("a"):
        during = versions.of("a")
    after = versions.of("a")

    assert before < during < after
    assert versions.of("b") == other


def test_a_write_that_fails_counts_too() -> None:
    versions = TagVersions()
    during = []

    def write() -> None:
        with versions.write("a"):
            during.append(versions.of("a"))
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write()

    assert [versions.of("a")] > during


def test_a_write_to_all_is_one_to_each() -> None:
    versions = TagVersions()
    with versions.write("a"):
        pass
    before = versions.of("a"), versions.of("b")

    with versions.write(ALL):
        pass

    assert versions.of("a") > before[0]
    assert versions.of("b") > before[1]


@given(st.lists(st.one_of(REPOSITORIES, st.just(ALL)), max_size=30), REPOSITORIES, st.integers(1, 3))
def test_no_version_comes_again_after_a_write(writes: list[str], repository: str, most: int) -> None:
    """However few repositories have a number of their own, what was read before a write is never taken for new."""
    versions = TagVersions(most)
    stored: list[int] = []
    for written in writes:
        stored.append(versions.of(repository))
        with versions.write(written):
            pass
        if written in (repository, ALL):
            assert versions.of(repository) not in stored
    assert [*stored] == sorted(stored)
