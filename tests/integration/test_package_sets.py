"""Where packages come from: real repositories, real tarballs, and what an image says of its source."""

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy.tools import process
from tests.support.front import PACKAGES, Front
from tests.support.front import front as running
from tests.support.servers import Server, stock_registry

Start = Callable[..., AbstractAsyncContextManager[Front]]

COMMITTED = 1_234_567_890  # 2009-02-13T23:31:30Z
DATED = 1_000_000_000  # 2001-09-09T01:46:40Z


def git(folder: Path, *words: str, date: int = COMMITTED) -> str:
    """What git prints; nothing of this host's configuration takes part."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": f"{date} +0000",
        "GIT_COMMITTER_DATE": f"{date} +0000",
    }
    who = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    done = subprocess.run(("git", *who, *words), cwd=folder, env=environment, capture_output=True, check=True)
    return done.stdout.decode().strip()


def commit(folder: Path, text: str, date: int = COMMITTED) -> str:
    """A new commit, which changes no package."""
    with (folder / "default.nix").open("a", encoding="utf-8") as opened:
        opened.write(f"# {text}\n")
    git(folder, "commit", "-a", "-m", text, date=date)
    return git(folder, "rev-parse", "HEAD")


@asynccontextmanager
async def files_over_http(folder: Path, *middlewares: Middleware) -> AsyncIterator[str]:
    """The origin of a server of these files on loopback."""
    application = web.Application(middlewares=middlewares)
    application.router.add_static("/", folder)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    """A git repository that holds the test package set, and its commit."""
    folder = tmp_path / "repository"
    folder.mkdir()
    shutil.copy(PACKAGES / "default.nix", folder)
    git(folder, "init", "--initial-branch=main", ".")
    git(folder, "add", "default.nix")
    git(folder, "commit", "-m", "packages")
    return folder, git(folder, "rev-parse", "HEAD")


def labels(image: object) -> dict[str, str]:
    """The labels of a validated image."""
    return image.config["config"]["Labels"]  # type: ignore[attr-defined, no-any-return]


async def test_a_git_repository(start: Start, registry: Server, repository: tuple[Path, str]) -> None:
    folder, commit = repository
    source = {"kind": "git", "url": f"file://{folder}", "ref": "main", "path": ""}
    async with start(registry.url, packages=source) as front:
        image = await front.pull("hello")
        pinned = await front.pull("hello", commit)

    assert image.config["created"] == "2009-02-13T23:31:30Z"
    assert labels(image)["nixfront.revision"] == commit
    assert labels(image)["nixfront.source"] == f"file://{folder}"
    assert pinned.digest == image.digest


async def test_a_tarball(start: Start, registry: Server, tmp_path: Path) -> None:
    def dated(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = DATED
        return member

    archive = tmp_path / "set-1.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(PACKAGES, "set-1", filter=dated)
    source = {"kind": "tarball", "url": f"file://{tmp_path}/{{ref}}.tar.gz", "ref": "set-1", "path": ""}
    async with start(registry.url, packages=source) as front:
        image = await front.pull("hello")

    assert image.config["created"] == "2001-09-09T01:46:40Z"
    assert len(labels(image)["nixfront.revision"]) == 64


async def test_the_operators_date(start: Start, registry: Server) -> None:
    async with start(registry.url, packages={"date": "2020-02-02T00:00:00Z"}) as front:
        image = await front.pull("hello")

    assert image.config["created"] == "2020-02-02T00:00:00Z"


async def test_nixpkgs_that_cannot_be_had_is_said(start: Start, registry: Server) -> None:
    source = {"kind": "nixpkgs", "url": "http://127.0.0.1:1/{ref}.tar.xz", "path": ""}
    async with start(registry.url, packages=source) as front:
        status, _, body = await front.get("/v2/hello/manifests/latest")

    assert status == 503
    assert b"cannot fetch http://127.0.0.1:1/nixpkgs-unstable.tar.xz" in body


async def revision_of(front: Front, repository: str, tag: str) -> str:
    """The label that says from which revision an image was made."""
    return labels(await front.pull(repository, tag))["nixfront.revision"]


async def test_a_moving_branch_moves_once_its_time_is_over(
    start: Start, registry: Server, repository: tuple[Path, str]
) -> None:
    folder, first = repository
    source = {"kind": "git", "url": f"file://{folder}", "ref": "main", "path": ""}
    async with start(registry.url, packages={**source, "time_to_live": 3600.0}) as front:
        assert await revision_of(front, "hello", "main") == first
        second = commit(folder, "alpha")
        assert await revision_of(front, "alpha", "main") == first, "its time is not over"
    async with start(registry.url, packages={**source, "time_to_live": 0.0}) as front:
        assert await revision_of(front, "beta", "main") == second
        assert await revision_of(front, "hello", first) == first, "pinned is pinned"
        assert await revision_of(front, "hello", second) == second


async def test_tags_days_and_commits_of_a_repository(
    start: Start, registry: Server, repository: tuple[Path, str]
) -> None:
    folder, first = repository
    git(folder, "tag", "light", first)
    git(folder, "tag", "-m", "annotated", "v1.0", first)
    git(folder, "branch", "stable", first)
    git(folder, "checkout", "-b", "side")
    aside = commit(folder, "aside")
    git(folder, "checkout", "main")
    later = commit(folder, "later", date=COMMITTED + 86_400 * 10)
    source = {"kind": "git", "url": f"file://{folder}", "ref": "main", "path": ""}
    async with start(registry.url, packages=source) as front:
        found = {
            tag: await revision_of(front, "hello", tag)
            for tag in (
                "latest",
                "light",
                "v1.0",
                "stable",
                "2009-02-13",
                "2009-02-20",
                "2030-01-01",
                "side",
                aside,
            )
        }
        refused = [
            (await front.get(f"/v2/hello/manifests/{tag}"))[::2]
            for tag in ("nosuch", "2001-01-01", "f" * 40, "v1")
        ]

    assert found == {
        "latest": later,
        "light": first,
        "v1.0": first,
        "stable": first,
        "2009-02-13": first,
        "2009-02-20": first,
        "2030-01-01": later,
        "side": aside,
        aside: aside,
    }
    for status, body in refused:
        assert status == 404
        assert b"names no revision of package set git" in body


async def test_a_pinned_request_never_touches_the_network_again(
    start: Start, registry: Server, repository: tuple[Path, str]
) -> None:
    folder, first = repository
    source = {"kind": "git", "url": f"file://{folder}", "ref": "main", "path": ""}
    async with start(registry.url, packages=source) as front:
        image = await front.pull("hello", first)
    shutil.rmtree(folder)
    async with start(registry.url, packages=source) as front:
        again = await front.pull("alpha", first)
        status, _, body = await front.get("/v2/alpha/manifests/main")

    assert labels(again)["nixfront.revision"] == labels(image)["nixfront.revision"] == first
    assert status == 503, "a moving one needs the repository"
    assert b"git ls-remote failed" in body


async def test_every_image_has_tags_that_never_move(
    start: Start, registry: Server, repository: tuple[Path, str]
) -> None:
    folder, first = repository
    source = {"kind": "git", "url": f"file://{folder}", "ref": "main", "path": ""}
    async with start(registry.url, packages=source) as front:
        image = await front.pull("hello")
        _, _, listing = await front.get("/v2/hello/tags/list")
        tags = json.loads(listing)["tags"]
        starts = front.nix_starts()
        digests = {(await front.pull("hello", tag)).digest for tag in tags}

        assert front.nix_starts() == starts
        digests.add((await front.pull("hello", first)).digest)
        _, _, listing = await front.get("/v2/hello/tags/list")
        commit(folder, "later")
    async with start(registry.url, packages={**source, "time_to_live": 0.0}) as front:
        assert await revision_of(front, "alpha", "latest") != first
        short = await front.pull("alpha", f"revision-{first[:12]}")
        status, _, body = await front.get(f"/v2/alpha/manifests/revision-{'0' * 12}")
    assert labels(short)["nixfront.revision"] == first, "whose image of another name was never made"
    assert (status, b"name the revision in full" in body) == (404, True)
    assert f"revision-{first[:12]}" in tags
    assert {*json.loads(listing)["tags"]} == {*tags, first}, "who wants the full revision gets that tag"
    assert "latest" in tags
    assert len(tags) == 4, "and one of the output hash, and the version"
    assert digests == {image.digest}


async def test_a_channel_is_a_commit(
    start: Start, registry: Server, tmp_path: Path, repository: tuple[Path, str]
) -> None:
    commits = ["1" * 40, "2" * 40]
    served = tmp_path / "served"
    (served / "unstable").mkdir(parents=True)
    for number, name in enumerate(commits):
        with tarfile.open(served / f"{name}.tar.gz", "w:gz") as tar:
            member = tarfile.TarInfo("set/default.nix")
            data = (PACKAGES / "default.nix").read_bytes() + b"# %d\n" % number
            member.size, member.mtime = len(data), DATED + number
            tar.addfile(member, io.BytesIO(data))
    async with files_over_http(served) as url:
        source = {
            "kind": "nixpkgs",
            "url": f"{url}/{{revision}}.tar.gz",
            "pointer": f"{url}/{{ref}}/git-revision",
            "ref": "unstable",
            "path": "",
            "time_to_live": 0.0,
        }
        async with start(registry.url, packages=source) as front:
            (served / "unstable" / "git-revision").write_text(commits[0] + "\n", encoding="ascii")
            one = await front.pull("hello")
            (served / "unstable" / "git-revision").write_text(commits[1], encoding="ascii")
            two = await front.pull("alpha")
            pinned = await front.pull("alpha", commits[0])
            missing = await front.get("/v2/hello/manifests/nosuchchannel")
            gone = await front.get(f"/v2/hello/manifests/{'3' * 40}")

    assert labels(one)["nixfront.revision"] == commits[0]
    assert labels(two)["nixfront.revision"] == commits[1]
    assert labels(pinned)["nixfront.revision"] == commits[0]
    assert one.config["created"] == "2001-09-09T01:46:40Z"
    assert missing[0] == gone[0] == 404
    assert b"there is no such channel" in missing[2]
    assert b"names no revision" in gone[2]


async def test_a_set_is_chosen_by_the_operators_prefix(
    start: Start, registry: Server, repository: tuple[Path, str]
) -> None:
    folder, first = repository
    sets = {"mine": {"kind": "git", "url": f"file://{folder}", "ref": "main"}}
    async with start(registry.url, sets=sets) as front:
        mine, default = await front.pull("mine/hello"), await front.pull("hello")

    assert labels(mine)["nixfront.package-set"] == "mine"
    assert labels(mine)["nixfront.revision"] == first
    assert labels(default)["nixfront.package-set"] == "path"
    assert mine.layers[:-1] == default.layers[:-1], "the same packages are the same layers"
    assert mine.layers[-1] != default.layers[-1], "/etc/os-release names the set"


async def test_a_flake(start: Start, registry: Server, tmp_path: Path) -> None:
    folder = tmp_path / "flake"
    folder.mkdir()
    shutil.copy(PACKAGES / "default.nix", folder)
    (folder / "flake.nix").write_text(
        '{ outputs = _: { packages.x86_64-linux = import ./default.nix { system = "x86_64-linux"; }; }; }',
        encoding="ascii",
    )
    git(folder, "init", "--initial-branch=main", ".")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "flake")
    first = git(folder, "rev-parse", "HEAD")
    source = {"kind": "flake", "url": f"git+file://{folder}", "ref": "main", "path": ""}
    async with start(registry.url, packages=source) as front:
        image = await front.pull("hello")
        shutil.rmtree(folder)
        pinned = await front.pull("alpha", first)
    missing = {**source, "attribute": "legacyPackages", "revision": first}
    async with start(registry.url, packages=missing) as front:
        status, _, body = await front.get("/v2/beta/manifests/latest")

    assert labels(image)["nixfront.revision"] == labels(pinned)["nixfront.revision"] == first
    assert image.config["created"] == "2009-02-13T23:31:30Z"
    assert status == 404
    assert b"the flake has no output legacyPackages" in body


async def test_a_flake_reads_its_inputs_and_no_other_folder(
    start: Start, registry: Server, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "flake.nix").write_text("{ outputs = _: { }; }", encoding="ascii")
    (outside / "secret").write_text("of this host", encoding="ascii")
    data = committed(tmp_path / "data", {"text": "of the input"})
    library = committed(
        tmp_path / "library",
        {
            "sub/flake.nix": f"""
                {{
                  inputs.data = {{ url = "git+file://{data}"; flake = false; }};
                  outputs = {{ self, data }}: {{ text = builtins.readFile (data + "/text"); place = "${{self}}"; }};
                }}
            """
        },
    )
    flake = committed(
        tmp_path / "flake",
        {
            "default.nix": (PACKAGES / "default.nix").read_text(encoding="utf-8"),
            "flake.nix": f'''
                {{
                  inputs.data = {{ url = "git+file://{data}"; flake = false; }};
                  inputs.library = {{ url = "git+file://{library}?dir=sub"; inputs.data.follows = "data"; }};
                  outputs = {{ self, data, library }}: {{
                    packages.x86_64-linux = (import ./default.nix {{ system = "x86_64-linux"; }}) // {{
                      ours = throw "${{library.text}}, ${{data.shortRev}}, ${{data.lastModifiedDate}}, ${{library.rev}}, ${{baseNameOf library.place}}";
                      folder = throw (builtins.readFile (builtins.fetchTree {{ type = "path"; path = "{outside}"; }} + "/secret"));
                      other = throw (builtins.readFile (builtins.getFlake "path:{outside}" + "/secret"));
                    }};
                  }};
                }}
            ''',
        },
    )
    lock = ("nix", "--extra-experimental-features", "nix-command flakes", "flake", "lock", str(flake))
    await process.run(lock, env={**os.environ, "NIX_REMOTE": str(tmp_path / "store")}, deadline=120)
    git(flake, "add", ".")
    git(flake, "commit", "-m", "lock")

    source = {"kind": "flake", "url": f"git+file://{flake}", "ref": "main", "path": ""}
    async with start(registry.url, packages=source) as front:
        image = await front.pull("hello")
        messages = [
            (await front.get(f"/v2/{name}/manifests/latest"))[2] for name in ("ours", "folder", "other")
        ]

    assert labels(image)["nixfront.package-set"] == "flake"
    commits = [git(folder, "rev-parse", "HEAD") for folder in (data, library)]
    ours = f"of the input, {commits[0][:7]}, 20090213233130, {commits[1]}, sub"
    assert ours.encode() in messages[0], messages[0]
    for message in messages[1:]:
        assert b"Nix cannot evaluate" in message
        assert b"of this host" not in message


def committed(folder: Path, files: Mapping[str, str]) -> Path:
    """A git repository with these files."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    git(folder, "init", "--initial-branch=main", ".")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "files")
    return folder


