"""The root of an image: what every image has, whose file wins, what is a link and what is real."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from proxy.core.errors import PackageUnusable
from proxy.core.model import Package, PackageSet
from proxy.image import base, root_tree
from proxy.image.root_tree import Collision, Kind
from proxy.image.tar import Entry, directory, symlink
from tests.support.listing import STORE, Tree

SET = PackageSet("nixpkgs", "/set", "0123", "https://example.org", "2026-01-31T00:00:00Z")


def package(name: str, *outputs: str, version: str = "1.0", main_program: str = "") -> Package:
    return Package(
        attribute=name,
        name=f"{name}-{version}",
        drv_path=f"{STORE}/{name}.drv",
        outputs=tuple((f"out{number}", f"{STORE}/{output}") for number, output in enumerate(outputs)),
        main_program=main_program,
    )


def root(tree: Mapping[str, str], *outputs: str) -> dict[str, Entry]:
    merged = root_tree.merge([package(output, output) for output in outputs], SET, Tree(tree))
    return {entry.path: entry for entry in merged.entries}


def lost(tree: Mapping[str, str], *outputs: str) -> tuple[Collision, ...]:
    return root_tree.merge([package(output, output) for output in outputs], SET, Tree(tree)).collisions


def test_an_image_of_nothing_has_what_every_image_has() -> None:
    modes = {entry.path: (entry.kind, entry.mode) for entry in root_tree.merge([], SET, Tree({})).entries}

    assert modes == {
        **{path: ("directory", mode) for path, mode in base.DIRECTORIES.items()},
        "etc/group": ("file", 0o644),
        "etc/hosts": ("file", 0o644),
        "etc/nsswitch.conf": ("file", 0o644),
        "etc/os-release": ("file", 0o644),
        "etc/passwd": ("file", 0o644),
        "var/run": ("symlink", 0o777),
    }


def test_programs_are_links_into_the_store() -> None:
    entries = root({"a/bin/git": "executable"}, "a")

    assert entries["bin/git"] == symlink("bin/git", f"{STORE}/a/bin/git")


def test_a_directory_that_people_copy_into_is_real_though_one_package_has_it() -> None:
    """moby/moby#47367: BuildKit copies no directory onto a symlink."""
    entries = root({"a/share/nginx/50x.html": "file", "b/lib/python3/x.py": "file"}, "a", "b")

    assert entries["share/nginx"] == directory("share/nginx")
    assert entries["share/nginx/50x.html"].target == f"{STORE}/a/share/nginx/50x.html"
    assert entries["lib/python3"] == directory("lib/python3")


def test_a_directory_of_one_package_further_down_is_one_link() -> None:
    entries = root({"a/share/git/hooks/sample/x": "file", "b/lib/python3/json/tool/y": "file"}, "a", "b")

    assert entries["share/git/hooks"] == directory("share/git/hooks")
    assert entries["share/git/hooks/sample"].target == f"{STORE}/a/share/git/hooks/sample"
    assert entries["lib/python3/json/tool"].kind == "symlink"


def test_etc_is_real_all_the_way_down() -> None:
    entries = root({"a/etc/nginx/conf.d/tls/default.conf": "file"}, "a")

    assert entries["etc/nginx/conf.d/tls"] == directory("etc/nginx/conf.d/tls")
    assert entries["etc/nginx/conf.d/tls/default.conf"].kind == "symlink"


@pytest.mark.parametrize("folder", ["share/many", "etc/many"])
def test_a_directory_with_very_many_members_stays_one_link(folder: str) -> None:
    tree = {f"a/{folder}/{number}": "file" for number in range(1001)}

    entries = root(tree, "a")

    assert entries[folder] == symlink(folder, f"{STORE}/a/{folder}")


def test_a_directory_that_two_packages_have_is_real() -> None:
    entries = root({"a/share/man/a.1": "file", "b/share/man/b.1": "file"}, "a", "b")

    assert entries["share/man"] == directory("share/man")
    assert entries["share/man/a.1"] == symlink("share/man/a.1", f"{STORE}/a/share/man/a.1")
    assert entries["share/man/b.1"] == symlink("share/man/b.1", f"{STORE}/b/share/man/b.1")


