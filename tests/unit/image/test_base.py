"""The part of a root tree that every image has: directories, users, groups and texts."""

import pytest

from proxy.core.model import PackageSet
from proxy.image import base
from proxy.image.tar import Entry

SET = PackageSet("nixpkgs", "/set", "0123abc", "https://example.org/set", "2026-01-31T00:00:00Z")


def members(*texts: tuple[str, str], user: str = "") -> dict[str, Entry]:
    return {entry.path: entry for entry in base.members(SET, user, texts)}


def names(text: bytes) -> dict[str, str]:
    """The number of each name of a passwd or group."""
    lines = [line.split(":") for line in text.decode().splitlines()]
    assert len({name for name, *_ in lines}) == len(lines)
    return {name: rest[1] for name, *rest in lines}


def test_users_are_few_and_each_has_its_group() -> None:
    files = members()

    users, groups = names(files["etc/passwd"].content), names(files["etc/group"].content)

    assert users.items() <= groups.items()
    assert {"root": "0", "nobody": "65534", "daemon": "1"}.items() <= users.items()


def test_groups_of_devices_have_debians_numbers() -> None:
    groups = names(members()["etc/group"].content)

    assert {"tty": "5", "disk": "6", "dialout": "20", "audio": "29", "video": "44"}.items() <= groups.items()
    assert not groups.keys() & {"render", "docker", "kvm"}


@pytest.mark.parametrize(
    "line",
    [
        "root:x:5:5::/:/bin/sh",
        "short:x:5",
        "x:x:y:5::/:/bin/sh",
        "x:x:5:y::/:/bin/sh",
        "x:x:\u0665:5::/:/bin/sh",
        ":x:5:5::/:/bin/sh",
        "+::0:0:::",
        "-x:x:5:5::/:/bin/sh",
        "#x:x:5:5::/:/bin/sh",
        "x:x:5:5::/:/bin/sh\x85toor:x:0:0::/:",
    ],
)
def test_a_line_that_is_not_whole_or_is_ours_is_not_added(line: str) -> None:
    assert members(("etc/passwd", line)) == members()


def test_a_name_that_is_no_text_stays_as_it_is() -> None:
    line = b"caf\xe9:x:71:\n"

    entries = members(("etc/group", line.decode("utf-8", "surrogateescape")))

    assert entries["etc/group"].content.endswith(line)


def test_a_user_of_a_meta_package_is_before_those_of_packages() -> None:
    entries = members(("etc/passwd", "user:x:7:7::/:/bin/sh"), user="1000:100")

    assert names(entries["etc/passwd"].content)["user"] == "1000"


def test_os_release_says_set_source_and_revision() -> None:
    """actions/checkout#334, NixOS/nixpkgs#288587: programs read ID, and stop without the file."""
    assert base.os_release(SET).splitlines() == [
        "NAME=nixfront",
        "ID=nixfront",
        "ID_LIKE=nixos",
        'PRETTY_NAME="nixfront image of nixpkgs, 2026-01-31"',
        "VERSION_ID=2026.01.31",
        "BUILD_ID=0123abc",
        "NIXFRONT_SET=nixpkgs",
        'NIXFRONT_SOURCE="https://example.org/set"',
        "NIXFRONT_REVISION=0123abc",
    ]


def test_os_release_is_data_to_a_shell() -> None:
    odd = PackageSet("a b", "/set", "", 'x"; touch `y`\n$(z)\\', "")

    assert base.os_release(odd).splitlines() == [
        "NAME=nixfront",
        "ID=nixfront",
        "ID_LIKE=nixos",
        'PRETTY_NAME="nixfront image of a b"',
        'NIXFRONT_SET="a b"',
        'NIXFRONT_SOURCE="x\\"; touch \\`y\\` \\$(z)\\\\"',
    ]


@pytest.mark.parametrize("path", ["root", "tmp", "var/tmp"])
def test_everybody_writes_where_everybody_has_to(path: str) -> None:
    assert base.DIRECTORIES[path] == 0o1777


def test_every_parent_of_ours_is_ours() -> None:
    paths = {*base.DIRECTORIES, *members()}

    assert {path.rpartition("/")[0] for path in paths} - {""} <= base.DIRECTORIES.keys()
