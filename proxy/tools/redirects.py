"""GET requests to servers that strangers run: a redirect leads to https or to the same host, and no login goes along to another host.

So a server cannot make this host ask its neighbours, which speak plain HTTP.
"""

from collections.abc import Mapping
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)


async def get(
    session: aiohttp.ClientSession,
    address: URL,
    timeout: aiohttp.ClientTimeout,
    *,
    headers: Mapping[str, str] | None = None,
    login: str = "",
) -> aiohttp.ClientResponse:
    """The answer behind all redirects, which the caller closes. Raises `ValueError`, and as the session does.

    `login`: an Authorization header, for the server of `address` alone. The limits of `timeout` hold for each request, and the
    proxies of the environment are used.
    """
    target = address
    for _ in range(_MOST_REDIRECTS):
        ours = {"Authorization": login} if login and target.origin() == address.origin() else {}
        answer = await session.get(
            target,
            headers={**(headers or {}), **ours},
            timeout=timeout,
            allow_redirects=False,
            proxy=_proxy(target),
        )
        if answer.status not in _REDIRECTS:
            return answer
        answer.release()
        target = _next(target, answer.headers.get("Location", ""))
    raise ValueError("it redirects too often")


def _next(address: URL, location: str) -> URL:
    """Where a redirect leads."""
    target = address.join(URL(location))
    stays = (target.scheme, target.host) == (address.scheme, address.host)
    if not location or not (target.scheme == "https" or stays):
        raise ValueError("it redirects to another host without https")
    return target.with_user(None)


def _proxy(address: URL) -> str | None:
    """The proxy of the environment. A session that looks for it itself would also read the logins of this user's netrc."""
    return None if proxy_bypass(address.host or "") else getproxies().get(address.scheme)