def test_a_top_directory_is_real_even_for_one_package() -> None:
    entries = root({"a/lib/liba.so": "file"}, "a")

    assert entries["lib"] == directory("lib")
    assert entries["lib/liba.so"].target == f"{STORE}/a/lib/liba.so"


def test_where_engines_write_is_real_though_one_package_has_it() -> None:
    tree = {"a/etc/ssl/certs/ca-bundle.crt": "file", "a/etc/ssl/openssl.cnf": "file", "a/var/tmp/x": "file"}

    entries = root(tree, "a")

    assert entries["etc/ssl"] == directory("etc/ssl")
    assert entries["etc/ssl/certs"] == directory("etc/ssl/certs")
    assert entries["etc/ssl/openssl.cnf"].kind == "symlink"
    assert entries["var/tmp"] == directory("var/tmp", 0o1777)


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_the_first_named_wins_and_the_loss_is_told(order: tuple[str, str]) -> None:
    tree = {"a/bin/x": "executable", "b/bin/x": "executable", "b/bin/y": "executable"}
    winner, loser = (f"{STORE}/{name}/bin/x" for name in order)

    assert root(tree, *order)["bin/x"].target == winner
    assert lost(tree, *order) == (Collision("bin/x", winner, loser),)


def test_each_of_several_losers_is_told() -> None:
    tree = {f"{name}/bin/x": "executable" for name in "abc"}

    assert [collision.loser for collision in lost(tree, "b", "a", "c")] == [
        f"{STORE}/a/bin/x",
        f"{STORE}/c/bin/x",
    ]


def test_a_file_loses_against_an_earlier_directory() -> None:
    tree = {"a/lib/x/y": "file", "b/lib/x": "file", "c/lib/x/z": "file"}

    entries = root(tree, "a", "b", "c")

    assert entries["lib/x"] == directory("lib/x")
    assert {"lib/x/y", "lib/x/z"} <= entries.keys()
    assert lost(tree, "a", "b", "c") == (Collision("lib/x", f"{STORE}/a/lib/x", f"{STORE}/b/lib/x"),)


def test_a_directory_loses_against_an_earlier_file() -> None:
    tree = {"a/lib/x": "file", "b/lib/x/y": "file"}

    entries = root(tree, "a", "b")

    assert entries["lib/x"] == symlink("lib/x", f"{STORE}/a/lib/x")
    assert "lib/x/y" not in entries
    assert lost(tree, "a", "b") == (Collision("lib/x", f"{STORE}/a/lib/x", f"{STORE}/b/lib/x"),)


def test_one_output_named_twice_does_not_collide_with_itself() -> None:
    tree = {"a/bin/x": "executable"}

    assert lost(tree, "a", "a") == ()


@pytest.mark.parametrize("name", ["nix", "nix-support", "dev", "proc", "sys"])
def test_what_belongs_to_the_engine_is_not_taken_from_a_package(name: str) -> None:
    entries = root({f"a/{name}/x": "file", f"a/share/{name}/x": "file"}, "a")

    assert name not in entries
    assert f"share/{name}" in entries


@pytest.mark.parametrize("name", ["tmp", "run", "var/empty", "var/run"])
def test_what_programs_fill_is_never_filled_by_a_package(name: str) -> None:
    entries = root({f"a/{name}/x": "file"}, "a")

    assert entries[name] == root({})[name]
    assert f"{name}/x" not in entries


def test_a_package_adds_its_users_and_groups_to_ours() -> None:
    tree = {
        "a/etc/passwd": "root:x:0:0:another:/:/bin/sh\npostgres:x:71:71::/var/lib/postgres:/bin/sh\n",
        "a/etc/group": "postgres:x:71:\n",
        "b/etc/passwd": "postgres:x:999:999::/:/bin/sh\nredis:x:72:72::/:/bin/sh",
    }
    ours = root({})

    entries = root(tree, "a", "b")

    assert entries["etc/passwd"].content == ours["etc/passwd"].content + (
        b"postgres:x:71:71::/var/lib/postgres:/bin/sh\nredis:x:72:72::/:/bin/sh\n"
    )
    assert entries["etc/group"].content == ours["etc/group"].content + b"postgres:x:71:\n"
    assert lost(tree, "a", "b") == ()


def test_a_passwd_that_is_no_file_is_lost_and_told() -> None:
    tree = {"a/etc/passwd/x": "file"}

    assert root(tree, "a")["etc/passwd"] == root({})["etc/passwd"]
    assert lost(tree, "a") == (Collision("etc/passwd", "the image's own file", f"{STORE}/a/etc/passwd"),)


