"""settings.sections."""

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from proxy.core.errors import SettingsInvalid
from proxy.core.model import Preset
from proxy.settings.values import (
    AbsolutePath,
    Address,
    AddressOrNone,
    Component,
    Date,
    Network,
    NetworkOrAll,
    Origin,
    PathPrefix,
    RedisAddress,
    User,
    WebAddress,
)

_NIXPKGS = "https://github.com/NixOS/nixpkgs/archive/{revision}.tar.gz"
_CHANNEL_COMMIT = "https://channels.nixos.org/{ref}/git-revision"
_CHANNEL = "nixpkgs-unstable"
_OWN_HOST = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class Section(BaseModel):
    """What all sections share: frozen, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Http(Section):
    """Where clients connect."""

    addr: Address = "127.0.0.1:8080"
    certificate: AbsolutePath = ""
    key: AbsolutePath = ""
    trusted_proxies: tuple[Network, ...] = ()
    head_bytes: int = Field(default=1 << 20, ge=1024)
    head_seconds: float = Field(default=30, gt=0)
    connections: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> "Http":
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key go together")
        return self


class Data(Section):
    """Where nixfront keeps what it knows; empty: a folder of the user's."""

    dir: str = ""


class StateSection(Section):
    """Where nixfront keeps what it remembers; empty: a file in the data folder. A lease is in seconds."""

    url: RedisAddress = ""
    lease_seconds: float = Field(default=15, ge=1)


