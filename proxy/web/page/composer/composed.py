"""What the page shows of an image that somebody composed. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.core import names
from proxy.core.facts import web_page
from proxy.core.model import ImageRequest, Package
from proxy.web.page.composer.lines import Line
from proxy.web.page.composer.previews import Preview
from proxy.web.page.listed import ListedImage


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag to choose, and what it means."""

    name: str
    what: str


@dataclass(frozen=True, slots=True)
class Composed:
    """`error` says why there is nothing to show, and `login` that a user of the registry may see more.

    `preview` is None for a named image, `named`, and where too many others wait for theirs. `image`: the image of this name that
    the registry has already.
    """

    repository: str
    error: str = ""
    login: bool = False
    named: str = ""
    first: str = ""
    preview: Preview | None = None
    lines: Sequence[Line] = ()
    image: ListedImage | None = None

    @property
    def package(self) -> Package | None:
        """The package whose version the image has."""
        packages = self.preview.packages if self.preview is not None else ()
        return next((each for each in packages if names.spelled(each.attribute) == self.first), None) or (
            packages[-1] if packages else None
        )

    @property
    def homepage(self) -> str:
        """The address of the package's own web page; empty if there is none that a link may have."""
        return web_page(self.package.homepage) if self.package else ""

    @property
    def tags(self) -> list[Tag]:
        """The tags that are worth a line: those to choose, and those that the registry has."""
        chosen = [Tag("latest", "the newest revision that this host serves")]
        version = self.package and names.version_tag(self.package.version)
        if version:
            chosen.append(Tag(version, "this version, as long as latest has it"))
        before = {tag.name for tag in chosen}
        if self.image is not None:
            chosen += [Tag(tag, "in the registry") for tag in self.image.names if tag not in before]
            chosen += [Tag(tag, "never moves") for tag in self.image.fixed]
        return chosen


def composed(
    request: ImageRequest, preview: Preview | None, lines: Sequence[Line], image: ListedImage | None
) -> Composed:
    """All of it for one image."""
    return Composed(
        request.repository,
        named=request.image,
        first=request.first,
        preview=preview,
        lines=lines,
        image=image,
    )
