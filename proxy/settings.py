"""The configuration: a YAML file, then `NIXFRONT_SECTION_KEY` in the environment, checked as a whole at the start.

Only `cli` and `app` see it; everything below gets plain values. An unknown key or a wrong type is refused with the
key's path, in the file and in the environment alike.
"""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from proxy import settings_tree
from proxy.errors import SettingsInvalid
from proxy.settings_values import (
    AbsolutePath,
    Address,
    AddressOrNone,
    Component,
    Date,
    NamedNetworks,
    Networks,
    Origin,
    PathPrefix,
    RedisAddress,
    User,
    WebAddress,
)

_NIXPKGS = "https://github.com/NixOS/nixpkgs/archive/{revision}.tar.gz"
_CHANNEL_COMMIT = "https://channels.nixos.org/{ref}/git-revision"
_CHANNEL = "nixpkgs-unstable"
_OWN_HOST = ("127.0.0.0/8", "::1/128")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Http(_Section):
    """Where clients connect."""

    addr: Address = "127.0.0.1:8080"
    certificate: AbsolutePath = ""
    key: AbsolutePath = ""
    trusted_proxies: NamedNetworks = ()
    head_bytes: int = Field(default=1 << 20, ge=1024)
    head_seconds: float = Field(default=30, gt=0)
    connections: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> "Http":
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key go together")
        return self


class Data(_Section):
    """Where nixfront keeps what it knows; empty: a folder of the user's."""

    dir: str = ""


class StateSection(_Section):
    """Where nixfront keeps what it remembers; empty: a file in the data folder. A lease is in seconds."""

    url: RedisAddress = ""
    lease_seconds: float = Field(default=15, ge=1)


class RegistrySection(_Section):
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


class PackageSource(_Section):
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


class PresetSection(_Section):
    """A meta-package."""

    packages: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: User = ""
    environment: dict[str, str] = {}
    system: str = ""


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


class NamesSection(_Section):
    """What names mean beside attributes: `presets` are laid over the ones that are there by default."""

    presets: dict[str, PresetSection] = {}
    aliases: dict[str, str] = {}


class Images(_Section):
    """The operator's file of named images, and what comes before their names."""

    file: AbsolutePath = ""
    prefix: Component = "images"


class PolicySection(_Section):
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


class NixSection(_Section):
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


class Layers(_Section):
    """How store paths become layers."""

    compression: Literal["gzip", "zstd", "none"] = "gzip"
    table: str = ""
    most: int = Field(default=100, ge=2, le=125)
    packers: int = Field(default=0, ge=0)
    uploads: int = Field(default=0, ge=0)


class ImageSection(_Section):
    """What kind of manifest is pushed."""

    format: Literal["docker", "oci"] = "docker"


class AnswersSection(_Section):
    """How long the registry's answers about manifests are remembered, in seconds, and how many bytes of manifests."""

    seconds: float = Field(default=5, ge=0)
    most_bytes: int = Field(default=64 << 20, ge=0)


class AccessSection(_Section):
    """Who may have images made; what is empty or 0 narrows nothing."""

    repositories: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    networks: NamedNetworks = ()
    builds_per_minute: int = Field(default=0, ge=0)


class Builds(_Section):
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


class MirrorSection(_Section):
    """What is served to clients that come as to a mirror of another registry; empty `addr`: none without `?ns=`."""

    addr: AddressOrNone = ""
    namespaces: tuple[str, ...] = ("docker.io",)
    allow: tuple[str, ...] = ()
    prefix: PathPrefix = ""


class StatusSection(_Section):
    """Where and to whom `/metrics`, `/healthz` and `/readyz` answer; empty `addr`: where clients connect."""

    addr: AddressOrNone = ""
    metrics: bool = True
    networks: Networks = _OWN_HOST


class PageSection(_Section):
    """The page for people at `/`: whether there is one, who may see it, and who may read the logs of builds there."""

    enabled: bool = True
    networks: Networks = _OWN_HOST
    log_networks: Networks = _OWN_HOST


