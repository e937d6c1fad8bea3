"""Each error class -> what goes over the wire: one table, one function, one middleware.

The statuses follow what clients show (measured, see deploy/troubleshooting.md): docker prints the JSON message of a 404 and hides
that of a 5xx, where only the reason phrase survives; containerd shows reason phrases alone. So what a person can mend
is a 404 with the message, what the host must mend is a 503, and the reason phrase always says it too.
"""

import json
import re
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.core import errors
from proxy.core.errors import NixfrontError

_LONGEST_REASON = 200
# Clients that do not wait as a 429 asks them to: docker gives up, containerd asks six times at once. A 503 shows them
# its reason phrase. skopeo and podman wait.
_DEAF = re.compile(r"docker|containerd|buildkit", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wire:
    """A code of the distribution specification ("Error Codes") and an HTTP status."""

    code: str
    status: int


_UNKNOWN = Wire("MANIFEST_UNKNOWN", 404)
_UNAVAILABLE = Wire("UNAVAILABLE", 503)

WIRE: dict[type[NixfrontError], Wire] = {
    errors.NameInvalid: Wire("NAME_INVALID", 404),
    errors.NotMirrored: Wire("NAME_UNKNOWN", 404),
    errors.TagUnknown: _UNKNOWN,
    errors.ImageUnknown: _UNKNOWN,
    errors.ImageInvalid: _UNKNOWN,
    errors.PackageUnknown: _UNKNOWN,
    errors.PackageUnusable: _UNKNOWN,
    errors.PackageRefused: _UNKNOWN,
    errors.ImageTooLarge: _UNKNOWN,
    errors.EvaluationFailed: _UNKNOWN,
    errors.BuildFailed: _UNKNOWN,
    errors.BuildTimedOut: _UNKNOWN,
    errors.PackageSetUnavailable: _UNAVAILABLE,
    errors.SourceMissing: _UNAVAILABLE,
    errors.NixUnavailable: _UNAVAILABLE,
    errors.DerivationLost: _UNAVAILABLE,
    errors.StoreUnreadable: _UNAVAILABLE,
    errors.StoreFull: _UNAVAILABLE,
    errors.Busy: Wire("TOOMANYREQUESTS", 429),
    errors.Stopping: _UNAVAILABLE,
    errors.Unforeseen: _UNAVAILABLE,
    errors.StillBuilding: _UNAVAILABLE,
    errors.NotMadeHere: _UNKNOWN,
    errors.BuildDenied: Wire("DENIED", 403),
    errors.PushDenied: Wire("DENIED", 403),
    errors.SiteDenied: Wire("DENIED", 403),
    errors.MirrorRefused: _UNAVAILABLE,
    errors.TooManyBuilds: Wire("TOOMANYREQUESTS", 429),
    errors.RegistryUnavailable: _UNAVAILABLE,
    errors.RegistryRefused: _UNAVAILABLE,
    errors.DestinationUnusable: _UNAVAILABLE,
    errors.DigestMismatch: _UNAVAILABLE,
    errors.DigestNotReady: _UNAVAILABLE,
    errors.ProcessFailed: _UNAVAILABLE,
    errors.SettingsInvalid: _UNAVAILABLE,
    errors.StateUnavailable: _UNAVAILABLE,
}


def response(error: NixfrontError, status: int = 0, user_agent: str = "") -> web.Response:
    """The answer that tells a client about this error, in the JSON envelope of the distribution specification.

    `status`: instead of the one in the table.
    """
    wire = WIRE[type(error)]
    headers = {"Docker-Distribution-Api-Version": "registry/2.0"}
    if isinstance(error, errors.Busy):
        headers["Retry-After"] = str(error.retry_after)
        if _DEAF.search(user_agent):
            wire = _UNAVAILABLE
    envelope = {"errors": [{"code": wire.code, "message": str(error)}]}
    return web.Response(
        status=status or wire.status,
        reason=reason_phrase(str(error)),
        body=json.dumps(envelope).encode(),
        content_type="application/json",
        headers=headers,
    )


def reason_phrase(message: str) -> str:
    """The message as a reason phrase: one line of printable ASCII, not too long (RFC 9112, section 4)."""
    line = " ".join(message.split())
    printable = "".join(char if " " <= char <= "~" else "?" for char in line)
    return printable if len(printable) <= _LONGEST_REASON else printable[: _LONGEST_REASON - 3] + "..."


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Our own errors rise to here and become answers; aiohttp logs any other and makes it a 500."""
    try:
        return await handler(request)
    except NixfrontError as error:
        return response(error, user_agent=request.headers.get("User-Agent", ""))