async def test_a_flake_that_is_not_locked_is_refused(
    start: Start, registry: Server, tmp_path: Path, repository: tuple[Path, str]
) -> None:
    folder = tmp_path / "flake"
    folder.mkdir()
    (folder / "flake.nix").write_text(
        f'{{ inputs.other = {{ url = "git+file://{repository[0]}"; flake = false; }}; outputs = _: {{ }}; }}',
        encoding="ascii",
    )
    git(folder, "init", "--initial-branch=main", ".")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "not locked")
    source = {"kind": "flake", "url": f"git+file://{folder}", "ref": "main", "path": ""}
    async with start(registry.url, packages=source) as front:
        status, _, body = await front.get("/v2/hello/manifests/latest")

    assert status == 503
    assert b"lock file" in body


async def test_a_pinned_image_is_the_same_on_two_empty_stores(
    tmp_path: Path, nix_count: Path, repository: tuple[Path, str]
) -> None:
    folder, first = repository
    commit(folder, "the branch has moved")
    source = {"kind": "git", "url": f"file://{folder}", "ref": "main", "path": ""}
    digests = []
    for name in ("one", "other"):
        (tmp_path / name / "registry").mkdir(parents=True)
        async with (
            stock_registry(tmp_path / name / "registry") as registry,
            running(tmp_path / name, nix_count, registry.url, packages=source) as front,
        ):
            digests.append((await front.pull("shell/user/beta", first)).digest)

    assert digests[0] == digests[1]


