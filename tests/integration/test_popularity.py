"""`nixfront popularity` on real parts: a package set, a binary cache made of it, the images in a registry; and its use."""

import asyncio
import platform
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from proxy import cli
from proxy.image import layer_table
from proxy.image.layer_table import LayerTable
from tests.support.front import PACKAGES, Front
from tests.support.servers import Server

NAMES = ("hello", "alpha", "beta", "camelCase.innerPackage", "twice")


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "DATA_DIR": tmp_path / "data",
        "NIX_STORE": tmp_path / "store",
        "PACKAGES_KIND": "path",
        "PACKAGES_PATH": PACKAGES,
    }.items():
        monkeypatch.setenv(f"NIXFRONT_{name}", str(value))


async def made(tmp_path: Path, *argv: str) -> LayerTable:
    """The table that the command writes into a file."""
    file = tmp_path / "table.json"
    assert await asyncio.to_thread(cli.main, ["popularity", *argv, "-o", str(file)]) == 0
    return layer_table.read(file.read_bytes())


async def nix(*argv: str) -> str:
    child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    output, _ = await child.communicate()
    assert child.returncode == 0
    return output.decode()


async def outputs(*names: str) -> list[str]:
    """The store paths of packages that were realised."""
    words = [word for name in names for word in ("-A", name)]
    system = f"{platform.machine()}-linux"
    drvs = await nix("nix-instantiate", str(PACKAGES), *words, "--argstr", "system", system)
    return (await nix("nix-store", "--realise", *drvs.split())).split()


def groups(table: LayerTable) -> set[frozenset[str]]:
    numbers = set(table.groups.values())
    return {frozenset(name for name, group in table.groups.items() if group == number) for number in numbers}


async def test_a_set_is_realised_and_equal_facts_give_equal_bytes(tmp_path: Path) -> None:
    first = await made(tmp_path, *NAMES)
    again = await made(tmp_path, *reversed(NAMES))

    assert layer_table.write(first) == layer_table.write(again)
    assert first.source == "5 packages of path, 7 store paths"
    assert first.groups.keys() == {"hello", "alpha", "beta", "inner", "twice", "common", "nss-cacert"}
    assert first.groups["nss-cacert"] == 0  # in every image


async def test_what_cannot_be_had_is_left_out_of_a_whole_set_and_refused_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    (few / "all.nix").write_text((PACKAGES / "default.nix").read_text())
    names = "hello twice unfree broken needsBroken cacert"
    (few / "default.nix").write_text(
        f"{{ system }}: {{ inherit (import ./all.nix {{ inherit system; }}) {names}; }}"
    )
    monkeypatch.setenv("NIXFRONT_PACKAGES_PATH", str(few))

    table = await made(tmp_path)
    told = capsys.readouterr().err

    assert table.groups.keys() == {"hello", "common", "twice", "nss-cacert"}
    assert {line.split(": ")[2] for line in told.splitlines() if line.startswith("nixfront: left out")} == {
        "unfree",
        "broken",
        "needsBroken",
    }
    assert await asyncio.to_thread(cli.main, ["popularity", "hello", "unfree"]) == 1
    assert "nixfront: left out" not in capsys.readouterr().err


async def test_a_binary_cache_says_the_same_as_the_set_in_a_folder_and_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_set = await made(tmp_path, *NAMES)
    monkeypatch.setenv("NIX_REMOTE", str(tmp_path / "store"))
    roots = await outputs(*NAMES)
    (everywhere,) = await outputs("cacert")
    cache = tmp_path / "cache"
    command = ("nix", "--extra-experimental-features", "nix-command", "copy", "--to", f"file://{cache}")
    await nix(*command, *roots, everywhere)
    (tmp_path / "roots").write_text("\n".join(roots) + "\n")

    in_folder = await made(
        tmp_path, "--narinfo", str(cache), "--always", everywhere, "--names", str(tmp_path / "roots")
    )
    async with serving(cache) as (url, _):
        over_http = await made(tmp_path, "--narinfo", url, "--always", everywhere, *roots)

    assert in_folder.groups == over_http.groups == of_set.groups
    assert in_folder.source == "5 store paths of a binary cache, 7 store paths"


@asynccontextmanager
async def serving(folder: Path, *statuses: int) -> AsyncIterator[tuple[str, list[str]]]:
    """A web server of the folder, and what was asked of it; the first answers about store paths have these statuses."""
    asked: list[str] = []
    failures = list(statuses)

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        if failures and request.path.endswith(".narinfo"):
            return web.Response(status=failures.pop(0))
        file = folder / request.path.lstrip("/")
        return web.FileResponse(file) if await asyncio.to_thread(file.is_file) else web.Response(status=404)

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


