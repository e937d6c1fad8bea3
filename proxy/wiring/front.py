"""The web applications of one nixfront: images for engines, the page for people, health and counts for machines."""

import asyncio
import logging
import platform
import socket
from contextlib import AsyncExitStack
from dataclasses import fields

from aiohttp import web

from proxy.builds.board import BuildBoard
from proxy.core.model import ImageRequest, without_credentials
from proxy.core.platforms import of_system
from proxy.registry import anonymous
from proxy.settings import Settings
from proxy.telemetry import requests
from proxy.telemetry.history import History
from proxy.web import client as web_client
from proxy.web import passthrough
from proxy.web.client import Networks
from proxy.web.error_responses.ways_out import LogPlace, OriginPlace, WaysOut
from proxy.web.healing import Healing
from proxy.web.intercept import Front
from proxy.web.mirror import Mirror, MirrorRules
from proxy.web.page import Page
from proxy.web.page.composer import Composer
from proxy.web.page.composer.packages import PackagePages
from proxy.web.page.composer.previews import Previews
from proxy.web.page.documents import Documents
from proxy.web.page.image_list import ImageList
from proxy.web.page.make import Maker
from proxy.web.page.rights import Rights
from proxy.web.page.visitor import Visitors
from proxy.web.replies.tag_list import TagLists
from proxy.web.search import Search
from proxy.web.search.lists import SetLists
from proxy.web.sites import Sites
from proxy.web.sites.host_names import HostNames
from proxy.web.waiting import Waiting, WaitingRules
from proxy.wiring.registry import registry_endpoint
from proxy.wiring.service import Service

_log = logging.getLogger(__name__)


def add_images(
    application: web.Application,
    service: Service,
    waiting: Waiting,
    settings: Settings,
    sites: Sites,
    *,
    mirror: bool,
    page: Page | None = None,
) -> None:
    """Let the application answer the whole interface of a registry.

    With `mirror` every client of the application uses it as a mirror; without, only clients that say so (`?ns=`). `page` answers
    people who follow a link to nowhere.
    """
    section = settings.mirror
    if mirror and not (section.allow or section.prefix):
        _log.warning("mirror.addr serves nothing without mirror.allow or mirror.prefix")
    rules = MirrorRules(frozenset(section.namespaces), section.allow, section.prefix, settings.http.names)
    front = Front(
        sites,
        Mirror(rules, always=mirror),
        service.answers,
        TagLists(service.answers, service.access, service.state, settings.vocabulary),
        service.blobs,
        service.access,
        service.builds,
        waiting,
        ways_out(settings, service.board),
        service.moving,
        service.late_documents,
        service.pulls,
        Healing(service.registry, service.state, settings.vocabulary),
        settings.vocabulary,
        is_anonymous=not (settings.registry.username or settings.registry.client_certificate),
    )
    handler = page.before(front.answer, service.passthrough) if page is not None else front.answer
    application.router.add_route("*", r"/{path:[\s\S]*}", handler, expect_handler=passthrough.expect)
    application.on_response_prepare.append(passthrough.drop_added_headers)
    application.on_response_prepare.append(requests.name_request)


def set_lists(service: Service, settings: Settings, stack: AsyncExitStack) -> SetLists:
    """The names of package sets, for all who search."""
    packages = service.packages
    lists = SetLists(packages.sets, packages.evaluator, service.access, settings.package_policy)
    stack.push_async_callback(lists.close)
    return lists


def add_search(
    application: web.Application, service: Service, settings: Settings, sites: Sites, lists: SetLists
) -> None:
    """Let the application answer `docker search` and `podman search`."""
    search = Search(
        sites, service.access, service.passthrough, lists, settings.vocabulary, settings.package_policy
    )
    application.router.add_get("/v1/search", search.answer)


async def check_mirror(settings: Settings) -> None:
    """Warn in the log if the registry wants a login for what the mirror serves. Raises `SettingsInvalid`."""
    if not (settings.registry.url and settings.mirror.names):
        return
    endpoint = await asyncio.to_thread(registry_endpoint, settings, settings.registry.url)
    for name in settings.mirror.names:
        if await anonymous.refuses_pulls(endpoint, name):
            _log.warning(
                "the registry wants a login, and the clients of a mirror have none: they get the image of another registry name=%s",
                name,
            )


