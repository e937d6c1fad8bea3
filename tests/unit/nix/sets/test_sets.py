"""The facts of a package set that follow from a fetched source, and what is asked of Nix to fetch it."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from proxy.core.errors import TagUnknown
from proxy.core.model import PackageSet, revision_tag
from proxy.nix.runner import Limits, NixRunner
from proxy.nix.sets import KINDS, Choice, PackageSets, Tools
from proxy.nix.sets.kinds import ConfiguredSet, Kind, TreeSet
from proxy.nix.sets.records import Records
from proxy.nix.store import NixStore, Source

TREE = "/nix/store/source"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HASH = "sha256-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def sets(choice: Choice, store: Path) -> PackageSets:
    """Package sets of one choice; no test here comes as far as the network."""
    return PackageSets({"": choice}, tools(store), time_to_live=60)


def tools(store: Path) -> Tools:
    nix = NixStore(NixRunner(Limits(1, 1), store=str(store)), store)
    nowhere = cast(aiohttp.ClientSession, None)
    return Tools(nix, nowhere, store, store, deadline=1)


def configured(choice: Choice, store: Path) -> ConfiguredSet:
    return KINDS[choice.kind]("", choice, tools(store))


def fetched(choice: Choice, store: Path, found: Source, commit: str = "") -> PackageSet:
    return configured(choice, store).describe(found, commit)


def recorded(choice: Choice, store: Path, found: Source, commit: str) -> PackageSet:
    described = fetched(choice, store, found, commit)
    Records(store, most=9).write(configured(choice, store), described, "main", store / "root")
    return described


def source(**changes: Any) -> Source:
    facts: dict[str, Any] = {
        "path": TREE,
        "nar_hash": HASH,
        "revision": "",
        "last_modified": 0,
    }
    return Source(**{**facts, **changes})


@pytest.mark.parametrize(
    ("pointer", "reference", "address"),
    [
        pytest.param("https://x/{ref}/commit", "nixos-24.05", "https://x/nixos-24.05/list", id="a channel"),
        pytest.param("https://x/{ref}/commit", COMMIT, "https://x/own/list", id="a commit: our own channel"),
        pytest.param("", "nixos-24.05", "", id="no channels"),
    ],
)
def test_a_channel_publishes_its_packages(tmp_path: Path, pointer: str, reference: str, address: str) -> None:
    choice = Choice("nixpkgs", pointer=pointer, listing="https://x/{ref}/list", ref="own")

    assert configured(choice, tmp_path).listing(reference) == address
    assert configured(Choice("git", url="https://x", listing="https://x"), tmp_path).listing("main") == ""


@pytest.mark.parametrize(
    ("choice", "reference", "tree", "commit"),
    [
        pytest.param(
            Choice("nixpkgs", url="https://x/{ref}/nixexprs.tar.xz", ref="nixos-24.05"),
            "nixos-24.05",
            {"type": "tarball", "url": "https://x/nixos-24.05/nixexprs.tar.xz"},
            "",
            id="nixpkgs of a mirror",
        ),
        pytest.param(
            Choice("nixpkgs", url="https://x/{revision}.tar.gz", pointer="https://x/{ref}"),
            COMMIT,
            {"type": "tarball", "url": f"https://x/{COMMIT}.tar.gz"},
            COMMIT,
            id="nixpkgs at a commit",
        ),
        pytest.param(
            Choice("tarball", url="file:///x.tar"),
            "latest",
            {"type": "tarball", "url": "file:///x.tar"},
            "",
            id="tarball",
        ),
        pytest.param(
            Choice("tarball", url="file:///{ref}.tar"),
            "v1",
            {"type": "tarball", "url": "file:///v1.tar"},
            "",
            id="tarball of a tag",
        ),
        pytest.param(
            Choice("git", url="https://x/r.git", ref="main"),
            COMMIT,
            {"type": "git", "url": "https://x/r.git", "rev": COMMIT, "allRefs": True},
            COMMIT,
            id="git at a commit",
        ),
        pytest.param(
            Choice("path", path="/srv/set", url="u"),
            "latest",
            {"type": "path", "path": "/srv/set"},
            "",
            id="path",
        ),
    ],
)
async def test_each_kind_is_fetched_in_its_way(
    tmp_path: Path, choice: Choice, reference: str, tree: dict[str, object], commit: str
) -> None:
    chosen = configured(choice, tmp_path)
    assert isinstance(chosen, TreeSet)

    found = await chosen.commit(reference)

    assert (chosen.tree(reference, found), found) == (tree, commit)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        pytest.param(Choice("path", path="/srv/set"), "a path has no revisions", id="path"),
        pytest.param(
            Choice("tarball", url="file:///x.tar"), "its address has no place for one", id="tarball"
        ),
    ],
)
async def test_a_tag_that_a_kind_has_no_use_for_is_refused(
    tmp_path: Path, choice: Choice, reason: str
) -> None:
    with pytest.raises(
        TagUnknown, match=f"tag 'v1' names no revision of package set {choice.kind}: {reason}"
    ):
        await sets(choice, tmp_path).resolve("", "v1")


@pytest.mark.parametrize(
    ("tag", "end"),
    [
        ("lates", "did you mean latest?"),
        ("Latest", "did you mean latest?"),
        ("mian", "did you mean main?"),
        ("6fc3a20fd316", "name it in full, or as revision- and its first 12 digits"),
        ("v2", "does not allow it"),
    ],
)
async def test_a_mistyped_tag_gets_the_tag_that_was_meant(tmp_path: Path, tag: str, end: str) -> None:
    choice = Choice("tarball", url="file:///{ref}.tar", ref="main", refs=("releases/*",))

    with pytest.raises(TagUnknown) as caught:
        await sets(choice, tmp_path).resolve("", tag)

    assert str(caught.value).endswith(end)


def test_what_was_seen_is_known_by_its_revision(tmp_path: Path) -> None:
    choice = Choice("git", url="https://x/r.git", ref="main")
    Path(f"{tmp_path}{TREE}").mkdir(parents=True)
    made = recorded(choice, tmp_path, source(last_modified=5), COMMIT)

    pinned = replace(choice, revision=COMMIT)  # else a branch has to reach it
    assert asyncio.run(sets(pinned, tmp_path).resolve("", COMMIT)) == made


def test_a_short_tag_is_one_revision_that_this_host_has_seen(tmp_path: Path) -> None:
    choice = Choice("git", url="file:///nowhere", ref=COMMIT, revision=COMMIT)
    Path(f"{tmp_path}{TREE}").mkdir(parents=True)
    made = recorded(choice, tmp_path, source(last_modified=5), COMMIT)

    assert asyncio.run(sets(choice, tmp_path).resolve("", revision_tag(COMMIT))) == made
    with pytest.raises(TagUnknown, match="has seen no revision of package set git that begin"):
        asyncio.run(sets(choice, tmp_path).resolve("", revision_tag("f" * 40)))

    alike = COMMIT[:12] + "0" * 28
    recorded(choice, tmp_path, source(last_modified=5), alike)
    with pytest.raises(TagUnknown, match="has seen several revisions of package set git that begin"):
        asyncio.run(sets(choice, tmp_path).resolve("", revision_tag(COMMIT)))
    assert asyncio.run(sets(choice, tmp_path).resolve("", COMMIT)) == made


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Choice("git", url="https://y/r.git", ref="main"), id="another address"),
        pytest.param(Choice("git", url="https://x/r.git", date="2001-02-03T04:05:06Z"), id="another date"),
        pytest.param(Choice("tarball", url="https://x/r.git"), id="another kind"),
    ],
)
def test_what_was_seen_of_another_choice_is_not_believed(tmp_path: Path, other: Choice) -> None:
    choice = Choice("git", url="https://x/r.git", ref="main")
    Path(f"{tmp_path}{TREE}").mkdir(parents=True)
    made = recorded(choice, tmp_path, source(last_modified=5), COMMIT)

    assert Records(tmp_path, most=9).recall(configured(choice, tmp_path), COMMIT) == made
    assert Records(tmp_path, most=9).recall(configured(other, tmp_path), COMMIT) is None


def test_what_the_store_has_lost_is_not_believed(tmp_path: Path) -> None:
    choice = Choice("git", url="https://x/r.git", ref="main")
    recorded(choice, tmp_path, source(last_modified=5), COMMIT)

    assert Records(tmp_path, most=9).recall(configured(choice, tmp_path), COMMIT) is None


@pytest.mark.parametrize(
    "damage",
    [
        *(b"", b"{", b"\0" * 99, b"[]", b"7", b"null", pytest.param(b"[" * 9999, id="deep"), b'{"set": {}}'),
        *({"set": 7}, {"set": []}, {"root": ["x"]}, {"reference": 7}, {"kind": None}, {"date": {}}),
        *(
            {"set": {name: 7}}
            for name in ("name", "expression", "revision", "arguments", "created", "nar_hash", "substitutes")
        ),
        *({"set": {"arguments": {"attribute": 7}}}, {"set": {"revision": "0" * 40}}, {"set": {"more": 1}}),
    ],
)
def test_a_damaged_record_is_none_and_takes_no_other_with_it(
    tmp_path: Path, damage: bytes | dict[str, Any]
) -> None:
    choice, records = Choice("git", url="https://x/r.git", ref="main"), Records(tmp_path, most=9)
    Path(f"{tmp_path}{TREE}").mkdir(parents=True)
    made = recorded(choice, tmp_path, source(last_modified=5), COMMIT)
    assert records.recall(configured(choice, tmp_path), COMMIT) == made
    (file,) = tmp_path.glob("default-*.json")
    if isinstance(damage, dict):
        whole = json.loads(file.read_bytes())
        of_set = damage.get("set")
        if isinstance(of_set, dict):
            damage = {"set": {**whole["set"], **of_set}}
        damage = json.dumps({**whole, **damage}).encode()
    file.write_bytes(damage)

    assert records.recall(configured(choice, tmp_path), COMMIT) is None
    other = recorded(choice, tmp_path, source(last_modified=6), "1" * 40)
    assert records.recall(configured(choice, tmp_path), "1" * 40) == other


def test_a_git_source_says_its_commit_and_its_date(tmp_path: Path) -> None:
    choice = Choice("git", url="https://x/r.git", ref="main")

    made = fetched(choice, tmp_path, source(last_modified=1_700_000_000), "0123abcd")

    assert made == PackageSet(
        name="git",
        expression=f"{tmp_path}{TREE}",
        revision="0123abcd",
        source="https://x/r.git",
        created="2023-11-14T22:13:20Z",
        nar_hash=HASH,
    )


def test_a_source_without_a_revision_is_named_by_its_hash_in_hexadecimal(tmp_path: Path) -> None:
    made = fetched(Choice("path", path="/srv/set"), tmp_path, source())

    assert made.revision == bytes(range(32)).hex()


def test_a_channel_says_its_revision_in_a_file(tmp_path: Path) -> None:
    tree = Path(f"{tmp_path}{TREE}")
    tree.mkdir(parents=True)
    (tree / ".git-revision").write_text("4567\n")

    made = fetched(Choice("nixpkgs", url="https://x"), tmp_path, source(last_modified=1_600_000_000))

    assert (made.revision, made.created) == ("4567", "2020-09-13T12:26:40Z")


def test_a_folder_has_no_date(tmp_path: Path) -> None:
    made = fetched(Choice("path", path="/srv/set"), tmp_path, source(last_modified=1_700_000_000))

    assert (made.created, made.source) == ("1980-01-01T00:00:00Z", "")


@pytest.mark.parametrize("kind", ["git", "path"])
def test_the_date_of_the_operator_goes_before_all(tmp_path: Path, kind: Kind) -> None:
    choice = Choice(kind, url="https://x", path="/x", date="2001-02-03T04:05:06Z")

    made = fetched(choice, tmp_path, source(last_modified=1_700_000_000))

    assert made.created == "2001-02-03T04:05:06Z"


async def test_closing_what_was_never_used_is_nothing(tmp_path: Path) -> None:
    await sets(Choice("demo"), tmp_path).close()
