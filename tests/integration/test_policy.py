"""What an operator allows, shown on real packages, a real binary cache and real clients' requests."""

import asyncio
import json
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.support.front import PACKAGES, Front
from tests.support.processes import succeed
from tests.support.servers import Server

Start = Callable[..., AbstractAsyncContextManager[Front]]


async def refusal(front: Front, repository: str) -> str:
    """The message that a pull of it gets, which is a 404."""
    status, _, body = await front.get(f"/v2/{repository}/manifests/latest")
    assert status == 404, body
    return str(json.loads(body)["errors"][0]["message"])


async def test_only_what_is_listed_can_be_asked_for(start: Start, registry: Server) -> None:
    async with start(
        registry.url, policy={"only_packages": ("hello", "haskellPackages.ShellCheck")}
    ) as front:
        image = await front.pull("haskellpackages.shellcheck/hello")

        assert "etc/ssl/certs/ca-bundle.crt" in image.files, "what is in every image is the operator's wish"
        assert "alpha-1.0 is not among policy.only_packages" in await refusal(front, "hello/alpha")


async def test_only_listed_licences_can_be_asked_for(start: Start, registry: Server) -> None:
    async with start(registry.url, policy={"only_licenses": ("MIT",)}) as front:
        await front.pull("hello")

        assert "GPL-3.0-or-later, MIT, and policy.only_licenses" in await refusal(front, "copyleft")
        assert "alpha-1.0 has the licence none" in await refusal(front, "alpha")


async def test_too_many_packages_are_counted(start: Start, registry: Server) -> None:
    async with start(registry.url, policy={"most_packages": 2}) as front:
        await front.pull("hello/alpha")

        assert "names 3 packages; policy.most_packages of this host allows 2" in await refusal(
            front, "hello/alpha/twice"
        )
        assert front.nix_starts("nix-instantiate") == 2, (
            "the set and one image: a refused name asks Nix nothing"
        )


async def test_what_every_image_has_is_judged_by_itself_when_a_person_asks_for_it(
    start: Start, registry: Server
) -> None:
    always = {"always": ("alpha", "nosuch", "unfree")}
    async with start(registry.url, policy={"only_packages": ("hello",)}, packages=always) as front:
        image = await front.pull("hello")

        assert any(path.endswith("-alpha-1.0/bin/alpha") for path in image.files)
        assert "alpha-1.0 is not among policy.only_packages" in await refusal(front, "hello/alpha")
        assert "no package nosuch" in await refusal(front, "nosuch/hello")
        assert "unfree" in await refusal(front, "unfree/hello")


async def test_a_set_of_the_operators_own_may_build_to_be_evaluated(start: Start, registry: Server) -> None:
    own = {"kind": "path", "path": str(PACKAGES), "import_from_derivation": True}
    async with start(registry.url, sets={"own": own}) as front:
        image = await front.pull("own/importing")

        assert "bin/hello" in image.files
        assert "import_from_derivation in the settings" in await refusal(front, "importing")


async def test_a_layer_may_be_too_large_alone(start: Start, registry: Server) -> None:
    async with start(registry.url, policy={"most_layer_bytes": 4_000_000}) as front:
        image = await front.pull("hello")
        message = await refusal(front, "large")

    assert image.digest
    assert re.match(
        r"large has a layer of 5 MB \(1 store paths?, the largest is /nix/store/\S+-large-1.0\)", message
    )
    assert "policy.most_layer_bytes of this host allows 4 MB" in message


@pytest.mark.parametrize("fetch", ["auto", "store"])
async def test_what_is_too_large_is_not_even_fetched(
    start: Start, registry: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetch: str
) -> None:
    cache = tmp_path / "cache"
    async with start(registry.url) as front:
        image = await front.pull("large")
        store = tmp_path / "store"
        paths = [path for path in image.files if path.endswith("-large-1.0")]
        nix = ("nix", "--extra-experimental-features", "nix-command", "--store", str(store))
        (large,) = (f"/{path}" for path in paths)
        await succeed((*nix, "copy", "--to", f"file://{cache}", large))
    await succeed(("chmod", "-R", "u+w", str(store)))
    await asyncio.to_thread(shutil.rmtree, store)
    monkeypatch.setenv(
        "NIX_CONFIG", f"substituters = file://{cache}\nrequire-sigs = false\nsandbox = false\n"
    )
    # Another name, as the first one is in the registry by now.
    aliases = {"huge": "large"}
    sections = {
        "policy": {"most_bytes": 1_000_000},
        "packages": {"always": ()},
        "names": {"aliases": aliases},
    }
    async with start(registry.url, **sections, nix={"fetch": fetch}) as front:
        message = await refusal(front, "huge")

    assert "large and what it needs are 5 MB in 1 store paths" in message
    assert "policy.most_bytes of this host allows 1 MB" in message
    assert not (store / large.lstrip("/")).exists()