async def test_a_password_in_an_address_is_told_to_nobody(
    start: Start, registry: Server, repository: tuple[Path, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for source in (
        {"kind": "git", "url": "http://me:geheim@127.0.0.1:1/x.git", "ref": "main", "path": ""},
        {"kind": "nixpkgs", "url": "http://x", "pointer": "http://me:geheim@127.0.0.1:1/{ref}", "path": ""},
    ):
        async with start(registry.url, packages=source) as front:
            status, headers, body = await front.get("/v2/hello/manifests/latest")
            told = str(front.events)

        assert status == 503
        for text in (str(headers), body.decode(), told, caplog.text):
            assert "geheim" not in text


async def test_a_branch_with_a_slash_has_a_spelling(
    start: Start, registry: Server, repository: tuple[Path, str]
) -> None:
    folder, _ = repository
    git(folder, "checkout", "-b", "release/24.05")
    branch = commit(folder, "on the branch")
    git(folder, "checkout", "main")
    source = {"kind": "git", "url": f"file://{folder}", "ref": "main", "path": "", "refs": ("release/*",)}
    async with start(registry.url, packages=source) as front:
        assert await revision_of(front, "hello", "release--2f24.05") == branch
        status, _, body = await front.get("/v2/hello/manifests/other--2fbranch")

    assert status == 404
    assert "packages.refs of this host does not allow it" in body.decode()


async def test_a_day_before_the_first_commit_says_which_is_the_first(
    start: Start, registry: Server, repository: tuple[Path, str]
) -> None:
    folder, _ = repository
    commit(folder, "a later one", COMMITTED + 10 * 86400)
    source = {"kind": "git", "url": f"file://{folder}", "ref": "main", "path": ""}
    async with start(registry.url, packages=source) as front:
        status, _, body = await front.get("/v2/hello/manifests/2009-02-12")

    assert status == 404
    assert "the first commit is of 2009-02-13" in body.decode()


async def test_a_version_that_is_a_branch_too_means_the_branch(
    start: Start, registry: Server, repository: tuple[Path, str]
) -> None:
    folder, _ = repository
    git(folder, "checkout", "-b", "1.0")
    branch = commit(folder, "on the branch")
    git(folder, "checkout", "main")
    source = {"kind": "git", "url": f"file://{folder}", "ref": "main", "path": ""}
    async with start(registry.url, packages=source) as front:
        latest = await revision_of(front, "hello", "latest")
        _, _, body = await front.get("/v2/hello/tags/list")

        assert "1.0" not in json.loads(body)["tags"]
        assert await revision_of(front, "hello", "1.0") == branch != latest