@pytest.fixture
def small_cache(tmp_path: Path) -> Path:
    cache = tmp_path / "small-cache"
    cache.mkdir()
    (cache / "nix-cache-info").write_text("StoreDir: /nix/store\n")
    for digest, name, needs in (("a", "tool", "b"), ("b", "lib", "")):
        references = " ".join(f"{need * 32}-lib-1" for need in needs)
        text = f"StorePath: /nix/store/{digest * 32}-{name}-1\nNarSize: 9\nReferences: {references}\n"
        (cache / f"{digest * 32}.narinfo").write_text(text)
    return cache


async def test_a_cache_that_falters_is_asked_again(tmp_path: Path, small_cache: Path) -> None:
    async with serving(small_cache, 503) as (url, asked):
        table = await made(tmp_path, "--narinfo", url, "a" * 32)

    assert table.groups.keys() == {"tool", "lib"}
    assert asked.count(f"/{'a' * 32}.narinfo") == 2


@pytest.mark.parametrize(
    ("statuses", "told", "times"),
    [
        pytest.param((500, 500, 500), "500", 3, id="broken"),
        pytest.param((401,), "401", 1, id="not for us"),
        pytest.param(
            (403,), "has none of these store paths", 1, id="some stores say so that there is nothing"
        ),
    ],
)
async def test_a_cache_that_does_not_answer_is_told_and_not_asked_for_ever(
    small_cache: Path, statuses: tuple[int, ...], told: str, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(small_cache, *statuses) as (url, asked):
        argv = ["popularity", "--narinfo", url.replace("://", "://me:secret@"), "a" * 32]
        assert await asyncio.to_thread(cli.main, argv) == 1

    error = capsys.readouterr().err
    assert told in error
    assert "secret" not in error
    assert asked.count(f"/{'a' * 32}.narinfo") == times


async def test_what_the_cache_lacks_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await made(tmp_path, *NAMES)
    monkeypatch.setenv("NIX_REMOTE", str(tmp_path / "store"))
    roots = await outputs(*NAMES)
    cache = tmp_path / "cache"
    await nix(
        "nix", "--extra-experimental-features", "nix-command", "copy", "--to", f"file://{cache}", *roots
    )
    (common,) = [
        file for file in cache.glob("*.narinfo") if "-common-1.0\n" in file.read_text().partition("URL")[0]
    ]
    common.unlink()

    table = await made(tmp_path, "--narinfo", str(cache), *roots)

    assert table.groups.keys() == {"inner", "twice"}
    assert capsys.readouterr().err.count("left out: ") == 3
    assert await asyncio.to_thread(cli.main, ["popularity", "--narinfo", str(cache), roots[0]]) == 1
    assert "the cache has none of these store paths" in capsys.readouterr().err


async def test_images_that_were_served_are_counted_and_their_table_is_followed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    registry: Server,
    start: Callable[..., AbstractAsyncContextManager[Front]],
) -> None:
    async with start(registry.url) as front:
        before = await front.pull("beta/twice")
        await front.pull("alpha")
    monkeypatch.setenv("NIXFRONT_REGISTRY_URL", registry.url)

    table = await made(tmp_path, "--served")

    assert table.source == "2 images served, 6 store paths"
    assert frozenset(("beta", "hello", "twice")) in groups(table)
    layers = {"table": str(tmp_path / "table.json")}
    async with start(registry.url, layers=layers) as front:
        after = await front.pull("twice/beta")
    assert before.digest != after.digest
    (together,) = {member.layer for path, member in after.files.items() if path.endswith("-beta-1.0")}
    held = {path.rpartition("/")[2] for path, member in after.files.items() if member.layer == together}
    assert {name[33:] for name in held if name.endswith("-1.0")} == {"beta-1.0", "hello-1.0", "twice-1.0"}


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        pytest.param(["--narinfo", "/nowhere", "x"], 1, "no store path", id="a root that is none"),
        pytest.param(["--narinfo", "/nowhere", "0" * 32], 1, "/nowhere is no binary cache", id="no cache"),
        pytest.param(
            ["--set", "team"], 2, "there is no package set 'team'", id="a set that nobody configured"
        ),
        pytest.param(["--names", "/nowhere"], 1, "/nowhere", id="a file that is not there"),
        pytest.param(["nothing"], 1, "no package nothing", id="a package that is not there"),
    ],
)
async def test_what_is_wrong_is_told(
    argv: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(cli.main, ["popularity", *argv]) == code
    assert told in capsys.readouterr().err


async def test_an_empty_registry_makes_no_table(
    monkeypatch: pytest.MonkeyPatch, registry: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIXFRONT_REGISTRY_URL", registry.url)

    assert await asyncio.to_thread(cli.main, ["popularity", "--served"]) == 2
    assert "no image of ours, to make a table from" in capsys.readouterr().err
