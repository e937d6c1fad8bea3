"""The list of images to warm."""

import pytest

from proxy.core.errors import NameInvalid
from proxy.upkeep.warm import read


def test_a_name_a_line_once_with_latest_where_there_is_no_tag() -> None:
    lines = ["# all of them\n", "git\n", "\n", "  shell/git:v1 # pinned\n", "git:latest\n", "a.b/c__d-e:1.0"]

    assert read(lines) == [("git", "latest"), ("shell/git", "v1"), ("a.b/c__d-e", "1.0")]


def test_names_as_people_paste_them() -> None:
    lines = ["127.0.0.1:8080/git", "images.example.org/shell/git:v1", "docker://other.example/jq"]

    assert read(lines, {"images.example.org"}) == [("git", "latest"), ("shell/git", "v1"), ("jq", "latest")]


@pytest.mark.parametrize(
    "line", ["two names", "host:5000/", "git:", ":latest", "UPPER", "git@sha256:00", "../x"]
)
def test_what_is_no_name_is_told_with_its_line(line: str) -> None:
    with pytest.raises(NameInvalid, match="line 2"):
        read(["git", line])
