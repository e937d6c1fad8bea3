"""Packages: a search by name and description, and a page for each of them.

A search starts no Nix but for the list of names, once for each revision. The page of a package evaluates it, as the composer does,
unless another web site made the visitor's browser come here.
"""

from dataclasses import dataclass

from aiohttp import web

from proxy.core import names
from proxy.core.errors import NixfrontError
from proxy.tools.name_index import NO_NAMES, NameIndex
from proxy.web.page import templating
from proxy.web.page.composer import Composer
from proxy.web.page.templating import Pages
from proxy.web.page.visitor import Visitor
from proxy.web.search.lists import SetLists
from proxy.web.sites import Sites

_OF_A_PAGE = 25
_LONGEST_TEXT = 100  # characters of what a person types
_PATIENCE = 4.0  # seconds for a list of names


@dataclass(frozen=True, slots=True)
class Row:
    """A package of a search: its attribute, how a client pulls it, and what it says of itself."""

    attribute: str
    pull: str
    description: str
    version: str = ""
    license: str = ""
    main_program: str = ""


class PackagePages:
    """The pages of one application."""

    def __init__(self, composer: Composer, lists: SetLists, sites: Sites) -> None:
        self._composer = composer
        self._lists = lists
        self._sites = sites

    async def search(self, request: web.Request, visitor: Visitor) -> web.Response:
        """The packages that hold a text."""
        text = request.query.get("q", "").strip()[:_LONGEST_TEXT]
        choices = await self._composer.choices(visitor)
        package_set = request.query.get("set", "")
        index: NameIndex | None = NO_NAMES
        trouble = ""
        if package_set and package_set not in choices["sets"]:
            package_set, trouble = "", "This host has no such package set for you."
        else:
            try:
                index = await self._lists.index(package_set, _PATIENCE)
            except NixfrontError as error:
                trouble = str(error)
        positions = await self._lists.find(package_set, index, text)
        pages = Pages(request, len(positions), _OF_A_PAGE)
        prefix = f"{package_set}/" if package_set else ""
        rows = [
            Row(
                facts.name, prefix + pull, facts.description, facts.version, facts.license, facts.main_program
            )
            for facts in map((index or NO_NAMES).facts, pages.part(positions))
            if (pull := names.spelled(facts.name))
        ]
        likely = [] if positions else await self._lists.alike(package_set, index, text)
        perhaps = [Row(name, prefix + pull, "") for name in likely if (pull := names.spelled(name))]
        allowed = await visitor.pullable(row.pull for row in (*rows, *perhaps))
        context = {
            "likely": [row for row in perhaps if row.pull in allowed],
            "rows": [row for row in rows if row.pull in allowed],
            "hidden": bool(rows) and not allowed,
            "later": index is None,
            "text": text,
            "package_set": package_set,
            "pages": pages,
            "trouble": trouble,
        }
        return templating.page(request, "packages.html", {**context, **choices})

    async def package(self, request: web.Request, visitor: Visitor) -> web.Response:
        """What is in the image of a package, and what a person types for it."""
        name = request.match_info["name"]
        if self._sites.build_refusal(request):
            # A link from elsewhere: the visitor decides whether this host looks.
            return templating.page(request, "package.html", {"name": name, "result": None})
        result = await self._composer.result(request, visitor, name)
        status = 404 if result.error else 200
        return templating.page(request, "package.html", {"name": name, "result": result}, status)
