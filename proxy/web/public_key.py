"""The public key of the signatures of images, for everybody: whoever checks signatures needs it, and it is no secret.

RFC 8615: a site's facts about itself are below `/.well-known/`.
"""

from aiohttp import web

#: Where it is.
PATH = "/.well-known/nixfront.pub"
_IS_THERE = web.AppKey("is_there", bool)


def add_to(application: web.Application, pem: bytes) -> None:
    """Let the application answer with this key."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=pem, content_type="application/x-pem-file")

    application[_IS_THERE] = True
    application.router.add_get(PATH, answer)


def path_in(application: web.Application) -> str:
    """Where this application has the key; empty if images are not signed."""
    return PATH if application.get(_IS_THERE, False) else ""
