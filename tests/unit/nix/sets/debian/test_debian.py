"""The Debian package set without an archive: the graph, the lock, and what makes a revision."""

import io
import lzma
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import PackageSetUnavailable
from proxy.core.model import canonical_json, sha256_hex
from proxy.nix.sets import debian
from proxy.nix.sets.debian import apt, builder
from proxy.nix.sets.debian.graph import Available, resolve_nodes

SHIPPED = Path(__file__).parents[5] / "nix" / "debian"
MIRROR = "http://archive.invalid/debian"


def stanza(name: str, version: str = "1.0-1", **fields: str) -> str:
    given = {
        "Package": name,
        "Version": version,
        "Description": f"what {name} does",
        "Filename": f"pool/{name}_{version}.deb",
        "SHA256": sha256_hex(f"{name} {version}".encode()),
        **{field.replace("_", "-"): value for field, value in fields.items()},
    }
    return "".join(f"{field}: {value}\n" for field, value in given.items())


BASE = (stanza("bash", Depends="libc6 (>= 2.36)"), stanza("libc6"))


def available(*stanzas: str, mirror: str = MIRROR) -> Available:
    return Available([("\n".join([*BASE, *stanzas]).encode(), mirror)])


def recipe(*packages: str, **parts: Any) -> dict[str, Any]:
    attributes = {name: {"package": name} for name in packages}
    empty: dict[str, Any] = {"groups": {}, "skip": [], "drop": {}, "add": {}, "fixups": {}}
    return {"attributes": attributes, **empty, **parts}


def deps(found: Mapping[str, Any], node: str) -> list[str]:
    return list(found["nodes"][node]["deps"])


# --- the graph --------------------------------------------------------------------------------------------


def test_a_node_says_all_that_its_derivation_needs() -> None:
    found = resolve_nodes(
        recipe("jq"), available(stanza("jq", "1:1.6-2", Depends="libjq1"), stanza("libjq1"))
    )

    assert found["attributes"] == {"jq": {"node": "jq", "program": ""}}
    assert found["nodes"]["jq"] == {
        "version": "1.6-2",
        "description": "what jq does",
        "debs": [
            {
                "name": "jq",
                "url": f"{MIRROR}/pool/jq_1:1.6-2.deb",
                "sha256": sha256_hex(b"jq 1:1.6-2"),
            }
        ],
        "deps": ["libjq1"],
        "fixups": {},
    }


def test_shell_and_loader_are_there_even_when_no_attribute_needs_them() -> None:
    assert set(resolve_nodes(recipe("hello"), available(stanza("hello")))["nodes"]) == {
        "hello",
        "bash",
        "libc6",
    }


def test_newest_version_wins_as_dpkg_orders_versions() -> None:
    release = stanza("hello", "2.9-1")
    update = stanza("hello", "2.10-1~deb12u1")

    for order in [(release, update), (update, release)]:
        assert (
            resolve_nodes(recipe("hello"), available(*order))["nodes"]["hello"]["version"] == "2.10-1~deb12u1"
        )


@pytest.mark.parametrize(
    ("relation", "expected"),
    [
        ("present", ["present"]),
        ("absent | present", ["present"]),
        ("present (>= 2) | other", ["present"]),
        ("present:any", ["present"]),
        ("virtual", ["provider"]),
        ("helper | present", []),  # what the recipe skips, nothing else needs to stand in for
        ("present, other", ["other", "present"]),
    ],
)
def test_dependency_clauses(relation: str, expected: list[str]) -> None:
    others = [stanza("present"), stanza("other"), stanza("provider", Provides="virtual (= 3), more")]
    found = resolve_nodes(recipe("x", skip=["helper"]), available(stanza("x", Depends=relation), *others))

    assert deps(found, "x") == expected


def test_part_of_a_provided_name_is_not_that_name() -> None:
    text = available(stanza("x", Depends="mail"), stanza("y", Provides="mail-reader"))

    with pytest.raises(PackageSetUnavailable, match="x depends on mail, which"):
        resolve_nodes(recipe("x"), text)


