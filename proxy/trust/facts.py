"""The facts of one image from which its documents follow: all that they hold, and no clock.

nixfront has the facts of an image before it puts the manifest. They go into a file, which a child process reads (see `__main__`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from proxy.core.facts import web_page
from proxy.core.model import Descriptor, ImageRequest, Package, PackageSet, PathInfo

_STORE_NAME = re.compile(r"/nix/store/([^-]+)-(.+)")
# As `builtins.parseDrvName` of Nix: the version begins at the first dash that no letter follows.
_VERSION = re.compile(r"-(?=[^a-zA-Z])")
# Names of outputs that nixpkgs writes behind the version.
_OUTPUTS = "bin|dev|lib|doc|devdoc|man|devman|info|debug|static|data|dist|out"
_OUTPUT = re.compile(rf"(.+)-({_OUTPUTS})")
CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,}")


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """A layer of the image: the digest of its blob, and its store paths, none for the root layer."""

    digest: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class ImageFacts:
    """An image of ours. `manifest`: its descriptor. `system` is Nix's.

    `packages`: those of the image; `requested` are the attributes of those that the request names. `paths`: the closure.
    `settings`: what the operator chose and the bytes depend on. `builder`: the URI of this builder; `version`: of nixfront.
    """

    request: ImageRequest
    manifest: Descriptor
    package_set: PackageSet
    system: str
    packages: tuple[Package, ...]
    requested: tuple[str, ...]
    paths: tuple[PathInfo, ...]
    layers: tuple[LayerFacts, ...]
    settings: Mapping[str, str | int]
    builder: str
    version: str

    @cached_property
    def components(self) -> "tuple[Component, ...]":
        """A component for each store path, in the order of the layers."""
        return tuple(self._components())

    def _components(self) -> Iterator["Component"]:
        made = {path: (package, name) for package in self.packages for name, path in package.outputs}
        references = {info.path: info.references for info in self.paths}
        for layer in self.layers:
            for path in layer.paths:
                package, output = made.get(path, (None, ""))
                needs = tuple(other for other in references.get(path, ()) if other != path)
                yield component(path, package, output, layer.digest, needs)

    def is_requested(self, part: "Component") -> bool:
        """Whether the request names the package that this component is an output of."""
        return part.package is not None and part.package.attribute in self.requested


@dataclass(frozen=True, slots=True)
class Component:
    """A store path of an image: `layer` holds it, and it `needs` other store paths.

    `output` is empty for the main output. `package`: the package of the image that has this output; None for a store path
    that is there because others need it.
    """

    path: str
    hash: str
    name: str
    version: str
    output: str
    package: Package | None
    layer: str
    needs: tuple[str, ...]

    @property
    def homepage(self) -> str:
        """The homepage of the package, if it is the address of a web page."""
        return web_page(self.package.homepage) if self.package else ""


def component(
    path: str, package: Package | None, output: str, layer: str, needs: tuple[str, ...]
) -> Component:
    """The component of a store path. Its name says what the package set does not."""
    match = _STORE_NAME.fullmatch(path)
    identity, rest = match.groups() if match else ("", path)
    name, version, suffix = split_name(rest)
    if package is not None:
        name, version = split_name(package.name)[0], package.version or split_name(package.name)[1]
        suffix = "" if output == "out" else output
    return Component(path, identity, name, version, suffix, package, layer, needs)


def split_name(text: str) -> tuple[str, str, str]:
    """Name, version and output of the name of a store path: `glibc-2.40-66-bin` is glibc, 2.40-66, bin."""
    name, _, version = _split(text)
    if version and (match := _OUTPUT.fullmatch(version)):
        return name, match[1], match[2]
    return name, version, ""


def _split(text: str) -> tuple[str, str, str]:
    match = _VERSION.search(text)
    return (text[: match.start()], "-", text[match.end() :]) if match and match.start() else (text, "", "")
