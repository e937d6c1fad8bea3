"""The Debian package set with real apt and real Nix: resolved, built in empty stores, and run in the sandbox.

Needs a Debian archive: the host's own, or the one that TESTS_ARCHIVE names. The sandbox is shown nothing of the
host, not even a shell.
"""

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from proxy.core.errors import PackageSetUnavailable, ProcessFailed
from proxy.nix.sets import debian
from proxy.nix.sets.debian import apt
from proxy.tools.process import run
from tests.support.needed import is_left_out, needs

pytestmark = [
    pytest.mark.integration,
    needs("apt-get"),
    pytest.mark.skipif(is_left_out(found=apt.KEYRING.is_file()), reason="needs Debian's keyring"),
]

SHIPPED = Path(__file__).parents[2] / "nix" / "debian"
LISTS = Path("/var/lib/apt/lists")
MINUTES = 60.0
IMPORT = """
  { lock, builder }: let set = import EXPRESSION { system = "x86_64-linux"; inherit lock builder; }; in VALUE
"""
# A build whose builder is the set's own shell: what it prints is what its programs print inside the sandbox.
# The shell ends last. A program in its place closes its output a moment before it ends, and Nix kills it then.
PRINTED = """
  derivation {
    name = "printed";
    system = "x86_64-linux";
    builder = "${set.bash}/bin/sh";
    args = [ "-euc" "exec > $out; export HOME=$PWD; PATH=PROGRAMS; COMMANDS; exit" ];
  }
"""


class Store:
    """Nix with an empty store of its own in a folder; the system's store is not touched."""

    def __init__(self, folder: Path, demo: debian.DebianSet) -> None:
        self._folder = folder
        self._demo = demo

    async def nix(self, *argv: str) -> str:
        """What the command printed."""
        env = {
            **os.environ,
            "NIX_REMOTE": str(self._folder),
            "NIX_CONFIG": "build-users-group =\nsandbox = true\nsandbox-paths =\nsubstitute = false\n",
        }
        try:
            return (await run(argv, env=env, deadline=5 * MINUTES)).decode()
        except ProcessFailed as failed:
            failed.add_note("\n".join(failed.tail))
            raise

    async def build(self, value: str) -> list[str]:
        """Store paths of the derivations that `value`, an expression about `set`, yields."""
        lock, builder = str(self._demo.lock), str(self._demo.builder)
        expression = IMPORT.replace("EXPRESSION", str(SHIPPED)).replace("VALUE", value)
        arguments = ("--argstr", "lock", lock, "--argstr", "builder", builder)
        return (await self.nix("nix-build", "--no-out-link", "-E", expression, *arguments)).split()

    async def printed(self, programs: str, commands: str) -> list[str]:
        """Lines that shell commands print in the sandbox, with only `programs` of the set in PATH."""
        path = ":".join(f"${{set.{name}}}/bin" for name in programs.split())
        value = PRINTED.replace("PROGRAMS", path).replace("COMMANDS", commands.replace('"', '\\"'))
        (out,) = await self.build(value)
        return await asyncio.to_thread(lambda: self.real(out).read_text().splitlines())

    async def names(self) -> set[str]:
        """Names of everything that is in the store, without the hashes."""
        return await asyncio.to_thread(lambda: {path.name[33:] for path in self.real("/nix/store").iterdir()})

    def real(self, path: str) -> Path:
        """Where a store path is on this host."""
        return self._folder / path.lstrip("/")


@pytest.fixture(scope="module")
def archive() -> str | None:
    return os.environ.get("TESTS_ARCHIVE")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, archive: str | None) -> debian.DebianSet:
    """The set, resolved once for this module."""
    folder = tmp_path_factory.mktemp("demo")
    return asyncio.run(
        debian.resolve(
            folder,
            expression=SHIPPED,
            recipe=SHIPPED / "packages.json",
            archive=archive,
            deadline=5 * MINUTES,
        )
    )


@pytest.fixture
def empty_store(tmp_path: Path, demo: debian.DebianSet) -> Store:
    return Store(tmp_path / "store", demo)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, demo: debian.DebianSet) -> Store:
    """A store with what earlier tests of this module built."""
    return Store(tmp_path_factory.mktemp("shared") / "store", demo)


def lock_of(demo: debian.DebianSet) -> dict[str, Any]:
    lock: dict[str, Any] = json.loads(demo.lock.read_bytes())
    return lock


# --- resolving --------------------------------------------------------------------------------------------


