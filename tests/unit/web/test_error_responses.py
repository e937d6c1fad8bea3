"""What goes over the wire for each error: a row for every class, one envelope, one line of reason."""

import inspect
import json
import re
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pytest_aiohttp.plugin import AiohttpClient

from proxy.core import errors
from proxy.core.errors import NixfrontError, PackageUnknown, RegistryRefused
from proxy.core.text import printable
from proxy.web import error_responses

# distribution-spec, "Error Codes"; UNAVAILABLE is the stock registry's own for 503.
CODES = {
    "DENIED",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "TOOMANYREQUESTS",
    "UNAVAILABLE",
}


def kinds(of: type[NixfrontError] = NixfrontError) -> list[type[NixfrontError]]:
    return [kind for direct in of.__subclasses__() for kind in (direct, *kinds(direct))]


def made(kind: type[NixfrontError], message: str = "no") -> NixfrontError:
    """An error of this class, whatever it wants to be told."""
    if kind is RegistryRefused:
        return RegistryRefused("PUT", "http://r/", 500, message)
    return kind(message, None) if kind is errors.ProcessFailed else kind(message)


def test_every_error_has_a_row() -> None:
    assert set(error_responses.WIRE) == set(kinds())


def test_the_troubleshooting_page_has_a_row_for_every_error() -> None:
    page = (Path(__file__).parents[3] / "deploy/troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) `(\w+)` \|", page, re.MULTILINE)

    table = {kind.__name__: (str(wire.status), wire.code) for kind, wire in error_responses.WIRE.items()}
    assert {name: (status, code) for name, status, code in rows} == table


def test_every_error_is_where_errors_are() -> None:
    assert all(inspect.getmodule(kind) is errors for kind in kinds())


DENIED = (errors.BuildDenied, errors.PushDenied, errors.SiteDenied)


@pytest.mark.parametrize("kind", kinds())
def test_every_error_becomes_an_envelope(kind: type[NixfrontError]) -> None:
    error = made(kind)

    response = error_responses.response(error)

    assert isinstance(response.body, bytes)
    ((told,),) = json.loads(response.body).values()
    assert told["code"] in CODES
    assert told["message"] == str(error)
    assert response.status in (400, 403, 404, 429, 503)
    assert response.content_type == "application/json"
    assert response.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


@pytest.mark.parametrize("kind", kinds())
def test_what_a_person_can_mend_is_a_404(kind: type[NixfrontError]) -> None:
    others = {errors.BodyInvalid: 400, **dict.fromkeys(DENIED, 403)}
    later = 429 if issubclass(kind, errors.Busy) else others.get(kind, 503)
    assert error_responses.WIRE[kind].status == (404 if kind.lasting else later)


@pytest.mark.parametrize(
    ("agent", "status"),
    [
        ("skopeo/1.9.3", 429),
        ("libpod/4.3.1", 429),
        ("cri-o/1.24", 429),
        ("", 429),
        ("docker/20.10.24 go/go1.19.8 UpstreamClient(Docker-Client/20.10.24)", 503),
        ("containerd/1.6.20", 503),
        ("docker/29.0.0 containerd-client/2.1.0", 503),
        ("buildkit/v0.12", 503),
    ],
)
def test_who_does_not_wait_is_told_why(agent: str, status: int) -> None:
    response = error_responses.response(errors.Busy("100 builds are waiting", 7), user_agent=agent)

    assert response.status == status
    assert response.reason == "100 builds are waiting"
    assert response.headers["Retry-After"] == "7"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param("no package gti", "no package gti", id="as it is"),
        pytest.param(
            "building failed:\n  line 1\r\n\tline 2\n", "building failed: line 1 line 2", id="lines"
        ),
        pytest.param(
            "caf\N{LATIN SMALL LETTER E WITH ACUTE} \x00\x7f\x1b[31m", "caf? ???[31m", id="no ASCII"
        ),
        pytest.param("a\N{LINE SEPARATOR}b\x85c\N{NO-BREAK SPACE}d", "a b c d", id="other line ends"),
        pytest.param("x" * 800, "x" * 800, id="the longest"),
        pytest.param("x" * 500 + "y" * 500, "x" * 500 + " ... " + "y" * 295, id="too long"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_a_reason_is_one_line(message: str, reason: str) -> None:
    assert error_responses.reason_phrase(message) == reason


@given(st.text(max_size=500))
def test_a_reason_is_always_short_printable_ascii(message: str) -> None:
    reason = error_responses.reason_phrase(message)

    assert len(reason) <= 800
    assert all(" " <= char <= "~" for char in reason)


@given(st.text(max_size=300))
def test_any_message_can_be_answered(message: str) -> None:
    error = PackageUnknown(message)
    response = error_responses.response(error)

    assert isinstance(response.body, bytes)
    assert json.loads(response.body)["errors"][0]["message"] == printable(str(error))


async def test_our_errors_become_answers_and_others_do_not(aiohttp_client: AiohttpClient) -> None:
    async def unknown(_: web.Request) -> web.Response:
        raise PackageUnknown("no package gti,\ndid you mean git?")

    async def fine(_: web.Request) -> web.Response:
        return web.Response(text="fine")

    async def forbidden(_: web.Request) -> web.Response:
        raise web.HTTPForbidden

    application = web.Application(middlewares=[error_responses.middleware])
    application.router.add_get("/unknown", unknown)
    application.router.add_get("/fine", fine)
    application.router.add_get("/forbidden", forbidden)
    client = await aiohttp_client(application)

    async with client.get("/unknown") as response:
        assert (response.status, response.reason) == (404, "no package gti, did you mean git?")
        assert (await response.json())["errors"] == [
            {"code": "MANIFEST_UNKNOWN", "message": "no package gti,\ndid you mean git?"}
        ]
    async with client.get("/fine") as response:
        assert (response.status, await response.text()) == (200, "fine")
    async with client.get("/forbidden") as response:
        assert response.status == 403
