"""Sections of the settings about the service: addresses, registry, state, Nix, layers, builds, page, log."""

from ipaddress import ip_network
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from proxy.core.errors import SettingsInvalid, reason
from proxy.core.model import without_credentials
from proxy.settings.values import (
    AbsolutePath,
    Address,
    AddressOrNone,
    Identity,
    Network,
    NetworkOrAll,
    Origin,
    PathPrefix,
    PlatformName,
    RedisAddress,
    Section,
    WebAddress,
)

_THIS_HOST = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class HttpSection(Section):
    """Where clients connect."""

    addr: Address = "127.0.0.1:8080"
    certificate: AbsolutePath = ""
    key: AbsolutePath = ""
    trusted_proxies: tuple[Network, ...] = ()
    hosts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    head_bytes: int = Field(default=1 << 20, ge=1024)
    head_seconds: float = Field(default=30, gt=0)
    body_seconds: float = Field(default=300, gt=0)
    idle_seconds: float = Field(default=75, gt=0)
    connections: int = Field(default=0, ge=0)
    connections_of_one: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> "HttpSection":
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key go together")
        return self


class DataSection(Section):
    """The data folder. Empty: a folder of the user's."""

    dir: str = ""


class StateSection(Section):
    """Where the state is. Empty: a file in the data folder."""

    url: RedisAddress = ""
    lease_seconds: float = Field(default=15, ge=1)


class RegistrySection(Section):
    """The backing registry. Empty: the stock program runs as a child. No message and no repr shows the password."""

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
    def _check(self) -> "RegistrySection":
        password = self.password.get_secret_value()
        login = (
            self.username,
            password,
            self.password_file,
            self.ca,
            self.client_certificate,
            self.client_key,
        )
        if not self.url and any(login):
            raise ValueError("credentials and certificates need a url")
        if ":" in self.username:
            raise ValueError("a username has no colon")
        if password and self.password_file:
            raise ValueError("password and password_file exclude each other")
        if bool(self.username) != bool(password or self.password_file):
            raise ValueError("username and password (or password_file) go together")
        if bool(self.client_certificate) != bool(self.client_key):
            raise ValueError("client_certificate and client_key go together")
        if (self.ca or self.client_certificate) and not self.url.startswith("https://"):
            raise ValueError("ca and client_certificate are for an https url")
        return self

    def secret(self) -> str:
        """The password, from its file if there is one; blocking. Raises `SettingsInvalid`."""
        if not self.password_file:
            return self.password.get_secret_value()
        try:
            return Path(self.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise SettingsInvalid(f"registry.password_file: {self.password_file}: {reason(error)}") from error


class NixSection(Section):
    """How Nix runs; deadlines in seconds."""

    store: str = ""
    substituters: tuple[str, ...] = ()
    public_keys: tuple[str, ...] = ()
    builders: str = ""
    copy_to: str = ""
    fetch: Literal["auto", "store"] = "auto"
    evaluation_deadline: float = Field(default=120, gt=0)
    evaluation_memory: int = Field(default=8 << 30, ge=0)
    evaluations: int = Field(default=0, ge=0)
    log_bytes: int = Field(default=0, ge=0)
    build_deadline: float = Field(default=3600, gt=0)
    most_store_bytes: int = Field(default=0, ge=0)
    keep_free_bytes: int = Field(default=0, ge=0)

    @field_validator("copy_to")
    @classmethod
    def _check_password(cls, url: str) -> str:
        if without_credentials(url) != url and not url.startswith("ssh"):
            raise ValueError(
                "every user of this host could read the user and password in it; put them into Nix's netrc file "
                "(netrc-file in nix.conf)"
            )
        return url


class LayersSection(Section):
    """How store paths become layers."""

    compression: Literal["gzip", "zstd", "none"] = "gzip"
    table: str = ""
    most: int = Field(default=100, ge=2, le=125)
    packers: int = Field(default=0, ge=0)
    uploads: int = Field(default=0, ge=0)


class ImageSection(Section):
    """The kind of manifest that is pushed, and the platforms under one name. No platform: that of the package set."""

    format: Literal["docker", "oci"] = "docker"
    platforms: tuple[PlatformName, ...] = ()
    index: bool = True


class TrustSection(Section):
    """What is attached to images: documents with the URI of this builder, and signatures by a key.

    `identity`: the host in front of the names that are signed.
    """

    attach: bool = True
    builder: WebAddress = ""
    key: AbsolutePath = ""
    identity: Identity = ""


class AnswersSection(Section):
    """How long the registry's answers about manifests stay in a cache, in seconds, and how many bytes of manifests."""

    seconds: float = Field(default=5, ge=0)
    most_bytes: int = Field(default=64 << 20, ge=0)


class AccessSection(Section):
    """Who may start builds, and who may write. An empty list and 0 set no limit; `Settings.push` fills an empty `push`."""

    repositories: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    push: Literal["", "all", "users", "none"] = ""
    builds_per_minute: int = Field(default=60, ge=0)


class BuildsSection(Section):
    """How clients wait for a build (`web.waiting` has the reasons), and how many builds run at once."""

    patience: float = Field(default=5, gt=0)
    hop_seconds: float = Field(default=22, gt=0)
    hops: int = Field(default=9, ge=0, le=9)
    question_agents: tuple[str, ...] = (
        "renovate",
        "oras",
        "go-containerregistry",
        "regclient",
        "containers/",
        "libpod",
    )
    restart_agents: tuple[str, ...] = ("containerd", "buildkit")
    restart_seconds: float = Field(default=25, gt=0)
    hold_seconds: float = Field(default=3600, gt=0)
    failure_seconds: float = Field(default=15, ge=0)
    at_once: int = Field(default=8, ge=1)
    share: int = Field(default=3, ge=1)
    queue: int = Field(default=100, ge=0)
    queue_share: int = Field(default=50, ge=1)
    grace_seconds: float = Field(default=15, ge=0)


class MirrorSection(Section):
    """What clients get that use nixfront as a mirror. Without `addr` these are the clients that send `?ns=`."""

    addr: AddressOrNone = ""
    namespaces: tuple[str, ...] = ("docker.io",)
    allow: tuple[str, ...] = ()
    prefix: PathPrefix = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The repositories that the registry must let clients of the mirror pull; `*` stands for any characters."""
        return (*self.allow, "*") if self.prefix else self.allow


class StatusSection(Section):
    """Where and to whom `/metrics`, `/healthz` and `/readyz` answer. Without `addr` they are at `http.addr`."""

    addr: AddressOrNone = ""
    metrics: bool = True
    networks: tuple[NetworkOrAll, ...] = _THIS_HOST


class PageSection(Section):
    """The page for people at `/`: whether it exists, who may see it, and who may read the logs of builds."""

    enabled: bool = True
    networks: tuple[NetworkOrAll, ...] = _THIS_HOST
    log_networks: tuple[NetworkOrAll, ...] = _THIS_HOST


class TracesSection(Section):
    """Where traces go, by OTLP over HTTP. Empty: nowhere. `sample` is the share of our own traces that is recorded."""

    endpoint: WebAddress = ""
    sample: float = Field(default=1.0, ge=0, le=1)


class LogSection(Section):
    """The log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"
    requests: bool = True
