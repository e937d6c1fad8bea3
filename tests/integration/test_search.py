"""`docker search` and `podman search` by the registry's old interface. The real clients are in `tests/e2e/test_errors.py`."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from proxy import cli
from proxy.core.events import BuildStarted
from tests.integration.test_package_sets import files_over_http
from tests.integration.test_power_loss import channel
from tests.support import handmade, many_names
from tests.support.front import Front
from tests.support.guarded import PASSWORDS, basic, htpasswd_registry
from tests.support.servers import Server
from tests.support.wait import until

Start = Callable[..., AbstractAsyncContextManager[Front]]


async def search(front: Front, query: str, **headers: str) -> list[dict[str, Any]]:
    status, _, body = await front.get(f"/v1/search?{query}", headers=headers)
    assert status == 200, body
    answer = json.loads(body)
    assert answer["num_results"] == len(answer["results"])
    results: list[dict[str, Any]] = answer["results"]
    return results


def names(results: list[dict[str, Any]]) -> list[str]:
    return [each["name"] for each in results]


PACKAGES = """
{ system }:
let package = name: meta: derivation { inherit name system; builder = "/bin/sh"; } // { inherit meta; };
in {
  hello = package "hello-1" { description = "Says hello"; };
  help = package "help-1" { };
  helper = package "helper-1" { description = throw "unsaid"; };
  removed = throw "removed is gone";
  buildPackages = { buildPackages = { }; targetPackages = { }; hello = package "hello-1" { }; };
  helloPackages = { inner = package "inner-1" { description = "Is inside"; }; none = 1; };
}
"""


async def test_packages_and_images_are_found_and_nix_lists_them_once(
    start: Start, registry: Server, tmp_path: Path
) -> None:
    own = tmp_path / "set"
    own.mkdir()
    (own / "default.nix").write_text(PACKAGES, encoding="utf-8")
    await handmade.push(registry.url, "team/hello-world", "v1", handmade.image([handmade.tar([])]))
    async with start(registry.url, packages={"path": str(own)}) as front:

        async def describes() -> bool:
            return any(each["description"] == "1: Says hello" for each in await search(front, "q=hello&n=25"))

        await until(describes)
        starts = front.nix_starts()
        podman = await search(front, "q=hel&n=25", **{"User-Agent": "libpod/5.4.2"})
        docker = await search(front, "q=hel", **{"User-Agent": "docker/26.1.5 go/go1.21"})
        inner = await search(front, "q=hellopackages.in")
        few = await search(front, "q=e&n=3")
        nothing = await search(front, "q=qqqq")

        assert front.nix_starts() == starts
        assert front.told(BuildStarted) == []
        host = front.url.removeprefix("http://")
    assert names(podman) == [
        "team/hello-world",
        "help",
        "hello",
        "helper",
        "hellopackages.none",
        "hellopackages.inner",
    ]
    assert [each["description"] for each in podman[1:4]] == ["1", "1: Says hello", "1"]
    assert inner[0]["description"] == "1: Is inside"
    assert names(docker)[:2] == [f"{host}/team/hello-world", f"{host}/help"], "docker prints it as it is"
    assert len(few) == 3
    assert nothing == []


async def test_what_may_not_be_built_is_not_found(start: Start, registry: Server) -> None:
    policy = {"deny_packages": ("hello",)}
    async with start(registry.url, policy=policy, access={"repositories": ("he*", "alpha")}) as front:
        hello, alpha, beta = [names(await search(front, f"q={text}")) for text in ("hello", "alpha", "beta")]

    assert (hello, alpha, beta) == ([], ["alpha"], [])


async def test_who_may_not_build_finds_images_alone(start: Start, registry: Server) -> None:
    await handmade.push(registry.url, "team/hello", "v1", handmade.image([handmade.tar([])]))
    forged = basic("alice", "x")
    async with start(registry.url, access={"users": ("alice",)}) as front:
        nobody = names(await search(front, "q=hello"))
        anybody = names(await search(front, "q=hello", **forged))

        assert front.nix_starts() == 0
    assert nobody == anybody == ["team/hello"]


async def test_the_registry_decides_who_may_search(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    ours = {"username": "nixfront", "password": PASSWORDS["nixfront"]}
    async with (
        htpasswd_registry(folder) as closed,
        start(closed.url, registry=ours, access={"users": ("alice",)}) as front,
    ):
        status, headers, _ = await front.get("/v1/search?q=hello")
        guessed, _, _ = await front.get("/v1/search?q=hello", headers=basic("alice", "guessed"))
        another = names(await search(front, "q=hello", **basic("nixfront")))
        assert front.nix_starts() == 0
        alice = names(await search(front, "q=hello", **basic("alice")))

    assert (status, guessed) == (401, 401)
    assert "Basic" in headers["WWW-Authenticate"]
    assert (another, alice) == ([], ["hello"])


async def test_a_web_site_searches_nothing(start: Start, registry: Server) -> None:
    async with start(registry.url) as front:
        status, _, _ = await front.get("/v1/search?q=hello", headers={"Origin": "http://evil.example"})

        assert front.nix_starts() == 0
    assert status == 403


async def test_a_set_that_cannot_be_read_leaves_the_images(start: Start, registry: Server) -> None:
    await handmade.push(registry.url, "team/hello", "v1", handmade.image([handmade.tar([])]))
    async with start(registry.url, packages={"kind": "path", "path": "/nonexistent/set"}) as front:
        assert names(await search(front, "q=hello")) == ["team/hello"]


async def test_a_channel_is_searched_by_its_own_list(
    start: Start, registry: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served, settings = tmp_path / "served", tmp_path / "nixfront.yml"
    channel(served, "1" * 40)
    (served / "unstable" / "packages.json.br").write_bytes(many_names.channel_list(many_names.names(3000)))
    async with files_over_http(served) as url:
        nixpkgs = {
            "kind": "nixpkgs",
            "url": f"{url}/{{revision}}.tar.gz",
            "pointer": f"{url}/{{ref}}/git-revision",
            "listing": f"{url}/{{ref}}/packages.json.br",
            "ref": "unstable",
            "path": "",
        }
        async with start(registry.url, packages=nixpkgs, builds={"failure_seconds": 0}) as front:
            found = await search(front, "q=rg&n=1")
            pages = [names(await search(front, f"q=tools&n=10&page={page}")) for page in (1, 2)]
            assert front.nix_starts("nix-instantiate") == 1, "one fetches the set, and none evaluates it"
            status, _, body = await front.get("/v2/rg/manifests/latest")
        data = {"data": {"dir": str(tmp_path / "cli")}, "packages": {**nixpkgs, "always": []}}
        settings.write_text(json.dumps(data))
        shown = await asyncio.to_thread(cli.main, ["search", "rg", "--most", "1", "--config", str(settings)])

    printed = capsys.readouterr()
    assert (found[0]["name"], found[0]["description"].split()[:2]) == ("ripgrep", ["14.1.1:", "Utility"])
    assert len({*pages[0], *pages[1]}) == 20
    assert status == 404
    assert "no package rg, did you mean ripgrep" in json.loads(body)["errors"][0]["message"]
    assert "of 3000 packages" in json.loads(body)["errors"][0]["message"]
    assert shown == 0
    assert printed.out.split()[:4] == ["ripgrep", "ripgrep", "14.1.1", "Utility"]
    assert "--page 2 shows more" in printed.err
