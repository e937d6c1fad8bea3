"""Real clients before a registry that wants tokens, and what they say where the operator narrows who may build."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import trustme

from tests.support.clients import Ctr, Docker, containerd
from tests.support.front import PACKAGES
from tests.support.guarded import PASSWORDS, Right, TokenService, token_registry
from tests.support.processes import Outcome, run, succeed
from tests.support.servers import Server, nixfront, stock_registry

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

_ENV = {"NIX_CONFIG": "substituters =\nextra-sandbox-paths = /bin /usr /lib /lib64\n"}
_WORDS = {"alice": "one", "bob": "two", "carol": "three", "dave": "four", "nixfront": PASSWORDS["nixfront"]}
_RIGHTS = [
    Right("alice", "*"),
    Right("bob", "nothing"),
    Right("carol", "*"),
    Right("dave", "*"),
    Right("nixfront", "*", ("pull", "push")),
]


@dataclass(frozen=True, slots=True)
class Guarded:
    """nixfront before a registry that wants tokens, and the service that gives them."""

    proxy: Server
    tokens: TokenService

    def name(self, image: str) -> str:
        return f"{self.proxy.host}/{image}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "password").write_text(PASSWORDS["nixfront"] + "\n", encoding="ascii")
    tokens = TokenService(_WORDS, _RIGHTS)
    settings = {
        "packages": {"kind": "path", "path": str(PACKAGES)},
        "nix": {"store": str(folder / "store")},
        "access": {"users": ["alice", "bob", "dave"], "builds_per_minute": 3},
    }
    async with token_registry(folder / "registry", tokens) as registry:
        own = {"url": registry.url, "username": "nixfront", "password_file": str(folder / "password")}
        async with nixfront(
            folder,
            settings={**settings, "registry": own},
            env=_ENV,
            without_documents="it lists tags, and the list of repositories is for nobody here",
        ) as proxy:
            yield Guarded(proxy, tokens)
        assert PASSWORDS["nixfront"] not in proxy.process.log_text()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ctr(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ctr]:
    async with containerd(tmp_path_factory.mktemp("containerd")) as engine:
        yield engine


async def pull(docker: Docker, guarded: Guarded, user: str, image: str, config: Path) -> Outcome:
    """What docker says to a pull, after `docker login` as this user if there is one."""
    own = ("--config", str(config / user))
    if user:
        await docker.succeed(*own, "login", "-u", user, "-p", _WORDS[user], guarded.proxy.host)
    return await docker(*own, "pull", guarded.name(image))


async def skopeo(guarded: Guarded, user: str, command: str, image: str) -> Outcome:
    who = ("--creds", f"{user}:{_WORDS[user]}") if user else ("--no-creds",)
    return await run(("skopeo", command, "--tls-verify=false", *who, f"docker://{guarded.name(image)}"))


async def test_docker_logs_in_and_pulls_what_nobody_built(
    docker: Docker, guarded: Guarded, tmp_path: Path
) -> None:
    anonymous = await pull(docker, guarded, "", "hello", tmp_path)
    stranger = await pull(docker, guarded, "bob", "hello", tmp_path)
    pulled = await pull(docker, guarded, "alice", "hello", tmp_path)

    assert anonymous.returncode != 0
    assert stranger.returncode != 0
    assert "denied" in stranger.output or "unauthorized" in stranger.output
    assert pulled.returncode == 0, pulled.output
    asked = [scopes for account, scopes in guarded.tokens.asked if account == "nixfront"]
    assert ("repository:hello:pull,push",) in asked


async def test_skopeo_lists_and_inspects(guarded: Guarded) -> None:
    """`list-tags` before there is any, which builds nothing; `inspect`, which needs manifest, config and tags."""
    none = await skopeo(guarded, "alice", "list-tags", "alpha")
    refused = await skopeo(guarded, "", "list-tags", "alpha")
    built = await skopeo(guarded, "alice", "inspect", "alpha")
    listed = await skopeo(guarded, "alice", "list-tags", "alpha")

    assert none.returncode == 0, none.output
    assert json.loads(none.stdout) == {"Repository": guarded.name("alpha"), "Tags": []}
    assert refused.returncode != 0
    assert built.returncode == 0, built.output
    assert json.loads(built.stdout)["RepoTags"] == json.loads(listed.stdout)["Tags"]
    assert "latest" in json.loads(listed.stdout)["Tags"]


async def test_ctr_pulls_with_a_user(guarded: Guarded, ctr: Ctr) -> None:
    name = f"{guarded.name('hello')}:latest"

    anonymous = await ctr("images", "pull", "--plain-http", name)
    pulled = await ctr("images", "pull", "--plain-http", "--user", f"alice:{_WORDS['alice']}", name)

    assert anonymous.returncode != 0
    assert pulled.returncode == 0, pulled.output


async def test_a_user_who_may_not_build_reads_why(
    docker: Docker, guarded: Guarded, ctr: Ctr, tmp_path: Path
) -> None:
    why = "this host makes no images for user 'carol' (access.users)"
    name = f"{guarded.name('beta')}:latest"

    in_docker = await pull(docker, guarded, "carol", "beta", tmp_path)
    in_skopeo = await skopeo(guarded, "carol", "inspect", "beta")
    in_ctr = await ctr("images", "pull", "--plain-http", "--user", f"carol:{_WORDS['carol']}", name)

    assert [outcome.returncode != 0 for outcome in (in_docker, in_skopeo, in_ctr)] == [True] * 3
    assert why in in_docker.output
    assert why in in_skopeo.output
    assert why in in_ctr.output


async def test_a_user_who_begins_too_much_reads_when_to_come_again(
    docker: Docker, guarded: Guarded, ctr: Ctr, tmp_path: Path
) -> None:
    for tag in ("v1", "v2", "v3"):  # they mean nothing, but were to be built
        refused = await skopeo(guarded, "dave", "inspect", f"hello:{tag}")
        assert "names no revision" in refused.output

    in_docker = await pull(docker, guarded, "dave", "hello:v4", tmp_path)
    user = f"dave:{_WORDS['dave']}"
    in_ctr = await ctr("images", "pull", "--plain-http", "--user", user, f"{guarded.name('hello')}:v4")
    exists = await pull(docker, guarded, "dave", "hello", tmp_path)

    for outcome in (in_docker, in_ctr):
        assert outcome.returncode != 0
        assert "user 'dave' began 3 builds within a minute" in outcome.output
        assert "try again in" in outcome.output
    assert exists.returncode == 0, exists.output


async def test_clients_pull_by_tls(docker: Docker, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "certificate.pem"))
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    authority.cert_pem.write_to_path(str(trusted / "ca.crt"))
    settings = {
        "http": {"certificate": str(tmp_path / "certificate.pem"), "key": str(tmp_path / "key.pem")},
        "packages": {"kind": "path", "path": str(PACKAGES)},
        "nix": {"store": str(tmp_path / "store")},
    }
    async with (
        stock_registry(tmp_path / "registry") as registry,
        nixfront(tmp_path, settings={**settings, "registry": {"url": registry.url}}, env=_ENV) as proxy,
    ):
        source, copy = f"docker://{proxy.host}/hello", f"dir:{tmp_path / 'copy'}"
        plain = ("skopeo", "--insecure-policy", "copy")
        untrusted = await run((*plain, source, f"dir:{tmp_path / 'untrusted'}"))
        await succeed((*plain, "--src-cert-dir", str(trusted), source, copy))
        await succeed((*plain, "--dest-cert-dir", str(trusted), copy, f"docker://{proxy.host}/team/copy:1"))
        await docker.succeed("pull", f"{proxy.host}/team/copy:1")

    assert untrusted.returncode != 0
