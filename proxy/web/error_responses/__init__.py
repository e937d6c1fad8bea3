"""Each error class -> what goes over the wire: one table, one function, one middleware.

What a person can mend is a 404 with the message, and what the host must mend is a 503. The reason phrase always has the message
too, as it is all that docker shows of a 503. `readers` says which kinds of clients get another status, because they show
nothing of that one (see deploy/troubleshooting.md).
"""

import json

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from proxy.core import errors
from proxy.core.errors import NixfrontError
from proxy.web.error_responses import readers
from proxy.web.error_responses.readers import DENIED, UNAVAILABLE, Wire

# nginx has 4096 bytes for the head of an answer, by default.
_LONGEST_REASON = 800
_START_OF_REASON = 500  # characters; the end says how a log ends
_GAP = " ... "
_UNKNOWN = Wire("MANIFEST_UNKNOWN", 404)
#: The client of this request goes on after "not found", and only then.
_GOES_ON: web.RequestKey[bool] = web.RequestKey("goes_on", bool)

WIRE: dict[type[NixfrontError], Wire] = {
    errors.NameInvalid: Wire("NAME_INVALID", 404),
    errors.BodyInvalid: Wire("SIZE_INVALID", 400),
    errors.NotMirrored: Wire("NAME_UNKNOWN", 404),
    errors.TagUnknown: _UNKNOWN,
    errors.DigestLost: _UNKNOWN,
    errors.ImageUnknown: _UNKNOWN,
    errors.ImageInvalid: _UNKNOWN,
    errors.PackageUnknown: _UNKNOWN,
    errors.PackageUnusable: _UNKNOWN,
    errors.PackageRefused: _UNKNOWN,
    errors.ImageTooLarge: _UNKNOWN,
    errors.EvaluationFailed: _UNKNOWN,
    errors.BuildFailed: _UNKNOWN,
    errors.BuildTimedOut: _UNKNOWN,
    errors.PackageSetUnavailable: UNAVAILABLE,
    errors.SourceMissing: UNAVAILABLE,
    errors.NixUnavailable: UNAVAILABLE,
    errors.DerivationLost: UNAVAILABLE,
    errors.CacheUnusable: UNAVAILABLE,
    errors.StoreUnreadable: UNAVAILABLE,
    errors.StoreFull: UNAVAILABLE,
    errors.Busy: Wire("TOOMANYREQUESTS", 429),
    errors.Stopping: UNAVAILABLE,
    errors.Unforeseen: UNAVAILABLE,
    errors.StillBuilding: UNAVAILABLE,
    errors.NotMadeHere: _UNKNOWN,
    errors.BuildDenied: DENIED,
    errors.PushDenied: DENIED,
    errors.SiteDenied: DENIED,
    errors.MirrorRefused: UNAVAILABLE,
    errors.TooManyBuilds: Wire("TOOMANYREQUESTS", 429),
    errors.RegistryUnavailable: UNAVAILABLE,
    errors.RegistryRefused: UNAVAILABLE,
    errors.DestinationUnusable: UNAVAILABLE,
    errors.DigestMismatch: UNAVAILABLE,
    errors.DigestNotReady: UNAVAILABLE,
    errors.ProcessFailed: UNAVAILABLE,
    errors.ArgumentsInvalid: UNAVAILABLE,
    errors.SettingsInvalid: UNAVAILABLE,
    errors.StateUnavailable: UNAVAILABLE,
}


def response(
    error: NixfrontError, status: int = 0, user_agent: str = "", *, goes_on: bool = False
) -> web.Response:
    """The answer that tells a client about this error, in the JSON envelope of the distribution specification.

    `status`: instead of the one in the table. `goes_on`: the client goes on after "not found", and only then.
    """
    wire = readers.reader(user_agent).answer(WIRE[type(error)], goes_on=goes_on)
    headers = {"Docker-Distribution-Api-Version": "registry/2.0"}
    if isinstance(error, errors.Busy):
        headers["Retry-After"] = str(error.retry_after)
    envelope = {"errors": [{"code": wire.code, "message": str(error)}]}
    answer = web.Response(
        status=status or wire.status,
        reason=reason_phrase(str(error)),
        body=json.dumps(envelope).encode(),
        content_type="application/json",
        headers=headers,
    )
    if isinstance(error, errors.BodyInvalid):
        answer.force_close()
    return answer


def reason_phrase(message: str) -> str:
    """The message as a reason phrase: one line of printable ASCII, not too long (RFC 9112, section 4)."""
    line = " ".join(message.split())
    printable = "".join(char if " " <= char <= "~" else "?" for char in line)
    if len(printable) <= _LONGEST_REASON:
        return printable
    end = _LONGEST_REASON - _START_OF_REASON - len(_GAP)
    return printable[:_START_OF_REASON] + _GAP + printable[-end:]


def note_mirror(request: web.Request) -> None:
    """Note that the client of this request uses nixfront as a mirror: after "not found" it asks the next registry."""
    request[_GOES_ON] = True


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Our own errors rise to here and become answers; aiohttp logs any other and makes it a 500."""
    try:
        return await handler(request)
    except NixfrontError as error:
        goes_on = (
            isinstance(error, errors.NotMirrored)
            or _GOES_ON in request
            or readers.looks_before_a_push(request.headers.getall(hdrs.ACCEPT, []))
        )
        return response(error, user_agent=request.headers.get(hdrs.USER_AGENT, ""), goes_on=goes_on)
