"""nixfront in the place of another registry: at an address for mirror clients, and by `?ns=` at the other one."""

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import yaml

from proxy.core.events import BuildStarted
from tests.support.front import Front
from tests.support.guarded import PASSWORDS, Right, TokenService, basic, htpasswd_registry, token_registry
from tests.support.processes import free_port
from tests.support.servers import Server
from tests.support.validate import validate
from tests.support.wait import until

Start = Callable[..., AbstractAsyncContextManager[Front]]

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
DOCKER = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}


@dataclass(frozen=True, slots=True)
class Both:
    """The two addresses of one nixfront, and what the registry behind it was asked."""

    front: Front
    mirror: Front
    registry: Server

    def asked(self, text: str) -> int:
        """How many lines of the registry's log hold this."""
        return sum(text in line for line in self.registry.process.log_text().splitlines())


@asynccontextmanager
async def mirrored(start: Start, registry: Server, /, **sections: object) -> AsyncIterator[Both]:
    addr = f"127.0.0.1:{free_port()}"
    mirror = {"addr": addr, "allow": ("hello", "slow"), "prefix": "nix/"}
    async with start(registry.url, mirror=mirror, **sections) as front:
        yield Both(front, Front(f"http://{addr}", front.events, front.count), registry)


async def test_direct_and_mirror_clients_share_what_was_built(start: Start, registry: Server) -> None:
    async with mirrored(start, registry) as both:
        through = await validate(both.mirror.url, "library/hello", "latest", has_documents=True)
        starts = both.front.nix_starts()
        prefixed = await validate(both.mirror.url, "nix/hello", "latest", has_documents=True)
        direct = await both.front.pull("hello")
        tags = await both.mirror.get("/v2/library/hello/tags/list")
        catalog = await both.front.get("/v2/_catalog")

        assert both.front.nix_starts() == starts
    assert through == prefixed == direct
    assert "latest" in json.loads(tags[2])["tags"]
    assert json.loads(catalog[2]) == {"repositories": ["hello"]}


async def test_what_is_not_named_is_404_at_once(start: Start, registry: Server) -> None:
    async with mirrored(start, registry) as both:
        await both.front.pull(
            "alpha"
        )  # which the registry then has, and no mirror's client may take for docker.io's
        starts, asked = both.front.nix_starts(), both.asked("alpha")
        paths = [
            "library/alpha/manifests/latest",
            "alpha/manifests/latest",
            "alpha/tags/list",
            "nginx/manifests/1",
        ]
        answers = [
            await both.mirror.get(f"/v2/{path}", method, headers=DOCKER)
            for path in paths
            for method in ("HEAD", "GET")
        ]
        ping = await both.mirror.get("/v2/")

        assert both.front.nix_starts() == starts
        assert len(both.front.told(BuildStarted)) == 1
    assert {status for status, _, _ in answers} == {404}
    assert json.loads(answers[1][2])["errors"][0] == {
        "code": "NAME_UNKNOWN",
        "message": "alpha is not among what this mirror serves (mirror.allow, mirror.prefix)",
    }
    assert (both.asked("alpha"), both.asked("nginx")) == (asked, 0)
    assert ping[0] == 200


