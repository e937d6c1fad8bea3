"""What a line of the log looks like, and what is never in one."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from proxy.core.request import CURRENT
from proxy.telemetry import log


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, configured = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configured)


@pytest.fixture
def named() -> Iterator[str]:
    token = CURRENT.set("abcdef0123456789")
    yield "abcdef0123456789"
    CURRENT.reset(token)


def documents(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_fields_and_plain_messages_are_documents_with_the_same_id(named: str) -> None:
    stream = io.StringIO()
    log.configure("info", "json", stream)

    structlog.get_logger("nixfront.request").info("request", status=200, path="/v2/")
    logging.getLogger("proxy.pipeline").warning("degraded part=%s", "x")

    one, other = documents(stream)
    assert one == {
        "event": "request",
        "status": 200,
        "path": "/v2/",
        "level": "info",
        "request_id": named,
        "timestamp": one["timestamp"],
    }
    assert (other["event"], other["part"], other["level"], other["logger"]) == (
        "degraded",
        "x",
        "warning",
        "proxy.pipeline",
    )
    assert other["request_id"] == named
    assert one["timestamp"].endswith("Z")


def test_lines_for_people_have_the_same() -> None:
    stream = io.StringIO()
    log.configure("info", "console", stream)

    structlog.get_logger().info("request", status=200, path="/v2/", error='two words "quoted"', lines="a\nb")

    line = stream.getvalue()
    assert line.count("\n") == 1
    assert (
        line.split(" ", 1)[1]
        == 'info request status=200 path=/v2/ error="two words \\"quoted\\"" lines="a\\nb"\n'
    )


@pytest.mark.parametrize("form", ["console", "json"])
def test_an_exception_is_told_with_its_trace(form: log.Form) -> None:
    stream = io.StringIO()
    log.configure("info", form, stream)

    try:
        int("https://user:secret@git.example.org/x")
    except ValueError:
        logging.getLogger("x").exception("it failed")

    assert "Traceback" in stream.getvalue()
    assert "https://git.example.org/x" in stream.getvalue()
    assert "secret" not in stream.getvalue()


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_levels(level: str) -> None:
    stream = io.StringIO()
    log.configure(level, "json", stream)

    for each in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger(), each)("one")
        getattr(logging.getLogger("other"), each)("two")

    order = ["debug", "info", "warning", "error"]
    assert [line["level"] for line in documents(stream)] == [
        each for each in order[order.index(level) :] for _ in range(2)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "fetching https://user:hunter2@git.example.org/packages.git",
        "ssh://deploy:hunter2@host/x and http://other:hunter2@host",
        "Authorization: Basic aHVudGVyMjpodW50ZXIy",
        "authorization=Bearer hunter2hunter2.x.y",
        "GET https://host/blob?X-Amz-Signature=hunter2&x=1",
        "GET https://host/token?access_token=hunter2&service=x",
        "redis://:hunter2@cache:6379/0",
        "password=hunter2",
    ],
)
def test_what_opens_something_is_masked(text: str) -> None:
    masked = log.masked(text)

    assert "hunter2" not in masked
    assert "aHVudGVy" not in masked


@pytest.mark.parametrize(
    "text",
    [
        "/v2/python3/python3packages.numpy/manifests/latest",
        "Basic authentication",
        "a@b.example",
        "signature",
    ],
)
def test_what_opens_nothing_stays(text: str) -> None:
    assert log.masked(text) == text


@pytest.mark.parametrize(
    ("template", "arguments", "fields"),
    [
        ("registry url=%s", ("http://a:1",), {"event": "registry", "url": "http://a:1"}),
        ("new image=%s@%s seconds=%.0f", ("a", "b", 1.6), {"event": "new", "image": "a@b", "seconds": "2"}),
        ("it answers %d path=%s", (500, "/v2/"), {"event": "it answers 500", "path": "/v2/"}),
        ("collected paths=%d bytes=%d", (2, 3), {"event": "collected", "paths": 2, "bytes": 3}),
        ("gone error=%r", (ValueError("no"),), {"event": "gone", "error": "ValueError('no')"}),
        ("%s; image=%s goes on", ("lost", "a"), {"event": "lost; goes on", "image": "a"}),
        ("nothing to fill in=%s", (), {"event": "nothing to fill in=%s"}),
    ],
)
def test_values_of_plain_lines_are_fields(
    template: str, arguments: tuple[object, ...], fields: dict[str, object]
) -> None:
    stream = io.StringIO()
    log.configure("info", "json", stream)

    logging.getLogger("proxy.wiring").info(template, *arguments)
    logging.getLogger("aiohttp").info(template, *arguments)

    ours, theirs = documents(stream)
    for name in ("level", "logger", "timestamp"):
        del ours[name]
    assert ours == fields
    assert theirs["event"] == (template % arguments if arguments else template)
    assert "positional_args" not in theirs