async def test_two_hosts_get_the_same_set(
    demo: debian.DebianSet, archive: str | None, tmp_path: Path
) -> None:
    """Another folder stands for the other host; apt's state on this one stays as it was."""
    before = await asyncio.to_thread(
        lambda: sorted((path.name, path.stat().st_mtime_ns) for path in LISTS.iterdir())
    )

    again = await debian.resolve(
        tmp_path / "other",
        expression=SHIPPED,
        recipe=SHIPPED / "packages.json",
        archive=archive,
        deadline=5 * MINUTES,
    )

    after = await asyncio.to_thread(
        lambda: sorted((path.name, path.stat().st_mtime_ns) for path in LISTS.iterdir())
    )
    assert (again.revision, again.created) == (demo.revision, demo.created)
    assert lock_of(again)["builder"]["hash"] == lock_of(demo)["builder"]["hash"]
    assert before == after


async def test_archive_by_url(demo: debian.DebianSet, tmp_path: Path) -> None:
    """The URL is taken from a lock: of the release's own suite, which has `hello`."""
    hello = lock_of(demo)["nodes"]["hello"]
    url = hello["debs"][0]["url"].partition("/pool/")[0]

    found = await debian.resolve(
        tmp_path / "by-url",
        expression=SHIPPED,
        recipe=SHIPPED / "packages.json",
        archive=url,
        deadline=5 * MINUTES,
    )

    assert lock_of(found)["nodes"]["hello"] == hello
    assert found.created == demo.created


async def test_lost_builder_is_made_again(demo: debian.DebianSet, tmp_path: Path) -> None:
    def copy_lock() -> Path:
        folder = tmp_path / "lost"
        folder.mkdir()
        shutil.copy(demo.lock, folder)
        return folder

    folder = await asyncio.to_thread(copy_lock)
    found = await debian.resolve(
        folder, expression=SHIPPED, recipe=SHIPPED / "packages.json", archive=None, deadline=5 * MINUTES
    )

    assert found.revision == demo.revision
    assert (found.builder / "bin/patchelf").stat().st_mode & 0o777 == 0o755


OTHERS = """
deb [signed-by=/usr/share/keyrings/vendor.gpg] http://127.0.0.1:1/vendor bookworm main
deb [arch=amd64] http://127.0.0.1:1/containers bookworm stable
deb http://127.0.0.1:1/cloud cloud-sdk-bookworm main
deb http://127.0.0.1:1/flat ./
"""


@pytest.fixture
def host_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only file in which apt on this host finds its sources, for the time of a test."""
    sources, configuration = tmp_path / "host.list", tmp_path / "host.conf"
    configuration.write_text(f'Dir::Etc::sourcelist "{sources}"; Dir::Etc::sourceparts "/dev/null";\n')
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    return sources


async def test_sources_of_others_do_not_matter(
    demo: debian.DebianSet, host_sources: Path, tmp_path: Path
) -> None:
    """None of them can be reached here; one has a suite of Debian's name under a key of its own."""
    url = lock_of(demo)["nodes"]["hello"]["debs"][0]["url"].partition("/pool/")[0]
    await asyncio.to_thread(host_sources.write_text, f"{OTHERS}deb {url} bookworm main contrib\n")

    found = await debian.resolve(
        tmp_path / "mixed",
        expression=SHIPPED,
        recipe=SHIPPED / "packages.json",
        archive=None,
        deadline=5 * MINUTES,
    )

    assert lock_of(found)["nodes"]["hello"] == lock_of(demo)["nodes"]["hello"]


async def test_host_of_another_distribution_is_told_what_to_set(host_sources: Path, tmp_path: Path) -> None:
    await asyncio.to_thread(host_sources.write_text, OTHERS)

    with pytest.raises(
        PackageSetUnavailable, match=r"cloud-sdk-bookworm of .* but not Debian 12 .* set the URL"
    ):
        await debian.resolve(
            tmp_path / "other",
            expression=SHIPPED,
            recipe=SHIPPED / "packages.json",
            archive=None,
            deadline=MINUTES,
        )


async def test_unreachable_archive_is_reported_with_apts_words(tmp_path: Path) -> None:
    with pytest.raises(PackageSetUnavailable) as caught:
        await debian.resolve(
            tmp_path / "none",
            expression=SHIPPED,
            recipe=SHIPPED / "packages.json",
            archive="http://127.0.0.1:1/debian",
            deadline=MINUTES,
        )

    assert "apt-get update failed" in str(caught.value)
    assert "http://127.0.0.1:1/debian" in str(caught.value)
    assert not (tmp_path / "none/lock.json").exists()


# --- building ---------------------------------------------------------------------------------------------


