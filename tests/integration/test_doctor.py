"""Faults that hosts have, seeded one by one: each is found, and its cure is named."""

import asyncio
import email.utils
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

from proxy import settings
from proxy.cli import doctor
from proxy.cli.doctor.finding import Finding
from tests.support.front import PACKAGES, front
from tests.support.guarded import PASSWORDS, htpasswd_registry
from tests.support.processes import free_port, search_path
from tests.support.servers import Server

NO_NIX = ("nix", "nix-store", "nix-build", "nix-instantiate")


@pytest.fixture
def examine(tmp_path: Path) -> Callable[..., Any]:
    """`await examine(registry={"url": ...})`: what the doctor finds with these settings."""

    async def found(**sections: Any) -> list[Finding]:
        chosen = settings.load(
            None,
            {},
            http={"addr": f"127.0.0.1:{free_port()}"} | sections.pop("http", {}),
            data={"dir": str(tmp_path / "data")} | sections.pop("data", {}),
            nix={"store": str(tmp_path / "store")} | sections.pop("nix", {}),
            packages={"kind": "path", "path": str(PACKAGES)} | sections.pop("packages", {}),
            **sections,
        )
        return await doctor.examine(chosen)

    return found


def wrong(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, finding.level) for finding in found if finding.level != "fine"]


def cure(found: list[Finding], check: str) -> str:
    (finding,) = [finding for finding in found if finding.check == check and finding.level != "fine"]
    assert finding.cure
    return finding.cure


@asynccontextmanager
async def answering(status: int, body: str, headers: dict[str, str]) -> AsyncIterator[str]:
    """A server that says the same to everybody."""

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, text=body, headers=headers)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def programs_without(folder: Path, *names: str) -> str:
    """A search path with everything that is found now but these."""
    folder.mkdir()
    for source in search_path().split(os.pathsep):
        for entry in sorted(Path(source).iterdir()) if Path(source).is_dir() else ():
            if entry.name not in names and not (folder / entry.name).is_symlink():
                (folder / entry.name).symlink_to(entry)
    return str(folder)


def nix_that(folder: Path, script: str) -> str:
    """A search path on which every program of Nix is this script."""
    folder.mkdir()
    for name in NO_NIX:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


async def test_a_sound_host_has_nothing_to_cure(examine: Callable[..., Any], registry: Server) -> None:
    found = await examine(registry={"url": registry.url})

    assert wrong(found) == []
    assert {"nix", "building", "registry", "package sets", "data folder", "addresses", "clock"} <= {
        finding.check for finding in found
    }


async def test_each_further_platform_says_what_this_host_can_do_for_it(
    examine: Callable[..., Any], registry: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"registry": {"url": registry.url}, "image": {"platforms": ("linux/amd64", "linux/s390x")}}
    alone = {finding.check: finding for finding in await examine(**chosen)}
    cached = {
        finding.check: finding
        for finding in await examine(**chosen, nix={"substituters": ("http://127.0.0.1:1",)})
    }

    assert alone["platform linux/s390x"].level == cached["platform linux/s390x"].level == "doubtful"
    assert "there is no binary cache" in alone["platform linux/s390x"].message
    assert "has what is in http://127.0.0.1:1" in cached["platform linux/s390x"].message
    assert "nix.builders with a machine for s390x-linux" in alone["platform linux/s390x"].cure
    assert "platform linux/amd64" not in alone, "the build of every examination is for this one"


async def test_what_it_tries_leaves_no_repository(examine: Callable[..., Any], registry: Server) -> None:
    await examine(registry={"url": registry.url})

    async with aiohttp.ClientSession() as session, session.get(f"{registry.url}/v2/_catalog") as answer:
        assert await answer.json() == {"repositories": []}
    log = registry.process.log_text()
    assert '"DELETE /v2/nixfront-doctor/blobs/uploads/' in log, "the upload that it began is cancelled"