async def test_an_engine_goes_on_after_a_mistake_and_a_direct_client_reads_it(
    start: Start, registry: Server
) -> None:
    accept = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json, */*"
    containerd = {"User-Agent": "containerd/2.1.0", "Accept": accept}
    async with mirrored(start, registry) as both:
        mistakes = [
            await both.mirror.get("/v2/nix/helo/manifests/latest", headers=containerd),
            await both.front.get("/v2/nix/helo/manifests/latest?ns=docker.io", headers=containerd),
            await both.front.get("/v2/helo/manifests/latest", headers=containerd),
            await both.front.get("/v2/helo/manifests/latest", headers=DOCKER),
        ]

    assert [status for status, _, _ in mistakes] == [404, 404, 403, 404]
    assert all(b"no package helo, did you mean hello?" in body for _, _, body in mistakes)


async def test_a_namespace_is_compared_and_goes_no_further(start: Start, registry: Server) -> None:
    async with mirrored(start, registry) as both:
        found = await both.front.get("/v2/library/hello/manifests/latest?ns=docker.io", headers=DOCKER)
        digest = found[1]["Docker-Content-Digest"]
        again = await both.front.get(f"/v2/library/hello/manifests/{digest}?ns=docker.io", headers=DOCKER)
        config = json.loads(found[2])["config"]["digest"]
        blob = await both.front.get(f"/v2/library/hello/blobs/{config}?ns=docker.io")
        starts = both.front.nix_starts()
        refused = [
            await both.front.get(f"/v2/{name}/manifests/latest?ns={namespace}", headers=DOCKER)
            for name, namespace in [
                ("library/hello", "quay.io"),
                ("library/hello", both.registry.host),
                ("library/alpha", "docker.io"),
            ]
        ]

        assert both.front.nix_starts() == starts
    assert (found[0], again[0], blob[0]) == (200, 200, 200)
    assert found[2] == again[2]
    assert [status for status, _, _ in refused] == [404] * 3
    assert (both.asked("ns="), both.asked("library")) == (0, 0)


@pytest.mark.parametrize("at", ["front", "mirror"])
async def test_a_mirrors_client_waits_as_any_other(start: Start, registry: Server, at: str) -> None:
    scaled = {"patience": 0.3, "hop_seconds": 0.3}
    path = "/v2/library/slow/manifests/latest?ns=docker.io"
    async with mirrored(start, registry, builds=scaled) as both, aiohttp.ClientSession() as session:
        here: Front = getattr(both, at)
        head = await here.get(path, "HEAD", headers=DOCKER)
        async with session.get(here.url + path, headers=DOCKER) as answer:
            status, history = answer.status, answer.history

        assert len(both.front.told(BuildStarted)) == 1
    assert head[0] == 405
    assert status == 200
    assert {hop.url.path for hop in history} == {"/v2/library/slow/manifests/latest"}
    assert history[0].headers["Location"] == "?ns=docker.io&wait=1"
    assert (both.asked("ns="), both.asked("wait=")) == (0, 0)


async def test_a_mirror_takes_nothing(start: Start, registry: Server) -> None:
    async with mirrored(start, registry) as both:
        status, _, body = await both.mirror.get("/v2/library/hello/blobs/uploads/", "POST")
        other, _, _ = await both.front.get("/v2/hello/manifests/x?ns=docker.io", "PUT", data=b"{}")

    assert (status, other) == (404, 404)
    assert "a mirror takes nothing" in json.loads(body)["errors"][0]["message"]
    assert both.asked("/uploads/") == 0


@pytest.mark.parametrize("name", ["hello", "library/hello", "nix/alpha"])
async def test_a_password_registry_never_ends_a_name_of_ours_in_a_silent_401(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """After a 401 an engine takes the image of the same name from docker.io, and says nothing."""
    (tmp_path / "registry").mkdir()
    own = {"username": "nixfront", "password": PASSWORDS["nixfront"]}
    async with (
        htpasswd_registry(tmp_path / "registry") as closed,
        mirrored(start, closed, registry=own) as both,
    ):
        await until(lambda: "the registry wants a login" in caplog.text)
        path = f"/v2/{name}/manifests/latest"
        refused = [
            await both.mirror.get(path, "GET", headers=DOCKER),
            await both.mirror.get(path, "HEAD", headers=DOCKER),
            await both.front.get(f"{path}?ns=docker.io", headers=DOCKER),
            await both.mirror.get(path, headers={**DOCKER, **basic("alice", "guessed")}),
        ]
        allowed = await both.mirror.get(path, headers={**DOCKER, **basic("alice")})
        direct = await both.front.get("/v2/hello/manifests/latest", headers=DOCKER)

    assert [status for status, _, _ in refused] == [503] * 4
    assert "who have no login there" in json.loads(refused[0][2])["errors"][0]["message"]
    assert "gets the image of another registry" in caplog.text
    assert allowed[0] == 200
    assert direct[0] == 401, "a direct client is asked for its password"


async def test_a_challenge_for_a_token_goes_to_a_mirrors_client(start: Start, tmp_path: Path) -> None:
    """An engine fetches a token without a login, and pulls what everybody may."""
    (tmp_path / "registry").mkdir()
    rights = [Right("", "hello"), Right("nixfront", "*", ("pull", "push", "*"))]
    tokens = TokenService({"nixfront": PASSWORDS["nixfront"]}, rights)
    own = {"username": "nixfront", "password": PASSWORDS["nixfront"]}
    async with (
        token_registry(tmp_path / "registry", tokens) as guarded,
        mirrored(start, guarded, registry=own) as both,
    ):
        path = "/v2/library/hello/manifests/latest"
        challenged = await both.mirror.get(path, headers=DOCKER)
        token = {"Authorization": f"Bearer {tokens.token('', ('repository:hello:pull',))}"}
        pulled = await both.mirror.get(path, headers={**DOCKER, **token})
        slow = "/v2/library/slow/manifests/latest"
        refused = await both.mirror.get(slow, headers={**DOCKER, **token})

    assert (challenged[0], pulled[0], refused[0]) == (401, 200, 503)


async def test_an_alias_of_the_samples_is_a_direct_client(start: Start, tmp_path: Path) -> None:
    """The name of node/hosts.toml, at another address: containerd names it in every query. The mirror serves nothing."""
    hosts = tomllib.loads(await asyncio.to_thread((KUBERNETES / "node/hosts.toml").read_text))
    sample = yaml.safe_load(await asyncio.to_thread((KUBERNETES / "nixfront.yml").read_text))
    alias = f"ns={urlsplit(hosts['server']).netloc}"
    (tmp_path / "registry").mkdir()
    own = {"username": "nixfront", "password": PASSWORDS["nixfront"]}
    http, scaled = {"names": tuple(sample["http"]["names"])}, {"patience": 0.3, "hop_seconds": 0.3}
    async with (
        htpasswd_registry(tmp_path / "registry") as closed,
        start(closed.url, registry=own, http=http, builds=scaled) as front,
        aiohttp.ClientSession(headers={**DOCKER, **basic("alice")}) as session,
    ):
        path = f"/v2/slow/manifests/latest?{alias}"
        ping = await front.get(f"/v2/?{alias}")
        challenged = await front.get(path, "HEAD", headers=DOCKER)
        stranger = await front.get(path.replace("images.", "other."), headers=basic("alice"))
        async with session.get(front.url + path) as answer:
            pulled, history = answer.status, answer.history
        upload = f"/v2/pushed/blobs/uploads/?{alias}"
        refused = await front.get(upload, "POST")
        begun = await front.get(upload, "POST", headers=basic("alice"))

        assert "ns=" not in closed.process.log_text()
    assert (ping[0], challenged[0], refused[0]) == (401, 401, 401)
    assert {answer[1]["WWW-Authenticate"] for answer in (ping, challenged, refused)} == {
        'Basic realm="the registry"'
    }
    assert pulled == 200
    assert history[0].headers["Location"] == f"?{alias}&wait=1"
    assert (begun[0], stranger[0]) == (202, 404)
