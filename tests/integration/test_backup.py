"""The commands of deploy/backup.md and deploy/upgrade.md, run as they stand there."""

import os
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from proxy.core.events import BuildStarted
from proxy.core.model import DOCKER_MANIFEST, digest_of
from tests.support import handmade
from tests.support.front import Front
from tests.support.processes import Outcome, run, write
from tests.support.servers import stock_registry
from tests.support.stored import digest_of_tag, stored_tags

Start = Callable[..., AbstractAsyncContextManager[Front]]
DEPLOY = Path(__file__).parents[2] / "deploy"
MADE = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
#: Every moving tag is looked at with each pull, and each pull reaches the registry.
EAGER = {"packages": {"time_to_live": 0, "refresh": "wait"}, "answers": {"seconds": 0}}


class Host:
    """The folders of one host, under the names of the pages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places = {
            "DATA": folder / "data",
            "IMAGES": folder / "registry" / "data",
            "SETTINGS": folder / "settings",
            "BACKUP": folder / "backup",
        }

    async def follow(self, page: str, title: str) -> None:
        """Run the block of the page that begins with this comment."""
        blocks = re.findall(r"```sh\n(.*?)```", (DEPLOY / page).read_text(), re.DOTALL)
        (script,) = (block for block in blocks if block.startswith(f"# {title}\n"))
        outcome = await self._shell(script)
        assert outcome.returncode == 0, outcome.output

    async def lose(self, *folders: str) -> None:
        """Delete folders for good, stores too, whose folders cannot be written to."""
        for folder in folders:
            assert (self.folder / folder).is_dir()
            outcome = await self._shell(
                f"chmod -R u+w '{self.folder / folder}'; rm -r '{self.folder / folder}'"
            )
            assert outcome.returncode == 0, outcome.output

    async def collect(self) -> str:
        """What Nix says when it collects garbage."""
        outcome = await self._shell("nix-collect-garbage")
        assert outcome.returncode == 0, outcome.output
        return outcome.output

    async def _shell(self, script: str) -> Outcome:
        places = {name: str(place) for name, place in self.places.items()}
        environment = {**os.environ, **places, "NIX_REMOTE": str(self.folder / "store")}
        return await run(("sh", "-euc", script), env=environment)


async def test_a_restored_host_has_its_images_and_its_own_tags(start: Start, tmp_path: Path) -> None:
    host = Host(tmp_path)
    write(tmp_path / "settings" / "nixfront.yml", "log: {format: json}\n")
    async with stock_registry(tmp_path / "registry") as registry, start(registry.url) as front:
        images = {name: await front.pull(name) for name in ("hello", "shell/alpha")}
        await handmade.push(registry.url, "person", "latest", MADE)
        tags = await stored_tags(registry.url)
        await host.follow("backup.md", "back up")  # while both run
        late = await front.pull("beta")
    await host.lose("data", "registry", "store", "settings")
    (tmp_path / "registry").mkdir()

    await host.follow("backup.md", "restore")

    assert (tmp_path / "settings" / "nixfront.yml").read_text() == "log: {format: json}\n"
    async with stock_registry(tmp_path / "registry") as registry:
        assert await stored_tags(registry.url) == tags, "all that was there at the back-up"
        async with start(registry.url) as front:
            for name, image in images.items():
                assert await front.pull(name) == image
            assert front.told(BuildStarted) == [], "nothing was built again"
            assert await front.pull("beta") == late, (
                "an image since the back-up is made again, to the same digest"
            )
        async with start(registry.url, **EAGER) as front:
            for name in images:
                before = front.nix_starts()
                await front.get(f"/v2/{name}/manifests/latest", headers={"Accept": DOCKER_MANIFEST})
                assert front.nix_starts() > before, "the tag is nixfront's own, so it looks at what it means"
            before = front.nix_starts()
            await front.get("/v2/person/manifests/latest", headers={"Accept": DOCKER_MANIFEST})
            assert front.nix_starts() == before, "a person's tag is not"
        assert await digest_of_tag(registry.url, "person", "latest") == digest_of(MADE.manifest)


async def test_without_the_state_its_tags_are_a_strangers(start: Start, tmp_path: Path) -> None:
    """Why the state belongs to a back-up."""
    host = Host(tmp_path)
    async with stock_registry(tmp_path / "registry") as registry:
        async with start(registry.url) as front:
            await front.pull("hello")
        await host.lose("data")
        async with start(registry.url, **EAGER) as front:
            before = front.nix_starts()
            await front.get("/v2/hello/manifests/latest", headers={"Accept": DOCKER_MANIFEST})
            assert front.nix_starts() == before


async def test_nothing_keeps_what_an_uninstalled_nixfront_built(start: Start, tmp_path: Path) -> None:
    host = Host(tmp_path)
    async with stock_registry(tmp_path / "registry") as registry:
        async with start(registry.url) as front:
            image = await front.pull("hello")
        sources = [path for path in (tmp_path / "data/sets").iterdir() if path.is_symlink()]
        kept = {Path(f"{tmp_path}/store{path.readlink()}") for path in sources}
        store = tmp_path / "store/nix/store"
        built = {path for path in store.iterdir() if path.name.endswith("-hello-1.0")}
        assert len(built) == 1
        assert kept, "the package set has a root"
        assert all(path.exists() for path in kept)
        collected = await host.collect()
        assert all(path.exists() for path in kept), f"nixfront's roots held its package set: {collected}"

        await host.follow("upgrade.md", "uninstall")

        assert [path for path in built | kept if path.exists()] == []
        assert not (tmp_path / "data").exists()
        assert await digest_of_tag(registry.url, "hello", "latest") == image.digest, "the images stay"