def test_missing_package_is_named() -> None:
    with pytest.raises(PackageSetUnavailable, match="no package zsh"):
        resolve_nodes(recipe("zsh"), available())


def test_recipe_drops_and_adds_dependencies() -> None:
    stanzas = [stanza("x", Pre_Depends="a, b"), *map(stanza, "abc")]
    found = resolve_nodes(recipe("x", drop={"x": ["a"]}, add={"x": ["c"]}), available(*stanzas))

    assert deps(found, "x") == ["b", "c"]
    assert "a" not in found["nodes"]


def test_members_of_a_group_share_a_node_and_come_together() -> None:
    stanzas = [
        stanza("perl", Depends="perl-base"),
        stanza("perl-base", Depends="libc6"),
        stanza("perl-modules"),
    ]
    groups = {"perl": ["perl", "perl-base", "perl-modules"]}
    found = resolve_nodes(recipe("perl", groups=groups), available(*stanzas))

    assert [deb["name"] for deb in found["nodes"]["perl"]["debs"]] == ["perl", "perl-base", "perl-modules"]
    assert deps(found, "perl") == ["libc6"]


def test_cycle_becomes_one_node_under_the_name_of_a_group() -> None:
    stanzas = [
        stanza("a", Depends="long-one"),
        stanza("long-one", Depends="b"),
        stanza("b", Depends="a, c"),
        stanza("c"),
    ]
    found = resolve_nodes(recipe("b", groups={"group": ["long-one"]}), available(*stanzas))

    assert found["attributes"]["b"]["node"] == "group"
    assert [deb["name"] for deb in found["nodes"]["group"]["debs"]] == ["a", "b", "long-one"]
    assert deps(found, "group") == ["c"]


@given(
    st.permutations(
        [stanza("x", Depends="v | y"), stanza("y", Depends="x"), stanza("z", Provides="v"), stanza("w")]
    )
)
def test_order_of_the_archive_does_not_matter(stanzas: list[str]) -> None:
    wanted = recipe("x", "w")

    assert canonical_json(resolve_nodes(wanted, available(*stanzas))) == canonical_json(
        resolve_nodes(wanted, available(*sorted(stanzas)))
    )


# --- the recipes that are shipped -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["packages.json", "packages-big.json"])
def test_shipped_recipes_are_whole(name: str) -> None:
    shipped = debian.read_recipe(SHIPPED / name, SHIPPED)
    members = [member for group in shipped["groups"].values() for member in group]
    packages = {entry["package"] for entry in shipped["attributes"].values()}

    assert set(shipped) == {"attributes", "groups", "skip", "drop", "add", "fixups"}
    assert len(members) == len(set(members)), "a package is in two groups"
    assert not packages & set(shipped["skip"])
    assert all(path.count(".") <= 1 for path in shipped["attributes"])


def test_big_recipe_adds_to_the_small_one() -> None:
    small = debian.read_recipe(SHIPPED / "packages.json", SHIPPED)
    big = debian.read_recipe(SHIPPED / "packages-big.json", SHIPPED)

    assert small["attributes"].items() <= big["attributes"].items()
    assert set(small["skip"]) < set(big["skip"])


def test_a_recipe_may_build_on_one_beside_it_or_on_one_of_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"attributes": {"a": {"package": "a"}}, "skip": ["x"]}')
    for name, base in (("beside", "mine.json"), ("ours", "packages.json")):
        (tmp_path / f"{name}.json").write_text(
            f'{{"base": "{base}", "attributes": {{"b": {{"package": "b"}}}}, "skip": ["y"]}}'
        )

    beside = debian.read_recipe(tmp_path / "beside.json", SHIPPED)
    ours = debian.read_recipe(tmp_path / "ours.json", SHIPPED)

    assert beside["attributes"] == {"a": {"package": "a"}, "b": {"package": "b"}}
    assert (beside["skip"], beside["groups"]) == (["x", "y"], {})
    assert {"hello", "b"} <= ours["attributes"].keys()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "no JSON object"),
        ('{"attributes": []}', "'attributes'"),
        ('{"attribute": {}}', "'attribute'"),
        ('{"base": "none.json"}', "none.json cannot be read"),
        ('{"base": 5}', "'base'"),
    ],
)
def test_what_is_no_recipe_is_said(tmp_path: Path, text: str | None, told: str) -> None:
    file = tmp_path / "mine.json"
    if text is not None:
        file.write_text(text)

    with pytest.raises(PackageSetUnavailable, match=told):
        debian.read_recipe(file, SHIPPED)