class TracesSection(_Section):
    """Where traces go, by OTLP over HTTP; empty: nowhere. `sample`: the share of traces that begin here and are kept."""

    endpoint: WebAddress = ""
    sample: float = Field(default=1.0, ge=0, le=1)


class Log(_Section):
    """What is written on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"
    requests: bool = True


class Settings(_Section):
    """The whole configuration."""

    http: Http = Http()
    data: Data = Data()
    state: StateSection = StateSection()
    registry: RegistrySection = RegistrySection()
    packages: Packages = Packages()
    sets: dict[str, PackageSource] = {}
    names: NamesSection = NamesSection()
    images: Images = Images()
    policy: PolicySection = PolicySection()
    nix: NixSection = NixSection()
    layers: Layers = Layers()
    image: ImageSection = ImageSection()
    answers: AnswersSection = AnswersSection()
    access: AccessSection = AccessSection()
    builds: Builds = Builds()
    mirror: MirrorSection = MirrorSection()
    status: StatusSection = StatusSection()
    page: PageSection = PageSection()
    traces: TracesSection = TracesSection()
    log: Log = Log()

    @model_validator(mode="after")
    def _unambiguous(self) -> "Settings":
        prefix = self.images.prefix
        if self.images.file and (prefix in self.sets or prefix in self.presets):
            what = "package set" if prefix in self.sets else "meta-package"
            raise ValueError(f"images.prefix: {prefix} is the name of a {what} too")
        return self

    @model_validator(mode="after")
    def _known_type(self) -> "Settings":
        if self.layers.compression == "zstd" and self.image.format != "oci":
            raise ValueError("layers.compression zstd needs image.format oci: no Docker type says zstd")
        return self

    @property
    def data_dir(self) -> Path:
        """The data folder, absolute."""
        if self.data.dir:
            return Path(self.data.dir).expanduser().absolute()
        if os.geteuid() == 0:
            return Path("/var/lib/nixfront")
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(state).expanduser().absolute() / "nixfront"

    @property
    def nix_store(self) -> str:
        """The folder of a Nix store of its own, absolute, or empty for the system's store."""
        return str(Path(self.nix.store).expanduser().absolute()) if self.nix.store else ""

    @property
    def packers(self) -> int:
        """The threads that pack layers: as many as asked for, else one for each processor that we may use."""
        return self.layers.packers or _processors()

    @property
    def uploads(self) -> int:
        """How many layers are sent at once: as many as asked for, else two for each processor, at least four.

        More than are packed at once, because a registry takes a while to put a blob in its place.
        """
        return self.layers.uploads or max(4, 2 * _processors())

    @property
    def system(self) -> str:
        """The Nix system that images are made for."""
        return self.packages.system or f"{platform.machine()}-linux"

    @property
    def package_sources(self) -> dict[str, PackageSource]:
        """Every package set by its name, the default one under the empty name; nixpkgs with its addresses."""
        return {name: _with_addresses(chosen) for name, chosen in {"": self.packages, **self.sets}.items()}

    @property
    def presets(self) -> dict[str, PresetSection]:
        """The meta-packages by name: ours, and the operator's over them."""
        return {**_PRESETS, **self.names.presets}


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def _with_addresses(chosen: PackageSource) -> PackageSource:
    """The official addresses of nixpkgs, where the operator gave none."""
    if chosen.kind != "nixpkgs":
        return chosen
    official = {} if chosen.url else {"url": _NIXPKGS, "pointer": _CHANNEL_COMMIT}
    return chosen.model_copy(update={"ref": chosen.ref or _CHANNEL, **official})


def load(file: Path | None, environment: Mapping[str, str], **overrides: Any) -> Settings:
    """The settings of this file, this environment and `overrides` (`packages={"kind": "demo"}`), later ones first.

    Raises `SettingsInvalid`, with every wrong key.
    """
    tree = settings_tree.read(file) if file is not None else {}
    for name, value in sorted(environment.items()):
        if name.startswith(settings_tree.PREFIX):
            settings_tree.put(tree, Settings, name, value)
    for section, values in overrides.items():
        settings_tree.lay_over(tree, section, values)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}" for item in error.errors()
        ]
        raise SettingsInvalid("; ".join(problems)) from error