class RegistrySection(Section):
    """The backing registry; empty: the stock program as a child. The password is in no message and no repr."""

    url: Origin = ""
    storage: AbsolutePath = ""
    public_url: Origin = ""
    username: str = ""
    password: SecretStr = SecretStr("")
    password_file: AbsolutePath = ""
    ca: AbsolutePath = ""
    client_certificate: AbsolutePath = ""
    client_key: AbsolutePath = ""

    @model_validator(mode="after")
    def _complete(self) -> "RegistrySection":
        ours = (self.username, self.password.get_secret_value(), self.password_file, self.ca)
        if not self.url and any((*ours, self.client_certificate, self.client_key)):
            raise ValueError("without a url there is nobody to log in to")
        if ":" in self.username:
            raise ValueError("a username has no colon")
        if self.password.get_secret_value() and self.password_file:
            raise ValueError("password and password_file exclude each other")
        if bool(self.username) != bool(self.password.get_secret_value() or self.password_file):
            raise ValueError("username and password (or password_file) go together")
        if bool(self.client_certificate) != bool(self.client_key):
            raise ValueError("client_certificate and client_key go together")
        if (self.ca or self.client_certificate) and not self.url.startswith("https://"):
            raise ValueError("ca and client_certificate are for an https url")
        return self

    def secret(self) -> str:
        """The password, read from its file if it is in one; blocking. Raises `SettingsInvalid`."""
        if not self.password_file:
            return self.password.get_secret_value()
        try:
            return Path(self.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise SettingsInvalid(f"registry.password_file: {error}") from error


class PackageSource(Section):
    """Where the packages of one set come from."""

    kind: Literal["nixpkgs", "tarball", "git", "path", "flake", "demo"] = "nixpkgs"
    url: str = ""
    pointer: str = ""
    ref: str = ""
    revision: str = ""
    path: str = ""
    date: Date = ""
    archive: str = ""
    recipe: str = ""
    attribute: str = "packages"
    import_from_derivation: bool = False

    @model_validator(mode="after")
    def _complete(self) -> "PackageSource":
        if self.kind in ("tarball", "git", "flake") and not self.url:
            raise ValueError(f"kind {self.kind} needs a url")
        if self.kind == "path" and not Path(self.path).is_absolute():
            raise ValueError("kind path needs an absolute path")
        if self.recipe not in ("", "big") and not Path(self.recipe).is_absolute():
            raise ValueError("a recipe is big, or an absolute path")
        return self


class Packages(PackageSource):
    """The default package set, and what holds for every set; `time_to_live` is in seconds."""

    system: str = ""
    always: tuple[str, ...] = ("cacert", "iana-etc")
    time_to_live: float = Field(default=3600, ge=0)
    refresh: Literal["behind", "wait", "never"] = "behind"


class PresetSection(Section):
    """A meta-package."""

    packages: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: User = ""
    environment: dict[str, str] = {}
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


_SHELL = ("bashInteractive", "coreutils", "moreutils", "nano")
_PRESETS = {
    "shell": PresetSection(packages=_SHELL, command=("/bin/bash",)),
    "ci": PresetSection(
        packages=("bash", "coreutils", "gnugrep", "findutils", "git", "cacert"), command=("/bin/sh",)
    ),
    "user": PresetSection(user="1000:1000"),
    "tz": PresetSection(packages=("tzdata",), environment={"TZDIR": "/share/zoneinfo"}),
    "locale": PresetSection(
        packages=("glibcLocales",), environment={"LOCALE_ARCHIVE": "/lib/locale/locale-archive"}
    ),
    "amd64": PresetSection(system="x86_64-linux"),
    "arm64": PresetSection(system="aarch64-linux"),
}


class NamesSection(Section):
    """What names mean beside attributes: `presets` are laid over the ones that are there by default."""

    presets: dict[str, PresetSection] = {}
    aliases: dict[str, str] = {}


class Images(Section):
    """The operator's file of named images, and what comes before their names."""

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


class NixSection(Section):
    """How Nix is used; deadlines in seconds."""

    store: str = ""
    substituters: tuple[str, ...] = ()
    public_keys: tuple[str, ...] = ()
    builders: str = ""
    copy_to: str = ""
    evaluation_deadline: float = Field(default=120, gt=0)
    evaluation_memory: int = Field(default=8 << 30, ge=0)
    evaluations: int = Field(default=0, ge=0)
    log_bytes: int = Field(default=0, ge=0)
    build_deadline: float = Field(default=3600, gt=0)


class Layers(Section):
    """How store paths become layers."""

    compression: Literal["gzip", "zstd", "none"] = "gzip"
    table: str = ""
    most: int = Field(default=100, ge=2, le=125)
    packers: int = Field(default=0, ge=0)
    uploads: int = Field(default=0, ge=0)


class ImageSection(Section):
    """What kind of manifest is pushed."""

    format: Literal["docker", "oci"] = "docker"


class AnswersSection(Section):
    """How long the registry's answers about manifests are remembered, in seconds, and how many bytes of manifests."""

    seconds: float = Field(default=5, ge=0)
    most_bytes: int = Field(default=64 << 20, ge=0)


class AccessSection(Section):
    """Who may have images made; what is empty or 0 narrows nothing."""

    repositories: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    builds_per_minute: int = Field(default=0, ge=0)


class Builds(Section):
    """How clients wait for a build (`waiting` has the reasons), how many there are at once, how long a failure is kept."""

    patience: float = Field(default=5, gt=0)
    hop_seconds: float = Field(default=22, gt=0)
    hops: int = Field(default=9, ge=0, le=9)
    restart_agents: tuple[str, ...] = ("containerd", "buildkit")
    restart_seconds: float = Field(default=25, gt=0)
    hold_seconds: float = Field(default=3600, gt=0)
    failure_seconds: float = Field(default=15, ge=0)
    at_once: int = Field(default=8, ge=1)
    share: int = Field(default=4, ge=1)
    queue: int = Field(default=100, ge=0)
    grace_seconds: float = Field(default=15, ge=0)


class MirrorSection(Section):
    """What is served to clients that come as to a mirror of another registry; empty `addr`: none without `?ns=`."""

    addr: AddressOrNone = ""
    namespaces: tuple[str, ...] = ("docker.io",)
    allow: tuple[str, ...] = ()
    prefix: PathPrefix = ""


class StatusSection(Section):
    """Where and to whom `/metrics`, `/healthz` and `/readyz` answer; empty `addr`: where clients connect."""

    addr: AddressOrNone = ""
    metrics: bool = True
    networks: tuple[NetworkOrAll, ...] = _OWN_HOST


class PageSection(Section):
    """The page for people at `/`: whether there is one, who may see it, and who may read the logs of builds there."""

    enabled: bool = True
    networks: tuple[NetworkOrAll, ...] = _OWN_HOST
    log_networks: tuple[NetworkOrAll, ...] = _OWN_HOST


class TracesSection(Section):
    """Where traces go, by OTLP over HTTP; empty: nowhere. `sample`: the share of traces that begin here and are kept."""

    endpoint: WebAddress = ""
    sample: float = Field(default=1.0, ge=0, le=1)


class Log(Section):
    """What is written on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"
    requests: bool = True


def _processors() -> int:
    return len(os.sched_getaffinity(0))
