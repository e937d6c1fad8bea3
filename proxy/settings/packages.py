"""Sections of the settings about packages and names: package sets, meta-packages, named images, policy."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from proxy.core.model import Preset
from proxy.settings.values import AbsolutePath, Component, Date, Listing, Section, User

_NIXPKGS = "https://github.com/NixOS/nixpkgs/archive/{revision}.tar.gz"
_CHANNEL_COMMIT = "https://channels.nixos.org/{ref}/git-revision"
_CHANNEL_LIST = "https://channels.nixos.org/{ref}/packages.json.br"
_CHANNEL = "nixpkgs-unstable"
_FULL_COMMIT = r"^([0-9a-f]{40}|[0-9a-f]{64})$"


class PackageSource(Section):
    """Where the packages of one set come from."""

    kind: Literal["nixpkgs", "tarball", "git", "path", "flake", "demo"] = "nixpkgs"
    url: str = ""
    pointer: str = ""
    listing: Listing = ""
    ref: str = ""
    revision: str = ""
    path: str = ""
    date: Date = ""
    archive: str = ""
    recipe: str = ""
    attribute: str = "packages"
    import_from_derivation: bool = False
    refs: tuple[str, ...] = ("*",)
    commits: tuple[Annotated[str, Field(pattern=_FULL_COMMIT)], ...] = ()
    any_commit: bool = False

    @model_validator(mode="after")
    def _check(self) -> "PackageSource":
        if self.kind in ("tarball", "git", "flake") and not self.url:
            raise ValueError(f"kind {self.kind} needs a url")
        if self.kind == "path" and not Path(self.path).is_absolute():
            raise ValueError("kind path needs an absolute path")
        if self.recipe not in ("", "big") and not Path(self.recipe).is_absolute():
            raise ValueError("a recipe is big, or an absolute path")
        if self.kind != "path":
            self._check_password()
        return self

    def _check_password(self) -> None:
        """Raises `ValueError` where a password would stand in the command line of a program."""
        parts = urlsplit(self.url)
        scheme = parts.scheme.removeprefix("git+")
        if "@" not in parts.netloc or (self.kind == "git" and scheme in ("http", "https")):
            return
        if scheme == "ssh" and parts.password is None:
            return
        ways = {
            "git": "use a key of the user who runs nixfront",
            "flake": "use netrc or a credential helper of git, or access-tokens in nix.conf",
        }
        way = ways.get(self.kind, "put them into Nix's netrc file (netrc-file in nix.conf)")
        raise ValueError(f"url: every user of this host could read the user and password in it; {way}")

    def with_addresses(self) -> "PackageSource":
        """The same source; nixpkgs gets its official addresses where the operator sets none."""
        if self.kind != "nixpkgs":
            return self
        official = (
            {}
            if self.url
            else {"url": _NIXPKGS, "pointer": _CHANNEL_COMMIT, "listing": self.listing or _CHANNEL_LIST}
        )
        return self.model_copy(update={"ref": self.ref or _CHANNEL, **official})


class PackagesSection(PackageSource):
    """The default package set, and what holds for every set; `time_to_live` is in seconds."""

    system: str = ""
    always: tuple[str, ...] = ("cacert", "iana-etc")
    time_to_live: float = Field(default=3600, ge=0)
    most_revisions: int = Field(default=64, ge=1)
    refresh: Literal["behind", "wait", "never"] = "behind"


class PresetSection(Section):
    """A meta-package."""

    packages: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: User = ""
    environment: dict[str, str] = Field(default_factory=dict)
    system: str = ""

    @property
    def value(self) -> Preset:
        """This meta-package as the parser of names takes it."""
        return Preset(
            packages=self.packages,
            command=self.command,
            user=self.user,
            environment=tuple(sorted(self.environment.items())),
            system=self.system,
        )


_CI_TOOLS = ("getent", "gnutar", "gnused", "gawk", "procps", "gzip", "diffutils")
# The loader and the libraries of programs that were built for other distributions. The root tree has them in /lib, where
# nixpkgs' loader does not look.
_FOREIGN = ("glibc.out", "gcc-unwrapped.lib", "zlib.out", "openssl.out")
_FOREIGN_ENVIRONMENT = {"LD_LIBRARY_PATH": "/lib"}

#: The meta-packages that are there by default.
PRESETS = {
    "shell": PresetSection(
        packages=("bashInteractive", "coreutils", "moreutils", "nano"), command=("/bin/bash",)
    ),
    # What CI systems call in a container, and what they mount into it: programs that were built for other distributions.
    "ci": PresetSection(
        packages=("bash", "coreutils", "gnugrep", "findutils", "git", "cacert", *_CI_TOOLS, *_FOREIGN),
        command=("/bin/sh",),
        environment=_FOREIGN_ENVIRONMENT,
    ),
    "debug": PresetSection(
        packages=(
            "bashInteractive",
            "coreutils",
            "procps",
            "less",
            "gnutar",
            "gnugrep",
            "gnused",
            "curl",
            "strace",
        ),
        command=("/bin/bash",),
    ),
    "foreign": PresetSection(packages=_FOREIGN, environment=_FOREIGN_ENVIRONMENT),
    "user": PresetSection(user="1000:1000"),
    "tz": PresetSection(packages=("tzdata",), environment={"TZDIR": "/share/zoneinfo"}),
    "locale": PresetSection(
        packages=("glibcLocales",), environment={"LOCALE_ARCHIVE": "/lib/locale/locale-archive"}
    ),
    "fonts": PresetSection(packages=("fontconfig", "dejavu_fonts")),
    "amd64": PresetSection(system="x86_64-linux"),
    "arm64": PresetSection(system="aarch64-linux"),
}


class NamesSection(Section):
    """What names mean, beside attributes: the operator's meta-packages and aliases."""

    presets: dict[str, PresetSection] = Field(default_factory=dict)
    aliases: dict[str, str] = Field(default_factory=dict)


class ImagesSection(Section):
    """The operator's file of named images, and the first component of their names."""

    file: AbsolutePath = ""
    prefix: Component = "images"


class PolicySection(Section):
    """Which packages may be served."""

    allow_unfree: tuple[str, ...] = ()
    allow_insecure: tuple[str, ...] = ()
    allow_broken: tuple[str, ...] = ()
    deny_packages: tuple[str, ...] = ()
    deny_licenses: tuple[str, ...] = ()
    only_packages: tuple[str, ...] = ()
    only_licenses: tuple[str, ...] = ()
    most_bytes: int = Field(default=0, ge=0)
    most_layer_bytes: int = Field(default=0, ge=0)
    most_packages: int = Field(default=64, ge=1)