# --- lock and revision ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "demo"


@pytest.fixture
def write_lock(folder: Path) -> Callable[..., None]:
    """A lock and a builder as `resolve` leaves them."""
    used = sha256_hex(canonical_json(debian.read_recipe(SHIPPED / "packages.json", SHIPPED)))
    (folder / "builder").mkdir(parents=True)

    def write(mirror: str = MIRROR, version: str = "2.10-3") -> None:
        nodes = resolve_nodes(recipe("hello"), available(stanza("hello", version), mirror=mirror))
        lock = {"system": "x86_64-linux", "recipe": used, "created": "2026-01-10T09:00:00Z", **nodes}
        (folder / "lock.json").write_bytes(
            canonical_json({**lock, "builder": {"debs": [], "hash": "0" * 64}})
        )

    return write


async def resolve(folder: Path) -> debian.DebianSet:
    return await debian.resolve(
        folder, expression=SHIPPED, recipe=SHIPPED / "packages.json", archive=None, deadline=20
    )


async def test_lock_is_enough(
    folder: Path, write_lock: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No apt, no Nix, no network: PATH is empty."""
    monkeypatch.setenv("PATH", "")
    write_lock()

    first, second = await resolve(folder), await resolve(folder)

    assert first == second
    assert first.lock == folder / "lock.json"
    assert first.builder == folder / "builder"
    assert first.created == "2026-01-10T09:00:00Z"
    assert len(first.revision) == 64


async def test_a_system_that_debian_lacks_is_named(folder: Path) -> None:
    with pytest.raises(
        PackageSetUnavailable, match="x86_64-linux and aarch64-linux, and none for s390x-linux"
    ):
        await debian.resolve(
            folder,
            expression=SHIPPED,
            recipe=SHIPPED / "packages.json",
            archive=None,
            deadline=20,
            system="s390x-linux",
        )


async def test_revision_does_not_depend_on_the_mirror(folder: Path, write_lock: Callable[..., None]) -> None:
    write_lock(mirror="http://one.invalid/debian")
    one = await resolve(folder)
    write_lock(mirror="file:/srv/debian")
    other = await resolve(folder)

    assert one.revision == other.revision


async def test_revision_changes_with_a_package(folder: Path, write_lock: Callable[..., None]) -> None:
    write_lock()
    one = await resolve(folder)
    write_lock(version="2.10-4")

    assert (await resolve(folder)).revision != one.revision


def test_revision_changes_with_the_code_that_builds(tmp_path: Path) -> None:
    for name in ("build.py", "default.nix"):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    before = debian.revision({"nodes": {}}, tmp_path)
    (tmp_path / "build.py").write_text("main()\n")

    assert debian.revision({"nodes": {}}, tmp_path) != before


async def test_broken_lock_says_what_to_do(folder: Path, write_lock: Callable[..., None]) -> None:
    write_lock()
    (folder / "lock.json").write_text("{")

    with pytest.raises(PackageSetUnavailable, match=r"lock\.json cannot be read .* delete it"):
        await resolve(folder)


async def test_missing_apt_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(apt, "KEYRING", keyring)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(PackageSetUnavailable, match=r"apt-config is missing: .* install apt"):
        await resolve(folder)

    assert not (folder / "lock.json").exists()


async def test_missing_keyring_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(apt, "KEYRING", tmp_path / "none.gpg")

    with pytest.raises(PackageSetUnavailable, match="install debian-archive-keyring"):
        await resolve(folder)


# --- apt's sources ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "number", "expected"),
    [
        ("a.list", "deb http://x.invalid/debian bookworm main\n", 1, True),
        ("a.list", "# one\ndeb [arch=amd64 signed-by=/etc/keys/vendor.gpg] http://x.invalid bookworm main\n", 2, False),
        ("a.list", "deb [signed-by=/k/debian-archive-keyring.gpg] http://x.invalid bookworm main\n", 1, True),
        ("a.sources", "Types: deb\nURIs: http://x.invalid\nSuites: bookworm\nComponents: main\n", 1, True),
        ("a.sources", "Types: deb\nSigned-By: /k/debian-archive-keyring.gpg\n\nTypes: deb\nSigned-By: /k/v.asc\n", 2, False),
        ("a.sources", "Types: deb\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n", 1, False),
    ],
)  # fmt: skip
def test_sources_of_others_are_told_by_their_key(
    tmp_path: Path, name: str, text: str, number: int, expected: bool
) -> None:
    (tmp_path / name).write_text(text)

    assert apt.signed_by_debian(f"{tmp_path / name}:{number}") is expected


# --- the builder ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ("./usr/bin/patchelf", "bin/patchelf"),
        ("./usr/bin/python3.11", "bin/python3.11"),
        ("./lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "lib/ld-linux-x86-64.so.2"),
        ("./usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30", "lib/libstdc++.so.6.0.30"),
        ("./usr/lib/python3.11/tarfile.py", "lib/python3.11/tarfile.py"),
        ("./usr/lib/python3.11/encodings/utf_8.py", "lib/python3.11/encodings/utf_8.py"),
        (
            "./usr/lib/python3.11/lib-dynload/_lzma.cpython-311-x86_64-linux-gnu.so",
            "lib/python3.11/lib-dynload/_lzma.cpython-311-x86_64-linux-gnu.so",
        ),
        ("./usr/lib/aarch64-linux-gnu/libbz2.so.1.0.4", "lib/libbz2.so.1.0.4"),
        ("./lib/ld-linux-aarch64.so.1", None),  # a link to the next one
        ("./lib/aarch64-linux-gnu/ld-linux-aarch64.so.1", "lib/ld-linux-aarch64.so.1"),
        ("./usr/lib/python3.11/test/support.py", None),
        ("./usr/lib/python3.11/asyncio/tasks.py", None),
        ("./usr/lib/x86_64-linux-gnu/gconv/UTF-16.so", None),
        ("./usr/share/doc/patchelf/copyright", None),
        ("./etc/ld.so.conf", None),
    ],
)
def test_builder_keeps_what_a_build_uses(member: str, expected: str | None) -> None:
    assert builder.place(member) == expected


def deb(path: Path, members: Mapping[str, tuple[bytes, int]]) -> Path:
    """A .deb with these files; names, content and modes are all that they have."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, (content, mode) in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": lzma.compress(empty.getvalue()),
        "data.tar.xz": lzma.compress(data.getvalue()),
    }
    out = b"!<arch>\n"
    for name, content in parts.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    path.write_bytes(out)
    return path


def test_builder_is_replaced_whole(tmp_path: Path) -> None:
    made = deb(
        tmp_path / "x.deb",
        {
            "./usr/bin/patchelf": (b"program", 0o4755),
            "./usr/lib/python3.11/os.py": (b"text", 0o600),
            "./usr/share/doc/x": (b"", 0o644),
        },
    )
    folder = tmp_path / "builder"
    folder.mkdir()
    (folder / "left-over").touch()

    builder.unpack([made], folder)

    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in files.items()} == {
        "bin/patchelf": b"program",
        "lib/python3.11/os.py": b"text",
    }
    assert {name: oct(path.stat().st_mode & 0o7777) for name, path in files.items()} == {
        "bin/patchelf": "0o755",
        "lib/python3.11/os.py": "0o644",
    }
