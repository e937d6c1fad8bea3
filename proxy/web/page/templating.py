"""The page's templates and static files, read once in a process.

To compile all templates takes a third of a second of a processor, so the first page waits for it and not the start.
"""

import asyncio
import functools
import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp_jinja2
import jinja2
from aiohttp import hdrs, web

from proxy import __version__
from proxy.core.errors import Busy, NixfrontError
from proxy.core.text import printable
from proxy.web import public_key
from proxy.web.error_responses import WIRE
from proxy.web.page import views
from proxy.web.page.visitor import Visitor

#: Whom a request comes from.
VISITOR: web.RequestKey[Visitor] = web.RequestKey("visitor", Visitor)
_HERE = Path(__file__).parent
_COOKIE, _COLOURS = "nixfront-colours", ("light", "dark")  # what a visitor chose, as page.js writes it
_LONGEST_NUMBER = 9  # digits
#: What a page says of its status in a few words.
_HEADINGS = {
    400: "This form is broken",
    401: "Log in",
    403: "Not allowed",
    404: "Not here",
    429: "Too many at this moment",
}
_T = TypeVar("_T")
_compiled = threading.Event()
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file of the page. Its `path` changes with its bytes, so browsers may keep it for ever."""

    path: str
    data: bytes
    content_type: str


class Pages:
    """A long list in pages; the query of the request says which one is shown."""

    def __init__(self, request: web.Request, total: int, of_a_page: int) -> None:
        """`total` things, so many on each page."""
        self._url = request.rel_url
        self._of_a_page = of_a_page
        typed = request.query.get("page", "")
        number = int(typed) if typed.isascii() and typed.isdigit() and len(typed) < _LONGEST_NUMBER else 1
        self.total = total
        self.last = max(1, -(-total // of_a_page))
        self.number = min(max(number, 1), self.last)

    def part(self, items: Sequence[_T]) -> Sequence[_T]:
        """Those of this page."""
        first = (self.number - 1) * self._of_a_page
        return items[first : first + self._of_a_page]

    def url(self, number: int) -> str:
        """The address of another page of the same list."""
        return str(self._url.update_query(page=str(number)))


async def set_up(application: web.Application) -> Mapping[str, StaticFile]:
    """Give this application the templates. The static files by their names."""
    application[aiohttp_jinja2.APP_KEY] = await asyncio.to_thread(_environment)
    return _files()


async def ready() -> None:
    """Return once all templates are compiled. Whatever renders one waits for it first."""
    if not _compiled.is_set():
        await asyncio.to_thread(_compile)


def text(request: web.Request, template: str, context: Mapping[str, Any]) -> str:
    """The markup of a template, in which every value is escaped."""
    return aiohttp_jinja2.render_string(template, request, context)


def page(request: web.Request, template: str, context: Mapping[str, Any], status: int = 200) -> web.Response:
    """A page of its own as the answer to a request."""
    visitor = request[VISITOR]
    of_all = {
        "host": request.host,
        "path": request.path,
        "colours": chosen if (chosen := request.cookies.get(_COOKIE)) in _COLOURS else "",
        "public_key": public_key.path_in(request.app),
        "user": visitor.user,
        "may_log_in": visitor.may_log_in,
    }
    shown = {**of_all, **context}
    return aiohttp_jinja2.render_template(template, request, shown, status=status)


def missing(request: web.Request, message: str, status: int = 404) -> web.Response:
    """The page that says why there is nothing here."""
    context = {"message": message, "heading": _HEADINGS.get(status, "Not at this moment")}
    return page(request, "missing.html", context, status)


def failure(request: web.Request, error: NixfrontError) -> web.Response:
    """The page of an error, with the status that a pull has for it."""
    answer = missing(request, str(error), WIRE[type(error)].status)
    if isinstance(error, Busy):
        answer.headers[hdrs.RETRY_AFTER] = str(error.retry_after)
    return answer


@functools.cache
def _files() -> Mapping[str, StaticFile]:
    return {file.name: _static(file) for file in (_HERE / "static").iterdir() if file.suffix in _TYPES}


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "size": views.size,
        "span": views.span,
        "number": views.number,
        "iso": views.iso,
        "short": views.short,
        "slug": lambda text: text.replace(" ", "-"),
        "reference": lambda build: views.reference(build.repository, build.tag),
    }
    environment.globals |= {
        "picture": views.picture,
        "picture_width": views.WIDTH,
        "ago": lambda moment: views.ago(moment, time.time()),
        "now": time.time,
        "version": __version__,
        "asset": {name: file.path for name, file in _files().items()},
    }
    return environment


def _compile() -> None:
    for name in _environment().list_templates():
        _environment().get_template(name)
    _compiled.set()


def _static(file: Path) -> StaticFile:
    data = file.read_bytes()
    path = f"/static/{file.name}?v={hashlib.sha256(data).hexdigest()[:12]}"
    return StaticFile(path, data, _TYPES[file.suffix])
