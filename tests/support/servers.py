"""The two servers that everything is about: a stock registry, and nixfront in front of it, as installed."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.support.attached import check_all
from tests.support.processes import Running, free_port, program, search_path, serving, write

_Settings = Mapping[str, object]
_ROOT = Path(__file__).parents[2]
#: The command of this tree, for tests that kill it and need not have it installed.
FROM_CHECKOUT = ("env", f"PYTHONPATH={_ROOT}", sys.executable, "-P", "-m", "proxy")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers on `host`, which is what stands before the first slash of an image's name."""

    host: str
    process: Running
    scheme: str = "http"

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"{self.scheme}://{self.host}"


@contextlib.asynccontextmanager
async def stock_registry(
    folder: Path,
    *,
    quiet: bool = False,
    port: int = 0,
    sections: _Settings | None = None,
    tls: Mapping[str, object] | None = None,
) -> AsyncIterator[Server]:
    """A stock distribution registry that keeps its blobs in `folder`: the program that TESTS_REGISTRY
    names, or the one of the Debian package, or upstream's. Its log has each request unless it is `quiet`.
    `sections` are laid over its configuration; `tls` is what it says there of certificates. It listens on 127.0.0.1, at `port`
    if that is not 0.
    """
    host = f"127.0.0.1:{port or free_port()}"
    settings = {
        "version": 0.1,
        "log": {"level": "warn" if quiet else "info", "accesslog": {"disabled": quiet}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": True},
        },
        "http": {"addr": host, **({"tls": tls} if tls else {})},
        **(sections or {}),
    }
    # Every JSON text is YAML.
    config = await asyncio.to_thread(write, folder / "registry.yml", json.dumps(settings))
    named = os.environ.get("TESTS_REGISTRY")
    argv = (named or program("docker-registry", "registry"), "serve", str(config))
    ready = _listens(host) if tls else answers(host)
    async with serving(argv, log=folder / "registry.log", ready=ready) as process:
        yield Server(host, process, "https" if tls else "http")


@contextlib.asynccontextmanager
async def nixfront(
    folder: Path,
    *,
    settings: _Settings | None = None,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    command: Sequence[str] = ("nixfront",),
    without_documents: str = "",
) -> AsyncIterator[Server]:
    """The installed command `nixfront serve`, its data in `folder`, ready when `GET /v2/` answers 200.

    At the end all images that it made have valid documents, unless a test has a reason to go `without_documents`, or ended it.

    `settings` are nested as in the configuration file (`{"registry": {"url": ...}}`) and are handed over as
    environment variables; `env` is laid over the environment of the tests; `args` follow `serve`. `FROM_CHECKOUT` as
    `command` runs what stands in the tree.
    """
    host = f"127.0.0.1:{free_port()}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("NIXFRONT_")},
        "PATH": search_path(),
        "NIXFRONT_HTTP_ADDR": host,
        # All clients of a test have one address.
        "NIXFRONT_ACCESS_BUILDS_PER_MINUTE": "0",
        "NIXFRONT_BUILDS_SHARE": "4",
        # Most tests read the manifest of a tag. What an index adds has tests of its own.
        "NIXFRONT_IMAGE_INDEX": "false",
        "NIXFRONT_DATA_DIR": str(folder / "data"),
        "NIXFRONT_TRUST_ATTACH": json.dumps(not without_documents),
        **dict(_variables("NIXFRONT", settings or {})),
        **(env or {}),
    }
    argv = (*command, "serve", *args)
    log = folder / "nixfront.log"
    secure = "NIXFRONT_HTTP_CERTIFICATE" in environment
    ready = _listens(host) if secure else answers(host)
    async with serving(argv, log=log, ready=ready, env=environment, patience=240.0) as process:
        server = Server(host, process, "https" if secure else "http")
        yield server
        if environment["NIXFRONT_TRUST_ATTACH"] == "true" and await ready():
            await check_all(server.url)


def _variables(prefix: str, settings: _Settings) -> Iterator[tuple[str, str]]:
    """A nested mapping as environment variables: the path of a key in capitals, joined by underscores."""
    for key, value in settings.items():
        name = f"{prefix}_{key.upper()}"
        if isinstance(value, Mapping):
            yield from _variables(name, value)
        else:
            yield name, value if isinstance(value, str) else json.dumps(value)


def answers(host: str) -> Callable[[], Awaitable[bool]]:
    """Whether the registry interface at `host` answers (401: to those it knows), as a question that can be asked again."""

    async def ask() -> bool:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.get(f"http://{host}/v2/") as answer,
            ):
                return answer.status in (200, 401)
        except (aiohttp.ClientError, TimeoutError):
            return False

    return ask


@contextlib.asynccontextmanager
async def redis(folder: Path, port: int) -> AsyncIterator[Server]:
    """A Redis that keeps what it knows in `folder` when it is stopped; one that is killed has lost it."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    argv = (
        "redis-server",
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--save",
        "3600 1",
    )

    async def ready() -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.write(b"PING\r\n")
        try:
            return await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()

    async with serving(argv, log=folder / "redis.log", ready=ready) as process:
        yield Server(f"127.0.0.1:{port}", process)


def _listens(host: str) -> Callable[[], Awaitable[bool]]:
    """Whether anybody takes connections at `host`, as a question that can be asked again."""

    async def ask() -> bool:
        try:
            _, writer = await asyncio.open_connection(*host.split(":"))
        except OSError:
            return False
        writer.close()
        return True

    return ask
