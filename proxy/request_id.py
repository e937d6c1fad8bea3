"""The id of a request: what the client reads in `X-Request-Id`, and every line of the log about it says.

A task that a request starts inherits its id, so a build has the id of the request that began it, whoever joins later.
"""

import itertools
import re
import secrets
from contextvars import ContextVar

HEADER = "X-Request-Id"
#: Of the request that is being answered, or that began what runs now; empty outside of any.
CURRENT: ContextVar[str] = ContextVar("request_id", default="")

# What a web server in front of us may have chosen; it goes into file names and pages.
_GIVEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,63}")
_PROCESS = secrets.token_hex(5)
_NUMBERS = itertools.count(1)


def choose(given: str | None) -> str:
    """The id that came with the request, if it can be one, else a new one: no other process has it."""
    if given is not None and _GIVEN.fullmatch(given):
        return given
    return f"{_PROCESS}{next(_NUMBERS):06x}"
