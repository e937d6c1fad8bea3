"""What a person reads for each class of error, by client: each client's way of asking is replayed over real HTTP.

The table on the page `deploy/troubleshooting.md` has what comes of it.
"""

import re
from pathlib import Path

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpServer

from proxy.core import errors
from proxy.core.errors import NixfrontError
from proxy.web import error_responses
from proxy.web.error_responses import WIRE, readers
from tests.support.terminals import TERMINALS, Question
from tests.unit.web.test_error_responses import made

PAGE = (Path(__file__).parents[4] / "deploy/troubleshooting.md").read_text(encoding="utf-8")
#: More lines and characters than a reason phrase has.
LONG = "building x failed: a cause; its log ends:\n" + "\n".join(f"line {number}" for number in range(200))
COLUMNS = {"a mistake": 404, "no right": 403, "too many": 429, "a fault of the host": 503}
#: The requests of a pull have no body, and a mirror's engine goes on.
OF_A_PULL = [kind for kind in WIRE if kind not in (errors.BodyInvalid, errors.NotMirrored)]


def table() -> dict[str, dict[int, tuple[int, str]]]:
    """Client -> the status of an error -> the status that the client gets, and what it shows."""
    rows = re.findall(r"^\| ([^|]+) \|((?: \d{3}: [^|]+\|){4})$", PAGE, re.MULTILINE)
    return {
        client: {
            own: (int(cell[:3]), cell[5:])
            for own, cell in zip(COLUMNS.values(), (c.strip() for c in cells.split("|")[:4]), strict=True)
        }
        for client, cells in rows
    }


def app(kind: type[NixfrontError], *, waits: bool = False, mirror: bool = False) -> web.Application:
    """A server on which every pull meets this error; `waits`: it sends the client from HEAD to GET, and round once."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if mirror:
            error_responses.note_mirror(request)
        if waits and request.method == "HEAD":
            return web.Response(status=405)
        if waits and not request.query:
            return web.Response(status=307, headers={"Location": "?wait=1"})
        raise made(kind, LONG)

    application = web.Application(middlewares=[error_responses.middleware])
    application.router.add_route("*", "/{path:.*}", answer)
    return application


async def reads(
    aiohttp_server: AiohttpServer, application: web.Application, client: str, *accept: str
) -> tuple[str, list[tuple[str, int]]]:
    """What the client prints, and the statuses that it got."""
    server = await aiohttp_server(application)
    terminal = TERMINALS[client]
    url = str(server.make_url(""))
    question = Question(url, "/v2/helo/manifests/latest", terminal.agent)
    if accept:
        question = Question(url, question.path, terminal.agent, accept)
    return await terminal.pull(question), question.seen


def shown(text: str, kind: type[NixfrontError]) -> str:
    """Which part of the error a person reads here."""
    message = str(made(kind, LONG))
    if message in text:
        return "the message"
    if error_responses.reason_phrase(message) in text:
        return "one line"
    return text


def test_the_page_names_every_client_and_every_status() -> None:
    assert set(table()) == set(TERMINALS)
    assert {WIRE[kind].status for kind in OF_A_PULL} == set(COLUMNS.values())
    for column, status in COLUMNS.items():
        assert f"{column} ({status})" in PAGE


@pytest.mark.parametrize("kind", OF_A_PULL, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("client", TERMINALS)
async def test_a_person_reads_what_the_page_says(
    aiohttp_server: AiohttpServer, client: str, kind: type[NixfrontError]
) -> None:
    status, what = table()[client][WIRE[kind].status]

    text, seen = await reads(aiohttp_server, app(kind), client)

    assert (seen[-1][1], shown(text, kind)) == (status, what)


@pytest.mark.parametrize("client", TERMINALS)
async def test_a_failure_after_a_wait_is_read_too(aiohttp_server: AiohttpServer, client: str) -> None:
    text, seen = await reads(aiohttp_server, app(errors.BuildFailed, waits=True), client)

    assert seen[-1][0] == "GET"
    built_on_containerd = readers.reader(TERMINALS[client].agent).name == "containerd"
    assert shown(text, errors.BuildFailed) == ("one line" if built_on_containerd else "the message")


@pytest.mark.parametrize("kind", [errors.NotMirrored, errors.PackageUnknown, errors.BuildFailed])
@pytest.mark.parametrize("client", TERMINALS)
async def test_an_engine_goes_on_from_a_mirror(
    aiohttp_server: AiohttpServer, client: str, kind: type[NixfrontError]
) -> None:
    _, seen = await reads(aiohttp_server, app(kind, mirror=True), client)

    assert seen[-1][1] == 404


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    "client", [name for name in TERMINALS if readers.reader(TERMINALS[name].agent).name == "containerd"]
)
async def test_a_push_goes_on_where_there_is_no_tag(
    aiohttp_server: AiohttpServer, client: str, *, waits: bool
) -> None:
    one_type = ("application/vnd.oci.image.manifest.v1+json", "*/*")

    text, seen = await reads(aiohttp_server, app(errors.TagUnknown, waits=waits), client, *one_type)

    assert (text, seen[-1][1]) == ("not found", 404)


@pytest.mark.parametrize(
    ("accept", "push"),
    [
        pytest.param(["application/vnd.oci.image.index.v1+json, */*"], True, id="an index"),
        pytest.param(["application/vnd.docker.distribution.manifest.v2+json;q=1", "*/*"], True, id="lines"),
        pytest.param(
            [
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.oci.image.manifest.v1+json",
            ],
            False,
            id="two types",
        ),
        pytest.param(["*/*"], False, id="any"),
        pytest.param(["application/json"], False, id="no manifest"),
        pytest.param([], False, id="nothing"),
    ],
)
def test_a_look_before_a_push_names_one_type(accept: list[str], *, push: bool) -> None:
    assert readers.looks_before_a_push(accept) is push