async def test_no_nix(examine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", programs_without(tmp_path / "bare", *NO_NIX))

    assert "apt-get install nix-bin" in cure(await examine(), "nix")


async def test_an_old_nix(
    examine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", nix_that(tmp_path / "old", "echo 'nix-store (Nix) 2.3.16'"))

    found = await examine()

    assert "Nix 2.3.16 is too old" in [finding.message for finding in found]
    assert "2.8 or newer" in cure(found, "nix")


async def test_a_daemon_that_is_away(examine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_REMOTE", "unix:///nowhere/socket")

    assert "systemctl start nix-daemon.socket" in cure(await examine(nix={"store": ""}), "nix store")


async def test_a_store_that_cannot_be_written(examine: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert "nix.store" in cure(await examine(nix={"store": str(tmp_path / "file/store")}), "nix store")


async def test_a_sandbox_without_a_shell(
    examine: Callable[..., Any], registry: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIX_CONFIG", "substituters =\nsandbox = true\nsandbox-paths =")

    found = await examine(registry={"url": registry.url})

    assert wrong(found) == [("sandbox shell", "doubtful")]
    assert "sandbox-paths = /bin/sh=" in cure(found, "sandbox shell")

    demo = {"kind": "demo", "path": "", "archive": "http://127.0.0.1:9/debian"}
    found = await examine(registry={"url": registry.url}, packages=demo)

    assert "sandbox shell" not in [finding.check for finding in found]
    assert "the demo set needs none" in next(each.message for each in found if each.check == "building")


async def test_a_host_without_user_namespaces(
    examine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = "error: this system does not support the kernel namespaces that are required for sandboxing; use '--no-sandbox'"
    script = f"""case "$0 $*" in *nix-build*) echo "{said}" >&2; exit 1;; *--version*) echo 'nix (Nix) 2.8.0';;
        *) echo '{{}}';; esac"""
    monkeypatch.setenv("PATH", nix_that(tmp_path / "namespaces", script))

    assert "sandbox = false" in cure(await examine(), "sandbox")


async def test_no_sandbox(
    examine: Callable[..., Any], registry: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "NIX_CONFIG", "substituters =\nsandbox = false\nextra-sandbox-paths = /bin /usr /lib /lib64"
    )

    assert "sandbox = true" in cure(await examine(registry={"url": registry.url}), "sandbox")


async def test_a_user_whom_the_daemon_does_not_trust(
    examine: Callable[..., Any], registry: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr("proxy.cli.doctor.os.access", lambda *_: True)
    monkeypatch.setenv("NIX_CONFIG", os.environ["NIX_CONFIG"] + "\nbuild-users-group =")

    assert "trusted-users" in cure(await examine(registry={"url": registry.url}), "trusted user")


async def test_a_system_that_this_nix_does_not_build_for(
    examine: Callable[..., Any], registry: Server
) -> None:
    found = await examine(registry={"url": registry.url}, packages={"system": "riscv64-linux"})

    assert "packages.system" in cure(found, "building")


async def test_no_registry_program(
    examine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", programs_without(tmp_path / "bare", "docker-registry", "registry"))

    assert "apt-get install docker-registry" in cure(await examine(), "registry")


async def test_a_registry_that_is_away(examine: Callable[..., Any]) -> None:
    found = await examine(registry={"url": f"http://127.0.0.1:{free_port()}"})

    assert "registry.url" in cure(found, "registry")


async def test_something_that_is_no_registry(examine: Callable[..., Any]) -> None:
    async with answering(200, "<html>welcome</html>", {}) as url:
        found = await examine(registry={"url": url})

    assert "the registry itself" in cure(found, "registry")


async def test_a_registry_that_wants_credentials(examine: Callable[..., Any]) -> None:
    headers = {"Docker-Distribution-Api-Version": "registry/2.0", "WWW-Authenticate": "Basic realm=x"}
    async with answering(401, "{}", headers) as url:
        found = await examine(registry={"url": url})

    assert "account that may push" in cure(found, "registry credentials")


async def test_the_credentials_that_nixfront_has_are_tried(
    examine: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    async with htpasswd_registry(folder) as closed:
        section = {"url": closed.url, "username": "nixfront"}
        fine = await examine(registry={**section, "password": PASSWORDS["nixfront"]})
        mistyped = await examine(registry={**section, "password": "between them"})

    checks = ("registry", "registry credentials", "registry deletes")
    assert [each for each in wrong(fine) if each[0] in checks] == []
    assert "registry.username" in cure(mistyped, "registry credentials")


async def test_a_mirror_before_a_registry_that_wants_a_login(
    examine: Callable[..., Any], registry: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    mirror = {"addr": f"127.0.0.1:{free_port()}", "allow": ("hello", "tools-*"), "prefix": "nix/"}
    async with htpasswd_registry(folder) as closed:
        login = {"url": closed.url, "username": "nixfront", "password": PASSWORDS["nixfront"]}
        guarded = await examine(registry=login, mirror=mirror)
        without = await examine(registry=login)
    open_to_all = await examine(registry={"url": registry.url}, mirror=mirror)

    (finding,) = [each for each in guarded if each.check == "mirror"]
    assert finding.level == "wrong"
    assert finding.message.startswith(f"{closed.url} wants a login for hello, tools-*, *")
    assert "they get the image of another registry" in finding.message
    assert "mirror.allow" in cure(guarded, "mirror")
    assert [each.check for each in (*without, *open_to_all) if each.check == "mirror"] == []


async def test_a_registry_that_deletes_nothing(examine: Callable[..., Any]) -> None:
    headers = {"Docker-Distribution-Api-Version": "registry/2.0", "Location": "/v2/x/blobs/uploads/1"}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        status = {"GET": 200, "POST": 202, "DELETE": 405}[request.method]
        return web.Response(status=status, text="{}", headers=headers)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found = await examine(registry={"url": f"http://127.0.0.1:{runner.addresses[0][1]}"})
    await runner.cleanup()

    assert wrong(found) == [("registry deletes", "doubtful")]
    assert "storage.delete.enabled" in cure(found, "registry deletes")


async def test_clocks_that_differ(examine: Callable[..., Any]) -> None:
    headers = {
        "Docker-Distribution-Api-Version": "registry/2.0",
        "Date": email.utils.formatdate(time.time() - 7200, usegmt=True),
    }
    async with answering(200, "{}", headers) as url:
        found = await examine(registry={"url": url})

    assert "NTP" in cure(found, "clock")


async def test_a_clock_that_was_never_set(
    examine: Callable[..., Any], registry: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.cli.doctor._EARLIEST", time.time() + 10_000)

    assert "timedatectl" in cure(await examine(registry={"url": registry.url}), "clock")


async def test_a_data_folder_that_cannot_be(examine: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert "data.dir" in cure(await examine(data={"dir": str(tmp_path / "file/data")}), "data folder")


async def test_a_full_disk(
    examine: Callable[..., Any], registry: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free = (await asyncio.to_thread(shutil.disk_usage, tmp_path)).free
    monkeypatch.setattr(doctor, "LEAST_FREE", free * 2)

    cures = [
        finding.cure for finding in await examine(registry={"url": registry.url}) if finding.check == "disk"
    ]

    assert any("data.dir" in told for told in cures)
    assert any("nix-collect-garbage" in told for told in cures)


async def test_an_address_that_is_taken(examine: Callable[..., Any]) -> None:
    async with answering(200, "somebody else", {}) as url:
        found = await examine(http={"addr": url.removeprefix("http://")})

    assert "ss -ltnp" in cure(found, "addresses")


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_an_address_at_which_nixfront_answers(
    examine: Callable[..., Any], registry: Server, tmp_path: Path, nix_count: Path, secure: bool
) -> None:
    http = {}
    if secure:
        issued = trustme.CA().issue_cert("images.example")
        http = {"certificate": str(tmp_path / "own.pem"), "key": str(tmp_path / "own-key.pem")}
        issued.cert_chain_pems[0].write_to_path(http["certificate"])
        issued.private_key_pem.write_to_path(http["key"])
    mirror = {"addr": f"127.0.0.1:{free_port()}"}
    async with front(
        tmp_path, nix_count, registry.url, http=http, mirror=mirror, page={"enabled": False}
    ) as served:
        here = {**http, "addr": served.url.partition("//")[2]}
        found = await examine(registry={"url": registry.url}, http=here, mirror=mirror)
        elsewhere = await examine(http=here, data={"dir": str(tmp_path / "other")})

    told = [finding.message for finding in found if finding.check == "addresses"]
    assert told == [
        f"a nixfront answers at http.addr {here['addr']}",
        f"a nixfront answers at mirror.addr {mirror['addr']}",
    ]
    assert "set http.addr to another address, or serve cannot listen" in cure(elsewhere, "addresses")


async def test_a_mirrors_address_that_is_taken(examine: Callable[..., Any]) -> None:
    async with answering(200, "somebody else", {}) as url:
        found = await examine(mirror={"addr": url.removeprefix("http://")})

    assert "set mirror.addr to another address" in cure(found, "addresses")


async def test_an_address_of_another_host(examine: Callable[..., Any]) -> None:
    assert "another address of this host" in cure(await examine(http={"addr": "192.0.2.1:80"}), "addresses")


async def test_a_package_set_that_is_not_there(examine: Callable[..., Any]) -> None:
    found = await examine(sets={"team": {"kind": "path", "path": "/nowhere/packages"}})

    assert "sets.team.path" in cure(found, "package sets")


async def test_a_redis_that_is_away(examine: Callable[..., Any]) -> None:
    found = await examine(state={"url": f"redis://:secret@127.0.0.1:{free_port()}/0"})

    assert "start Redis" in cure(found, "state")
    assert not any("secret" in finding.message for finding in found)


async def test_a_channel_that_cannot_be_reached(examine: Callable[..., Any]) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    found = await examine(
        packages={"kind": "nixpkgs", "url": f"{away}/{{revision}}", "pointer": f"{away}/{{ref}}"}
    )

    (message,) = [finding.message for finding in found if finding.check == "package source"]
    assert message == f"packages: {away}/nixpkgs-unstable cannot be reached: connection refused"
    assert ("package source", "wrong") in wrong(found)
    assert "packages.pointer" in cure(found, "package source")


async def test_each_source_is_tried(examine: Callable[..., Any], tmp_path: Path) -> None:
    async with answering(200, "0" * 40, {}) as there, answering(404, "", {}) as not_there:
        found = await examine(
            packages={"kind": "nixpkgs", "url": f"{there}/{{revision}}", "pointer": f"{there}/{{ref}}"},
            sets={
                "archive": {"kind": "tarball", "url": f"{not_there}/{{ref}}.tar", "ref": "v1"},
                "pinned": {"kind": "tarball", "url": f"{not_there}/x.tar", "revision": "0" * 40},
                "git": {"kind": "git", "url": str(tmp_path / "none.git")},
                "here": {"kind": "path", "path": str(PACKAGES)},
            },
        )

    sources = {
        finding.message.partition(":")[0]: finding for finding in found if finding.check == "package source"
    }
    levels = {name: finding.level for name, finding in sources.items()}
    assert levels == {
        "packages": "fine",
        "sets.archive": "wrong",
        "sets.pinned": "doubtful",
        "sets.git": "wrong",
    }
    assert sources["sets.archive"].message.endswith("/v1.tar cannot be reached: it answers 404")
