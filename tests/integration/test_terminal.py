"""What a build or a pushed image says is text on a terminal, and nothing else: it does not ring, erase, rename or turn."""

import asyncio
import io
import json
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import structlog

from proxy import cli
from proxy.telemetry import log as telemetry_log
from tests.support import handmade
from tests.support.front import Front
from tests.support.servers import Server

Start = Callable[..., AbstractAsyncContextManager[Front]]
#: BEL, a colour, the title of the window, CSI in one character (C1), and a turn of the direction of writing.
HOSTILE = "evil\a\x1b[31m\x1b]0;title\x07\u009b2J\u202e\x7f end"


def controls(text: str) -> set[str]:
    """The control characters of a text, but for the ends of lines."""
    return {char for char in text if (not char.isprintable() and char not in "\n\t ") or char == "\u202e"}


async def test_no_control_character_reaches_a_terminal(
    start: Start,
    registry: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = tmp_path / "set"
    own.mkdir()
    (own / "words").write_text(f"error: {HOSTILE}\n", encoding="utf-8")
    (own / "default.nix").write_text(
        """{ system, ... }: { evil = derivation { name = "evil"; inherit system; builder = "/bin/sh"; PATH = "/bin:/usr/bin";
             args = [ "-c" "cat ${./words} >&2; exit 1" ]; }; }""",
        encoding="utf-8",
    )

    def label(config: dict[str, Any]) -> None:
        config["config"]["Labels"] = {"note": HOSTILE, "nixfront.packages": HOSTILE}

    image = handmade.image([handmade.tar(each) for each in handmade.store_layers()], config=label)
    digest = await handmade.push(registry.url, "labelled", "latest", image)
    root = logging.getLogger()
    handlers, level, configured = root.handlers[:], root.level, structlog.get_config()
    stream = io.StringIO()
    telemetry_log.configure("debug", "console", stream)
    try:
        async with start(registry.url, packages={"path": str(own)}) as front:
            answer = (await front.get("/v2/evil/manifests/latest"))[2]
            (build,) = json.loads((await front.get("/status.json"))[2])["builds"]
            paths = (
                "/",
                f"/images/{digest}/labelled",
                f"/builds/{build['id']}",
                f"/builds/{build['id']}/log",
            )
            pages = [(await front.get(path))[2].decode() for path in paths]
            logging.getLogger("proxy").warning("a registry says %s", HOSTILE)
            monkeypatch.setenv("NIXFRONT_HTTP_ADDR", front.url.removeprefix("http://"))
            monkeypatch.setenv("NIXFRONT_REGISTRY_URL", registry.url)
            for command in (["status"], ["explain", "labelled"], ["explain", "labelled", "--json"]):
                assert await asyncio.to_thread(cli.main, command) == 0
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**configured)
    lines = stream.getvalue()
    shown = capsys.readouterr()

    message = json.loads(answer)["errors"][0]["message"]
    assert "evil" in message
    assert controls(message) == set(), "docker prints it"
    for page in pages:
        assert "evil" in page
        assert controls(page) == set()
    assert "a registry says evil" in lines
    assert controls(lines) == set()
    assert "note=evil" in shown.out
    assert controls(shown.out + shown.err) == set()
