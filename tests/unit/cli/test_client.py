"""`nixfront run` and `nixfront try`: the line for each engine, and a trial of servers that are right and wrong."""

import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from proxy import cli
from proxy.cli.client import engine_line, trial
from proxy.core.model import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, canonical_json, digest_of

LAYER, CONFIG = b"a layer of more than sixteen bytes", b"{}"


@pytest.mark.parametrize(
    ("engine", "line"),
    [
        ("docker", ["docker", "run", "--rm", "-i", "h:1/git:latest", "git"]),
        ("podman", ["podman", "run", "--rm", "-i", "--tls-verify=false", "h:1/git:latest", "git"]),
        ("nerdctl", ["nerdctl", "--insecure-registry", "run", "--rm", "-i", "h:1/git:latest", "git"]),
    ],
)
def test_each_engine_has_its_line(engine: str, line: list[str]) -> None:
    assert engine_line(engine, "h:1/git:latest", ["git"], is_terminal=False, is_plain=True) == line


def test_a_terminal_is_passed_on_and_tls_is_checked() -> None:
    line = engine_line("podman", "h:1/git:latest", [], is_terminal=True, is_plain=False)

    assert line == ["podman", "run", "--rm", "-i", "-t", "h:1/git:latest"]


def test_run_becomes_the_engine(tmp_path: Path) -> None:
    """The engine is a program that prints its arguments: what it does with them is its own."""
    program = tmp_path / "podman"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
    program.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        ended = subprocess.run(
            [sys.executable, "-m", "proxy", "run", f"{address}/shell/git", "--", "git", "--version"],
            cwd=Path(cli.__file__).parents[2],
            env={"PATH": str(tmp_path), "NIXFRONT_HTTP_ADDR": address},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    image = f"{address}/shell/git:latest"
    assert ended.stdout.splitlines() == ["run", "--rm", "-i", "--tls-verify=false", image, "git", "--version"]
    assert ended.returncode == 7


def test_run_takes_the_engine_whose_daemon_answers(tmp_path: Path) -> None:
    for name, script in (("docker", "exit 1"), ("podman", 'echo "$1"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = subprocess.run(
            [sys.executable, "-m", "proxy", "run", "git"],
            cwd=Path(cli.__file__).parents[2],
            env={"PATH": str(tmp_path), "NIXFRONT_HTTP_ADDR": f"127.0.0.1:{server.getsockname()[1]}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert (ended.stdout, ended.returncode) == ("run\n", 0), ended.stderr


def test_run_without_a_nixfront_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("NIXFRONT_HTTP_ADDR", address)

    assert cli.main(["run", "--engine", "docker", "git"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(
        f"nixfront: no nixfront answers at {address}: start it with nixfront serve, or "
    )


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("localhost", "http://localhost"),
        ("pull.example.net", "https://pull.example.net"),
        ("http://a.example:81/", "http://a.example:81"),
    ],
)
def test_a_host_is_https_but_on_loopback(host: str, url: str) -> None:
    assert trial.url_of(host) == url


@asynccontextmanager
async def serving(
    *, ping: int = 200, layer: bytes = LAYER, ranges: bool = True, explains: bool = True
) -> AsyncIterator[str]:
    """A registry of one image, with a fault."""
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest_of(CONFIG), "size": len(CONFIG)},
            "layers": [{"mediaType": OCI_LAYER, "digest": digest_of(LAYER), "size": len(LAYER)}],
        }
    )

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.Response(status=ping)
        if request.path == "/v2/hello/manifests/latest":
            return web.Response(body=manifest, content_type=OCI_MANIFEST)
        if request.path.endswith(digest_of(CONFIG)):
            return web.Response(body=CONFIG)
        if request.path.endswith(digest_of(LAYER)):
            part = request.http_range
            if part.stop is None or not ranges:
                return web.Response(body=layer)
            return web.Response(status=206, body=layer[part])
        errors = [{"code": "MANIFEST_UNKNOWN", "message": f"no package {request.path.split('/')[2]}"}]
        return web.json_response({"errors": errors}, status=404) if explains else web.Response(status=404)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_trial_of_a_sound_server_is_fine() -> None:
    async with serving() as url:
        findings = await trial.examine(url, "hello", "latest")

    assert [(finding.check, finding.level) for finding in findings] == [
        ("ping", "fine"),
        ("pull", "fine"),
        ("range", "fine"),
        ("mistake", "fine"),
    ]


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        ({"ping": 401}, "ping", "wants a login"),
        ({"ping": 503}, "ping", "answers 503"),
        ({"layer": b"other bytes, also more than sixteen"}, "pull", "other bytes"),
        ({"ranges": False}, "range", "gets 200"),
        ({"explains": False}, "mistake", "no explanation"),
    ],
)
async def test_a_trial_finds_the_fault(fault: dict[str, object], check: str, words: str) -> None:
    async with serving(**fault) as url:  # type: ignore[arg-type]
        findings = await trial.examine(url, "hello", "latest")

    assert (findings[-1].check, findings[-1].level) == (check, "wrong")
    assert words in findings[-1].message
    assert findings[-1].cure


async def test_a_trial_of_nothing_names_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

    (finding,) = await trial.examine(url, "hello", "latest")

    assert finding.message == f"{url}: connection refused"
