"""How the log is written: a line an event, for people or as JSON, every line with the id of its request, none with a secret.

Lines of ours that are counted by machines (a request, a build) come through structlog as fields; what else any module
or library logs goes through the same last steps. A line costs some ten microseconds, for there is one for each request:
so colours and columns are for a terminal alone.

A build in the log: one line when it has ended, the steps to there at level debug.
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
    LogLine,
    NixBegun,
    RefreshFailed,
    Resolved,
)
from proxy.core.model import without_credentials
from proxy.core.request import CURRENT

Form = Literal["console", "json"]
_FIRST = ("timestamp", "level", "event")
_BARE = re.compile(r"[^\s\"=]+")
_SECRETS = re.compile(
    r"\b((?i:bearer|basic))\s+(?=\S*[0-9A-Z=._])[A-Za-z0-9._~+/=-]{6,}"
    r"|(?:(?<=[?&\s])|^)((?i:(?:access_|refresh_)?token|password|secret|(?:x-amz-)?signature|x-amz-credential|sig))=[^&\s\"']+"
)
_Fields = MutableMapping[str, Any]


def configure(level: str, form: Form, stream: TextIO = sys.stderr) -> None:
    """Write the log of this process to `stream`, from this level on."""
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
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *steps],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    logging.getLogger("aiosqlite").setLevel(max(number, logging.INFO))  # it tells of every statement


def masked(text: str) -> str:
    """The text without what opens something: user names and passwords in addresses, tokens, signatures."""
    if "://" in text:
        text = without_credentials(text)
    if "=" not in text and " " not in text:
        return text
    return _SECRETS.sub(lambda found: f"{found[1]} ***" if found[1] else f"{found[2]}=***", text)


def _renderer(form: Form, stream: TextIO) -> Processor:
    if form == "json":
        return _json
    return structlog.dev.ConsoleRenderer() if stream.isatty() else _plain


class _Seconds:
    """The text of the current second, made once in it."""

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
            fields[name] = masked(value)
    return fields


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=str).encode


def _json(_: Any, __: str, fields: _Fields) -> str:
    return _encode(fields)


def _plain(_: Any, __: str, fields: _Fields) -> str:
    """One line `time level event name=value ...`, values with a space in them as JSON."""
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
    """Write an event: a line at most. A `Sink`."""
    match event:
        case BuildStarted(repository, tag):
            _log.debug("build started", image=f"{repository}:{tag}")
        case Resolved(repository, tag, content):
            _log.debug("build resolved", image=f"{repository}:{tag}", content=content)
        case NixBegun(content, part):
            _log.debug(part, content=content)
        case LogLine(attributes, line):
            _log.debug("log", packages="/".join(attributes), line=line)
        case LayersReady(repository, tag, ready, total):
            _log.debug("layers", image=f"{repository}:{tag}", ready=ready, total=total)
        case LayerStored(how, size):
            _log.debug("layer stored", how=how, bytes=size)
        case Collided(repository, path, winner, loser):
            _log.warning("collision", image=repository, path=f"/{path}", kept=winner, dropped=loser)
        case RefreshFailed(repository, tag, error):
            _log.warning("refresh failed, the old image stays", image=f"{repository}:{tag}", error=error)
        case BuildEnded(repository, tag, digest, error, outcome=outcome, seconds=seconds):
            image = f"{repository}:{tag}"
            if error:
                _log.warning("build failed", image=image, outcome=outcome, error=error)
            else:
                took = {f"{stage}_s": round(each, 3) for stage, each in seconds}
                _log.info("build done", image=image, digest=digest, **took)
