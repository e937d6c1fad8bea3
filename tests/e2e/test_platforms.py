"""Engines that are told a platform: each picks its image of an index, and says in its own words that there is none."""

import json
from pathlib import Path

import pytest

from tests.support.clients import Docker, containerd, podman
from tests.support.front import PACKAGES
from tests.support.servers import nixfront, stock_registry

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

_SETTINGS = {
    "packages": {"kind": "path", "path": str(PACKAGES / "platforms")},
    "image": {"index": True, "platforms": ["linux/amd64", "linux/arm64"]},
}
# The builders of these packages are the shell of this host.
_NIX = {"NIX_CONFIG": "substituters =\nsandbox = true\nextra-sandbox-paths = /bin /usr /lib /lib64\n"}


async def test_engines_pick_their_platform_or_say_that_it_is_missing(docker: Docker, tmp_path: Path) -> None:
    settings = {**_SETTINGS, "nix": {"store": str(tmp_path / "store")}}
    async with (
        stock_registry(tmp_path / "registry") as registry,
        nixfront(tmp_path, settings={**settings, "registry": {"url": registry.url}}, env=_NIX) as proxy,
        podman(tmp_path / "podman") as other,
        containerd(tmp_path / "containerd") as ctr,
    ):
        name = f"{proxy.host}/hello"
        for architecture in ("amd64", "arm64"):
            await docker.succeed("pull", f"--platform=linux/{architecture}", name)
            said = json.loads(await docker.succeed("image", "inspect", name))[0]
            assert said["Architecture"] == architecture
            await other.succeed("pull", "-q", "--tls-verify=false", f"--arch={architecture}", name)
            said = json.loads(await other.succeed("image", "inspect", name))[0]
            assert said["Architecture"] == architecture
            fetched = await ctr(
                "images", "pull", "--plain-http", f"--platform=linux/{architecture}", f"{name}:latest"
            )
            assert fetched.returncode == 0, fetched.output
        platforms = await ctr.succeed("images", "ls", f"name=={name}:latest")
        assert "linux/amd64,linux/arm64" in platforms

        refusals = [
            await docker("pull", "--platform=linux/s390x", name),
            await other("pull", "-q", "--tls-verify=false", "--arch=s390x", name),
            await ctr("images", "pull", "--plain-http", "--platform=linux/s390x", f"{name}:latest"),
        ]
        missing = await docker("pull", "--platform=linux/arm64", f"{proxy.host}/onlyamd")

    assert [outcome.returncode != 0 for outcome in (*refusals, missing)] == [True] * 4
    assert "no matching manifest for linux/s390x in the manifest list entries" in refusals[0].output
    assert "no image found in manifest list for architecture s390x" in refusals[1].output
    assert "no match for platform in manifest" in refusals[2].output
    assert "no matching manifest for linux/arm64" in missing.output
