"""What one visitor may see. Views get builds, logs and images here and nowhere else, reduced already, so none can forget to.

The registry says which repositories a visitor may pull: the page shows no other, in no list. `page.log_networks` says who may
read logs; for everybody else a build carries nothing that its log says.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aiohttp import hdrs, web

from proxy.builds.board import BuildBoard
from proxy.builds.build import Build
from proxy.core.text import printable
from proxy.registry.login import Credentials
from proxy.web.client import Networks
from proxy.web.page.image_list import ImageList
from proxy.web.page.listed import Listing
from proxy.web.page.rights import Rights, credentials_of


@dataclass(frozen=True, slots=True)
class Builds:
    """The builds that a visitor may see: those that run, oldest first, and those that have ended, newest first."""

    running: tuple[Build, ...]
    ended: tuple[Build, ...]


class Visitor:
    """The client of one request."""

    def __init__(
        self, board: BuildBoard, images: ImageList, rights: Rights, credentials: Credentials, *, logs: bool
    ) -> None:
        """`logs`: the client may read logs."""
        self._board = board
        self._images = images
        self._rights = rights
        self._credentials = credentials
        self.reads_logs = logs

    @property
    def user(self) -> str:
        """The user of the registry, or empty."""
        return self._credentials.username

    @property
    def may_log_in(self) -> bool:
        """Whether the visitor is nobody yet, and may see more as somebody."""
        return not self.user and self._rights.has_logins

    async def is_accepted(self) -> bool:
        """Whether the visitor is a user whom the registry accepts."""
        return bool(self.user) and await self._rights.accepts(self._credentials)

    async def builds(self) -> Builds:
        """The builds of all machines."""
        await self._board.refresh()
        running, ended = self._board.running, self._board.ended
        readable = await self._readable(build.repository for build in (*running, *ended))
        return Builds(
            tuple(self._reduced(build) for build in running if build.repository in readable),
            tuple(self._reduced(build) for build in ended if build.repository in readable),
        )

    async def build(self, identity: str) -> Build | None:
        """The build of this id, if it is there for this visitor."""
        await self._board.refresh()
        build = self._board.get(identity)
        if build is None or not await self._readable([build.repository]):
            return None
        return self._reduced(build)

    async def newest(self, repository: str, tag: str) -> Build | None:
        """The build of this image that runs, or that ended last, if it is there for this visitor."""
        await self._board.refresh()
        build = self._board.latest(repository, tag)
        if build is None or not await self._readable([repository]):
            return None
        return self._reduced(build)

    def is_here(self, build: Build) -> bool:
        """Whether this machine has the build's log."""
        return self._board.is_here(build)

    async def log(self, build: Build) -> str:
        """The log of a build of this machine; empty for a visitor who may not read it."""
        log = await self._board.log(build.id) if self.reads_logs and self.is_here(build) else ""
        return printable(log)  # an older nixfront may have written it

    def lines_since(self, build: Build, seen: int) -> tuple[Sequence[str], int]:
        """Further lines of the log as of `BuildBoard.lines_since`; none for a visitor who may not read it."""
        return self._board.lines_since(build.id, seen) if self.reads_logs else ((), seen)

    async def images(self) -> Listing:
        """The images by name. Layers count as shared among these images only."""
        listed, trouble = await self._images.listing(self._board.endings)
        readable = await self._readable(image.repository for image in listed)
        images = (image for image in listed if image.repository in readable)
        return Listing(tuple(sorted(images, key=lambda image: image.name)), trouble)

    async def pullable(self, repositories: Iterable[str]) -> set[str]:
        """Those of these names of repositories that the registry lets the visitor pull, also where no image is there yet."""
        return await self._readable(repositories)

    async def package_sets(self, names: Iterable[str]) -> set[str]:
        """Those of these named package sets from which the visitor may pull: a package with the name of the set stands for all."""
        by_repository = {f"{name}/{name}": name for name in names}
        return {by_repository[repository] for repository in await self._readable(by_repository)}

    async def _readable(self, repositories: Iterable[str]) -> set[str]:
        return await self._rights.readable(self._credentials, repositories)

    def _reduced(self, build: Build) -> Build:
        return build if self.reads_logs else build.without_log()


class Visitors:
    """Makes a `Visitor` of a request."""

    def __init__(
        self, board: BuildBoard, images: ImageList, rights: Rights, visitors: Networks, log_visitors: Networks
    ) -> None:
        """Clients in `visitors` may see the page, and of these the ones in `log_visitors` may read logs."""
        self._board = board
        self._images = images
        self._rights = rights
        self._visitors = visitors
        self._log_visitors = log_visitors

    def of(self, request: web.Request) -> Visitor | None:
        """The visitor of this request; None if the page is not for this client."""
        if not self._visitors.contain_every_hop(request.remote, request.headers):
            return None
        return Visitor(
            self._board,
            self._images,
            self._rights,
            credentials_of(request.headers.getall(hdrs.AUTHORIZATION, [])),
            logs=self._log_visitors.contain_every_hop(request.remote, request.headers),
        )