async def test_a_request_builds_its_own_closure_and_no_more(empty_store: Store) -> None:
    (hello,) = await empty_store.build("set.hello")
    names = await empty_store.names()

    assert "-hello-" in hello
    assert any(name.startswith("glibc-") for name in names)
    assert not any(name.startswith(("git", "perl", "python3-", "libssl3")) for name in names)


async def test_programs_run_from_the_store_without_the_host(store: Store) -> None:
    assert await store.printed("hello coreutils", "hello; ls -d /nix; basename $(cd / && echo b*)") == [
        "Hello, world!",
        "/nix",
        "build",  # no /bin: the sandbox has nothing of the host
    ]


async def test_git_and_jq_work(store: Store) -> None:
    """`submodule` is a shell script of git's own, `worktree` is built in."""
    lines = await store.printed(
        "git jq coreutils",
        "git init -q one; cd one; git config user.name N; git config user.email n@example.org;"
        " echo text > file; git add file; git commit -q -m first; git worktree add -q ../two; cd ../two;"
        " git log --format=%s; git submodule status; echo '{\"a\": [1, 2]}' | jq -c .a",
    )

    assert lines == ["first", "[1,2]"]


async def test_git_brings_the_shell_that_it_runs(store: Store) -> None:
    """`/bin/sh` is compiled into git (a clone starts it), so an image with git needs one."""
    git, bash = await store.build("[ set.git set.bash ]")
    propagated = store.real(git) / "nix-support/propagated-user-env-packages"

    assert await asyncio.to_thread(propagated.read_text) == f"{bash}\n"


async def test_numpy_brings_its_python(store: Store) -> None:
    (numpy,) = await store.build("set.python3Packages.numpy")
    closure = (await store.nix("nix-store", "--query", "--requisites", numpy)).split()
    lines = await store.printed(
        "python3",
        "export NIX_PYTHONPATH=${set.python3Packages.numpy}/lib/python3.11/site-packages;"
        " python3 -c 'import numpy, ssl, sqlite3; print(numpy.linalg.det(numpy.eye(3)))'",
    )

    assert any("-python3-3." in path for path in closure)
    assert lines == ["1.0"]


async def test_interpreters_look_into_their_own_store_path_alone(store: Store) -> None:
    """As those of nixpkgs do: the image has to tell them where its libraries are."""
    lines = await store.printed(
        "python3 perl",
        "! python3 -c 'import numpy' 2>/dev/null; ! perl -MJSON -e 1 2>/dev/null;"
        " export PERL5LIB=${set.perlPackages.JSON}/lib/perl5/site_perl;"
        " perl -MJSON -MPOSIX -e 'print encode_json([1])'",
    )

    assert lines == ["[1]"]


async def test_two_stores_hold_the_same_bytes(store: Store, demo: debian.DebianSet, tmp_path: Path) -> None:
    other = Store(tmp_path / "other-store", demo)
    paths = await store.build("[ set.hello set.bash set.cacert set.jq ]")

    assert paths == await other.build("[ set.hello set.bash set.cacert set.jq ]")
    closure = sorted((await store.nix("nix-store", "--query", "--requisites", *paths)).split())
    hashes = [await each.nix("nix-store", "--query", "--hash", *closure) for each in (store, other)]
    assert hashes[0] == hashes[1]
    assert len(hashes[0].split()) == len(closure)


async def test_references_are_what_debian_declares(store: Store, demo: debian.DebianSet) -> None:
    """Each declared dependency is one, and the builder never is: images would carry it."""
    (jq,) = await store.build("set.jq")
    direct = {path[44:] for path in (await store.nix("nix-store", "--query", "--references", jq)).split()}
    closure = await store.nix("nix-store", "--query", "--requisites", jq)
    nodes = lock_of(demo)["nodes"]

    assert {f"{name}-{nodes[name]['version'].replace('~', '-')}" for name in nodes["jq"]["deps"]} <= direct
    assert "debian-build" not in closure


async def test_certificates_and_services_are_where_programs_look(store: Store) -> None:
    cacert, iana = await store.build("[ set.cacert set.iana-etc ]")

    def read(path: str, name: str) -> str:
        return (store.real(path) / name).read_text()

    assert (await asyncio.to_thread(read, cacert, "etc/ssl/certs/ca-bundle.crt")).count(
        "BEGIN CERTIFICATE"
    ) > 100
    assert "https\t\t443/tcp" in await asyncio.to_thread(read, iana, "etc/services")
    assert "tcp\t6\tTCP" in await asyncio.to_thread(read, iana, "etc/protocols")