async def add_page(
    application: web.Application,
    service: Service,
    settings: Settings,
    sites: Sites,
    lists: SetLists,
    stack: AsyncExitStack,
) -> Page:
    """Let the application answer the page for people."""
    previews = Previews(
        service.packages.sets,
        service.packages.evaluator,
        service.packages.store,
        service.state,
        always=settings.packages.always,
        most_layers=settings.layers.most,
        compression=settings.layers.compression,
        tables=service.tables,
    )
    images = ImageList(service.registry, service.state)
    stack.push_async_callback(previews.close)
    stack.push_async_callback(images.close)
    visitors = Visitors(
        service.board,
        images,
        Rights(service.connection),
        Networks(settings.page.networks),
        Networks(settings.page.log_networks),
    )
    trusted = Networks(settings.http.trusted_proxies)
    own = of_system(f"{platform.machine()}-linux").name
    composer = Composer(previews, lists, settings.vocabulary, trusted, own)
    history = History(service.metrics.totals)
    watching = asyncio.create_task(history.watch())
    stack.callback(watching.cancel)
    page = Page(
        service.board,
        visitors,
        composer,
        PackagePages(composer, lists, sites),
        Maker(sites, service.access, service.builds, settings.vocabulary),
        Documents(service.registry, service.signer),
        history,
        default_set=_default_set(settings),
        trusted_proxies=trusted,
        budget=service.packages.budget,
    )
    await page.add_to(application)
    return page


def sites(settings: Settings) -> Sites:
    """The rules for browsers. Our names: those of this host, of the addresses where we listen, and of `http.hosts`."""
    addresses = (settings.http.addr, settings.mirror.addr, settings.status.addr)
    listening = [address.rpartition(":")[0].strip("[]") for address in addresses if address]
    return Sites(HostNames([*listening, socket.gethostname(), *settings.http.hosts]))


def _default_set(settings: Settings) -> str:
    """The default package set in a few words, for people."""
    source = settings.package_sources[""]
    match source.kind:
        case "nixpkgs":
            return f"nixpkgs ({source.revision[:12] or source.ref})"
        case "demo":
            return "the demo set, made of Debian's"
        case "path":
            return "the set of this host"
        case _:
            return without_credentials(source.url)


def waiting_rules(settings: Settings) -> WaitingRules:
    """How clients wait for a build."""
    return WaitingRules(**settings.builds.model_dump(include={field.name for field in fields(WaitingRules)}))


def ways_out(settings: Settings, board: BuildBoard) -> WaysOut:
    """What a person can do after an error."""
    return WaysOut(log_place(settings, board), _origin_place(settings))


def log_place(settings: Settings, board: BuildBoard) -> LogPlace:
    """A function that says, for a request and an image, where a person can read the log of the build."""
    level = "" if settings.log.level == "debug" else ", at log.level debug"
    trusted = Networks(settings.http.trusted_proxies)

    def place(request: web.Request, image: ImageRequest) -> str:
        build = board.latest(image.repository, image.tag)
        if not settings.page.enabled:
            return f"its log: nixfront's on {build.host if build else socket.gethostname()}{level}"
        if build is None:
            return f"its log: {_origin(request, trusted)}"
        elsewhere = "" if board.is_here(build) else f" on {build.host}"
        return f"its log: {_origin(request, trusted)}/builds/{build.id}{elsewhere}"

    return place


def _origin_place(settings: Settings) -> OriginPlace:
    """A function that says for a request how its client calls us, and whether that client sees the page."""
    networks, trusted = Networks(settings.page.networks), Networks(settings.http.trusted_proxies)

    def place(request: web.Request) -> tuple[str, bool]:
        is_visitor = networks.contain_every_hop(request.remote, request.headers)
        return _origin(request, trusted), settings.page.enabled and is_visitor

    return place


def _origin(request: web.Request, trusted: Networks) -> str:
    """Our origin as the client of this request has it."""
    client = web_client.client(request.headers.items(), request.remote or "", request.scheme, trusted)
    return f"{client.scheme}://{client.host}"