@pytest.mark.parametrize(
    ("source", "alias"),
    [
        ("bin/env", "usr/bin/env"),
        ("etc/ssl/certs/ca-bundle.crt", "etc/ssl/certs/ca-certificates.crt"),
        ("etc/ssl/certs/ca-bundle.crt", "etc/ssl/cert.pem"),
        ("etc/ssl/certs/ca-bundle.crt", "etc/pki/tls/certs/ca-bundle.crt"),
        ("lib/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
    ],
)
def test_what_programs_expect_elsewhere_is_there_too(source: str, alias: str) -> None:
    entries = root({f"a/{source}": "executable"}, "a")

    assert entries[alias] == symlink(alias, f"{STORE}/a/{source}")
    assert entries[alias.rpartition("/")[0]].kind == "directory"


def test_a_package_that_has_the_expected_place_itself_is_left_alone() -> None:
    entries = root({"a/bin/env": "executable", "a/usr/bin/env": "executable"}, "a")

    assert entries["usr/bin/env"].target == f"{STORE}/a/usr/bin/env"


def test_a_program_that_is_the_whole_package_goes_to_bin() -> None:
    entries = root({"hash-run.sh": "executable"}, "hash-run.sh")

    assert entries["bin/run.sh"] == symlink("bin/run.sh", f"{STORE}/hash-run.sh")


def test_two_single_programs_of_one_name_collide() -> None:
    tree = {"h1-run": "executable", "h2-run": "executable"}

    assert root(tree, "h1-run", "h2-run")["bin/run"].target == f"{STORE}/h1-run"
    assert lost(tree, "h1-run", "h2-run") == (Collision("bin/run", f"{STORE}/h1-run", f"{STORE}/h2-run"),)


def test_a_single_program_wins_against_a_later_package() -> None:
    tree = {"h1-hello": "executable", "h2-pkg/bin/hello": "executable"}

    assert root(tree, "h1-hello", "h2-pkg")["bin/hello"].target == f"{STORE}/h1-hello"
    assert lost(tree, "h1-hello", "h2-pkg") == (
        Collision("bin/hello", f"{STORE}/h1-hello", f"{STORE}/h2-pkg/bin/hello"),
    )


def test_a_single_program_is_its_packages_command() -> None:
    hello = package("hello", "h1-hello")

    assert root_tree.main_program(hello, Tree({"h1-hello": "executable"})) == "/bin/hello"


@pytest.mark.parametrize("outputs", [("a",), ("a", "b"), ("b", "a")])
def test_a_file_where_the_image_has_a_directory_is_lost_and_told(outputs: tuple[str, ...]) -> None:
    tree = {"a/var": "file", "b/var/spool": "file"}

    assert root(tree, *outputs)["var"].kind == "directory"
    assert [item.loser for item in lost(tree, *outputs)] == [f"{STORE}/a/var"]


class Looped:
    """A store in which `up` of every package leads to the package itself, as `bin/X11 -> .` does."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def kind(self, path: str) -> Kind | None:
        return self._tree.kind(self.real(path))

    def children(self, path: str) -> Mapping[str, Kind]:
        found = self._tree.children(self.real(path))
        return {**found, "up": "directory"} if self.real(path).count("/") == 3 else found

    def read(self, path: str) -> str:
        return self._tree.read(self.real(path))

    def real(self, path: str) -> str:
        return path.replace("/up", "")


def test_a_directory_that_leads_back_to_itself_is_a_link() -> None:
    tree = Looped(Tree({"a/share/x": "file", "b/share/y": "file"}))

    merged = root_tree.merge([package("a", "a"), package("b", "b")], SET, tree)

    entries = {entry.path: entry for entry in merged.entries}
    assert entries["up"] == symlink("up", f"{STORE}/a/up")
    assert Collision("up", f"{STORE}/a/up", f"{STORE}/b/up") in merged.collisions
    assert entries["share/y"].target == f"{STORE}/b/share/y"


@pytest.mark.parametrize("named", ["/etc", "/nix/store/../../etc", "relative", "/nix/store/nothing"])
def test_what_is_propagated_has_to_be_in_the_store(named: str) -> None:
    tree = {"a/bin/a": "executable", "a/nix-support/propagated-user-env-packages": named}

    assert root(tree, "a").keys() == root({"a/bin/a": "executable"}, "a").keys()


def test_a_user_has_a_name_and_a_home() -> None:
    entries = {entry.path: entry for entry in root_tree.merge([], SET, Tree({}), user="1000:100").entries}

    assert entries["etc/passwd"].content.endswith(b"user:x:1000:100:user:/home/user:/bin/sh\n")
    assert entries["etc/group"].content.endswith(b"user:x:100:\n")
    assert entries["home/user"] == directory("home/user", 0o775, (1000, 0))
    assert entries["home"].owner == (0, 0)


def test_a_single_program_loses_against_an_earlier_package() -> None:
    tree = {"h1-a/bin/run": "executable", "h2-run": "executable"}

    assert lost(tree, "h1-a", "h2-run") == (Collision("bin/run", f"{STORE}/h1-a/bin/run", f"{STORE}/h2-run"),)


def test_a_data_file_is_no_package() -> None:
    with pytest.raises(PackageUnusable, match=r"words\.txt is a single file \(/nix/store/hash-words\.txt\)"):
        root({"hash-words.txt": "file"}, "hash-words.txt")


def test_an_empty_package_adds_nothing() -> None:
    assert root({"a": "directory"}, "a").keys() == root({}).keys()


def test_propagated_packages_come_after_all_that_were_asked_for() -> None:
    wanted = "nix-support/propagated-user-env-packages"
    tree = {
        f"a/{wanted}": f"{STORE}/c {STORE}/b\n",
        "a/bin/a": "executable",
        "b/bin/x": "executable",
        f"c/{wanted}": f"{STORE}/d {STORE}/a",
        "c/bin/x": "executable",
        "d/bin/d": "executable",
    }

    entries = root(tree, "a", "b")

    assert entries["bin/d"].target == f"{STORE}/d/bin/d"
    assert entries["bin/x"].target == f"{STORE}/b/bin/x"
    assert lost(tree, "a", "b") == (Collision("bin/x", f"{STORE}/b/bin/x", f"{STORE}/c/bin/x"),)


NAMES = st.sampled_from(["bin", "etc", "ssl", "certs", "share", "man", "x", "y", "tmp", "usr", "lib"])
FILES = st.lists(
    st.tuples(
        st.sampled_from(["h-a", "h-b", "h-c"]),
        st.lists(NAMES, min_size=1, max_size=4).map("/".join),
        st.sampled_from(["executable", "file"]),
    ),
    max_size=25,
)


def consistent(files: list[tuple[str, str, str]]) -> dict[str, str]:
    """A tree in which no path is both a file and a directory."""
    tree: dict[str, str] = dict.fromkeys(("h-a", "h-b", "h-c"), "directory")
    for output, path, kind in files:
        full = f"{output}/{path}"
        parents = {full[:i] for i, char in enumerate(full) if char == "/"} - {output}
        if not parents & tree.keys() and not any(known.startswith(f"{full}/") for known in tree):
            tree[full] = kind
    return tree


@given(FILES, st.permutations(["h-a", "h-b", "h-c"]))
def test_every_tree_is_whole_and_sorted(files: list[tuple[str, str, str]], order: list[str]) -> None:
    tree = Tree(consistent(files))

    merged = root_tree.merge([package(output, output) for output in order], SET, tree)

    paths = [entry.path for entry in merged.entries]
    kinds = {entry.path: entry.kind for entry in merged.entries}
    assert paths == sorted(set(paths), key=lambda path: path.split("/"))
    parents = {path.rpartition("/")[0] for path in paths} - {""}
    assert all(kinds.get(parent) == "directory" for parent in parents)
    assert all(
        tree.kind(entry.target) or entry == root({})["var/run"]
        for entry in merged.entries
        if entry.kind == "symlink"
    )
    assert all(collision.winner != collision.loser for collision in merged.collisions)
    assert merged == root_tree.merge([package(output, output) for output in order], SET, tree)


@given(FILES, st.permutations(["h-a", "h-b", "h-c"]))
def test_every_file_of_a_package_is_there_or_told_to_be_lost(
    files: list[tuple[str, str, str]], order: list[str]
) -> None:
    always = root({})
    files = [item for item in files if item[1] not in always and not item[1].startswith(("tmp", "run"))]
    tree = consistent(files)

    merged = root_tree.merge([package(output, output) for output in order], SET, Tree(tree))

    links = {entry.path: entry.target for entry in merged.entries if entry.kind == "symlink"}
    losers = {collision.loser for collision in merged.collisions}
    for full in (path for path, kind in tree.items() if kind != "directory"):
        output, _, path = full.partition("/")
        heads = [path[:end] for end in range(1, len(path) + 1) if path[end : end + 1] in ("", "/")]
        there = any(links.get(head) == f"{STORE}/{output}/{head}" for head in heads)
        assert there or any(f"{STORE}/{output}/{head}" in losers for head in heads), full


@pytest.mark.parametrize(
    ("name", "main_program", "programs", "expected"),
    [
        pytest.param("neovim", "nvim", ["neovim", "nvim"], "/bin/nvim", id="what the package says"),
        pytest.param("git", "", ["a", "git", "z"], "/bin/git", id="its own name"),
        pytest.param(
            "git", "gone", ["a", "git"], "/bin/git", id="its own name, as the one it says is missing"
        ),
        pytest.param("ripgrep", "", ["rg"], "/bin/rg", id="the only one"),
        pytest.param("ripgrep", "", [".rg-wrapped", "rg"], "/bin/rg", id="the only one that is not hidden"),
        pytest.param("coreutils", "", ["cat", "ls"], None, id="none of several"),
        pytest.param("words", "", [], None, id="none"),
        pytest.param("python3Packages.numpy", "", ["f2py", "numpy"], "/bin/numpy", id="the end of the path"),
    ],
)
def test_main_program(name: str, main_program: str, programs: list[str], expected: str | None) -> None:
    tree = Tree({"out": "directory", **{f"out/bin/{program}": "executable" for program in programs}})

    assert root_tree.main_program(package(name, "out", main_program=main_program), tree) == expected


@pytest.mark.parametrize(
    ("full_name", "program"),
    [
        pytest.param("git-2.39", "git", id="a version"),
        pytest.param("git", "git", id="no version"),
        pytest.param("apt-file-3", "apt-file", id="a dash in the name"),
        pytest.param("tool-_9", "tool", id="what is no letter begins the version"),
        pytest.param("tool-x9", "tool-x9", id="a letter does not"),
    ],
)
def test_the_name_without_its_version_is_a_program_too(full_name: str, program: str) -> None:
    tree = Tree({f"out/bin/{program}": "executable", "out/bin/other": "executable"})
    named = Package("attribute", full_name, "", (("out", f"{STORE}/out"),), "")

    assert root_tree.main_program(named, tree) == f"/bin/{program}"


def test_a_data_file_in_bin_is_no_program() -> None:
    tree = Tree({"out/bin/git": "file", "out/bin/run": "executable"})

    assert root_tree.main_program(package("git", "out"), tree) == "/bin/run"


def test_the_program_may_be_in_any_output() -> None:
    tree = Tree({"doc/share/x": "file", "out/bin/git": "executable", "out/bin/x": "executable"})

    assert root_tree.main_program(package("git", "doc", "out"), tree) == "/bin/git"


# --- bounds -----------------------------------------------------------------------------------------------------


class Endless(Tree):
    """A store in which every directory has two more, forty times over."""

    @override
    def kind(self, path: str) -> Kind | None:
        return None if "nix-support" in path else "directory"

    @override
    def children(self, path: str) -> Mapping[str, Kind]:
        return {"a": "directory", "b": "directory"} if path.count("/") < 40 else {"file": "file"}


@pytest.mark.parametrize("outputs", [("one",), ("one", "other")])
def test_a_tree_has_a_limit(monkeypatch: pytest.MonkeyPatch, outputs: tuple[str, ...]) -> None:
    monkeypatch.setattr(root_tree, "_LARGEST", 1000)
    endless = Endless({})
    if len(outputs) == 1:  # /etc is real all the way down, also where one package has it

        def children(path: str) -> Mapping[str, Kind]:
            return {"etc": "directory"} if path.count("/") == 3 else Endless.children(endless, path)

        monkeypatch.setattr(endless, "children", children)

    with pytest.raises(PackageUnusable, match="more than 1000 links"):
        root_tree.merge([package(output, output) for output in outputs], SET, endless)
