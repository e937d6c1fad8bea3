"""The log: one line for each event, for people or as JSON. Every line has the id of its request, and none has a secret.

Lines that machines count (a request, a build) come through structlog as fields. All other lines of our modules and of
libraries go through the same last steps; `telemetry.fields` finds the fields of ours. Since every request
writes a line, a line costs only some ten microseconds, and only a terminal gets colours and columns.

A build writes one line when it ends; its steps come at level debug.
"""

import json
import logging
import re
import sys
import time
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import Processor

from proxy.core.events import (
    BuildEnded,
    BuildStarted,
    Collided,
    Event,
    LayersReady,
    LayerStored,
    LibraryUnusable,
    LogLine,
    NixBegun,
    NixRan,
    PlatformEnded,
    RefreshFailed,
    Resolved,
)
from proxy.core.model import without_credentials
from proxy.core.request import CURRENT
from proxy.core.text import printable
from proxy.telemetry import fields

Form = Literal["console", "json"]
_FIRST = ("timestamp", "level", "event")
_BARE = re.compile(r"[^\s\"=]+")
_SECRETS = re.compile(
    r"\b((?i:bearer|basic))\s+(?=\S*[0-9A-Z=._])[A-Za-z0-9._~+/=-]{6,}"
    r"|(?:(?<=[?&\s])|^)((?i:(?:access_|refresh_)?token|password|secret|(?:x-amz-)?signature|x-amz-credential|sig))=[^&\s\"']+"
)
_Fields = MutableMapping[str, Any]


def configure(level: str, form: Form, stream: TextIO | None = None) -> None:
    """Write this process's log to `stream` (standard error if None), without lines below `level`."""
    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    steps: list[Processor] = [
        _stamp,
        _name_request,
        structlog.processors.format_exc_info,
        _mask,
        _renderer(form, stream),
    ]
    structlog.configure(
        processors=steps,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[fields.split, structlog.stdlib.add_logger_name],
            pass_foreign_args=True,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *steps],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    logging.getLogger("aiosqlite").setLevel(max(number, logging.INFO))  # it logs every statement


def masked(text: str) -> str:
    """The text without secrets: user names and passwords in addresses, tokens, signatures."""
    if "://" in text:
        text = without_credentials(text)
    if "=" not in text and " " not in text:
        return text
    return _SECRETS.sub(lambda match: f"{match[1]} ***" if match[1] else f"{match[2]}=***", text)


def _renderer(form: Form, stream: TextIO) -> Processor:
    if form == "json":
        return _json
    return structlog.dev.ConsoleRenderer() if stream.isatty() else _plain


class _Seconds:
    """The text of the current second, computed once a second."""

    number, text = -1, ""


def _stamp(_: Any, level: str, fields: _Fields) -> _Fields:
    now = time.time()
    second = int(now)
    if second != _Seconds.number:
        _Seconds.text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _Seconds.number = second
    fields["timestamp"] = f"{_Seconds.text}.{int((now - second) * 1000):03d}Z"
    fields["level"] = level
    return fields


def _name_request(_: Any, __: str, fields: _Fields) -> _Fields:
    if (identity := CURRENT.get()) and "request_id" not in fields:
        fields["request_id"] = identity
    return fields


def _mask(_: Any, __: str, fields: _Fields) -> _Fields:
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = masked(printable(value))
    return fields


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=str).encode


def _json(_: Any, __: str, fields: _Fields) -> str:
    return _encode(fields)


def _plain(_: Any, __: str, fields: _Fields) -> str:
    """One line `time level event name=value ...`; a value with a space in it is JSON."""
    words = [str(fields.pop(name, "")) for name in _FIRST]
    trace = fields.pop("exception", "")
    for name, value in fields.items():
        if isinstance(value, (int, float)):
            words.append(f"{name}={value}")
            continue
        text = value if isinstance(value, str) else _encode(value)
        words.append(f"{name}={text if _BARE.fullmatch(text) else _encode(text)}")
    line = " ".join(words).replace("\n", "\\n")
    return f"{line}\n{trace}" if trace else line


_log = structlog.get_logger("nixfront.build")


def log_event(event: Event) -> None:
    """A `Sink` that writes at most one line for an event."""
    match event:
        case BuildStarted(repository, tag):
            _log.debug("build started", image=f"{repository}:{tag}")
        case Resolved(repository, tag, content):
            _log.debug("build resolved", image=f"{repository}:{tag}", content=content)
        case NixBegun(content, part):
            _log.debug(part, content=content)
        case NixRan(program, seconds):
            _log.debug("nix ran", program=program, seconds=round(seconds, 3))
        case LogLine(attributes, line):
            _log.debug("log", packages="/".join(attributes), line=line)
        case LayersReady(repository, tag, ready, total):
            _log.debug("layers", image=f"{repository}:{tag}", ready=ready, total=total)
        case LayerStored(how, size):
            _log.debug("layer stored", how=how, bytes=size)
        case Collided(repository, path, winner, loser):
            _log.warning("collision", image=repository, path=f"/{path}", kept=winner, dropped=loser)
        case LibraryUnusable(repository, note):
            _log.warning("library cannot be used", image=repository, note=note)
        case PlatformEnded(repository, tag, platform, error, outcome):
            if error:
                image = f"{repository}:{tag}"
                _log.warning(
                    "platform left out", image=image, platform=platform, outcome=outcome, error=error
                )
        case RefreshFailed(repository, tag, error):
            _log.warning("refresh failed, the old image stays", image=f"{repository}:{tag}", error=error)
        case BuildEnded(repository, tag, digest, error, outcome=outcome, seconds=seconds):
            image = f"{repository}:{tag}"
            if error:
                _log.warning("build failed", image=image, outcome=outcome, error=error)
            else:
                durations = {f"{stage}_s": round(each, 3) for stage, each in seconds}
                _log.info("build done", image=image, digest=digest, **durations)
