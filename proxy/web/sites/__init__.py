"""What a web site can have a person's browser do here: nothing that costs, and nothing that the site may read.

A browser that can reach nixfront sends requests for every site that the person visits. Two rules keep such sites out.

**The name.** A site may point a name of its own at our address, and is then "the same origin" for the browser (DNS
rebinding). So the page and the counts answer under names that are ours alone. An address is no name, so it always will do. Over
TLS the browser has compared the name with our certificate. Engines do not run the code of a site, so the registry's interface
checks the name only for browsers: `docker pull` works through any name.

**The site.** A browser says in `Sec-Fetch-Site` or `Origin` for which site it works. For another site it starts no build, writes
nothing, and reads no page. A link to the page is fine. Browsers leave `Sec-Fetch-Site` out where we are neither on loopback nor
behind TLS. Then `Referer` has to name us before a build starts.

A header can only take rights away here. So it does not matter who wrote it.
"""

from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from proxy.web.client import forwarding
from proxy.web.sites.host_names import HostNames, host

_SITE = "Sec-Fetch-Site"
_OWN_SITES = frozenset({"same-origin", "same-site", "none"})
_BROWSER = "mozilla/"  # in the user agent of every browser, and of no engine
_CURE = "http.hosts of this host does not hold it"


class Sites:
    """The rules, applied to requests."""

    def __init__(self, hosts: HostNames) -> None:
        """`hosts`: our own names, and those of web sites that may use us."""
        self._hosts = hosts
        self._pages: frozenset[object] = frozenset()

    def guard(self, application: web.Application) -> None:
        """From now on `middleware` guards the paths that this application answers already."""
        self._pages = frozenset(application.router.resources())

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The handler's answer; for a path that `guard` saw, a 403 where `page_refusal` has a reason."""
        resource = request.match_info.route.resource
        if resource in self._pages and (reason := self.page_refusal(request)):
            return web.Response(status=403, text=f"{reason}\n")
        return await handler(request)

    def page_refusal(self, request: web.Request) -> str:
        """Why this client may not read a page of ours; empty if it may."""
        if reason := self._wrong_name(request):
            return reason
        return "" if _is_link(request) else self._other_site(request)

    def registry_refusal(self, request: web.Request) -> str:
        """Why this client may not use the registry's interface; empty if it may."""
        if not _is_browser(request):
            return ""
        is_read = request.method in (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS)
        return self._wrong_name(request) or ("" if is_read else self._other_site(request))

    def build_refusal(self, request: web.Request) -> str:
        """Why this request starts no build; empty if it may start one."""
        if not _is_browser(request):
            return ""
        if reason := self._other_site(request):
            return reason
        if _SITE in request.headers or hdrs.ORIGIN in request.headers:
            return ""
        referers = request.headers.getall(hdrs.REFERER, [])
        if referers and all(self._is_own(request, referer) for referer in referers):
            return ""
        return "a browser that does not say for which site it works starts no build; use the page of this host, or an engine"

    def _wrong_name(self, request: web.Request) -> str:
        if request.secure:
            return ""
        for authority in _authorities(request):
            if not self._hosts.may_call(authority):
                return f"{host(authority)!r} is no name of this host: {_CURE}"
        return ""

    def _other_site(self, request: web.Request) -> str:
        for origin in request.headers.getall(hdrs.ORIGIN, []):
            if not self._is_own(request, origin):
                return f"the web site {origin!r} may not do this: {_CURE}"
        if hdrs.ORIGIN in request.headers:
            return ""
        if any(site.strip().lower() not in _OWN_SITES for site in request.headers.getall(_SITE, [])):
            return f"another web site may not do this: {_CURE}"
        return ""

    def _is_own(self, request: web.Request, url: str) -> bool:
        """Whether the URL is one of ours: under the name of this very request, or under one that the operator chose."""
        try:
            authority = urlsplit(url).netloc
        except ValueError:
            return False
        own = {host(each) for each in _authorities(request)}
        return bool(authority) and (host(authority) in own or self._hosts.hold(authority))


def _authorities(request: web.Request) -> list[str]:
    """Every `HOST:PORT` by which the request calls us: its own, and those that web servers in front pass on."""
    line = "" if request.raw_path.startswith("/") else urlsplit(request.raw_path).netloc
    names = [*request.headers.getall(hdrs.HOST, []), *forwarding(request.headers.items()).hosts, line]
    return [name for name in names if name]


def _is_browser(request: web.Request) -> bool:
    return (
        _SITE in request.headers
        or hdrs.ORIGIN in request.headers
        or any(_BROWSER in agent.lower() for agent in request.headers.getall(hdrs.USER_AGENT, []))
    )


def _is_link(request: web.Request) -> bool:
    """Whether the person follows a link: the page goes to the person's own window, where no site can read it.

    The composer evaluates packages, so a link to it counts as the work of the other site.
    """
    return (
        request.method == hdrs.METH_GET
        and request.headers.get("Sec-Fetch-Mode") == "navigate"
        and request.headers.get("Sec-Fetch-Dest") == "document"
        and not request.query_string
    )
