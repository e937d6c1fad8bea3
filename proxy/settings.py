"""The configuration: a YAML file, then `NIXFRONT_SECTION_KEY` in the environment, checked as a whole at the start.

Only `cli` and `app` see it; everything below gets plain values. An unknown key or a wrong type is refused with the
key's path, in the file and in the environment alike.
"""

import os
import platform
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from proxy.errors import SettingsInvalid

_PREFIX = "NIXFRONT_"
_NIXPKGS = "https://channels.nixos.org/{ref}/nixexprs.tar.xz"


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 65536):
        raise ValueError("an address is HOST:PORT, for example 127.0.0.1:8080")
    return value


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if value and not (parts.scheme in ("http", "https") and parts.netloc and parts.path in ("", "/")):
        raise ValueError(
            "a registry is named by scheme, host and port alone, for example http://127.0.0.1:5000"
        )
    return value.rstrip("/")


def _date(value: str) -> str:
    if value:
        datetime.strptime(value, "%Y-%m-%dT%H:%M:%S%z")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Http(_Section):
    """Where clients connect."""

    addr: Annotated[str, AfterValidator(_address)] = "127.0.0.1:8080"


class Data(_Section):
    """Where nixfront keeps what it knows; empty: a folder of the user's."""

    dir: str = ""


class RegistrySection(_Section):
    """The backing registry; empty: the stock program as a child."""

    url: Annotated[str, AfterValidator(_origin)] = ""


class Packages(_Section):
    """Where packages come from."""

    kind: Literal["nixpkgs", "tarball", "git", "path", "demo"] = "nixpkgs"
    url: str = ""
    ref: str = "nixpkgs-unstable"
    revision: str = ""
    path: str = ""
    date: Annotated[str, AfterValidator(_date)] = ""
    archive: str = ""
    system: str = ""
    always: tuple[str, ...] = ("cacert", "iana-etc")

    @model_validator(mode="after")
    def _complete(self) -> "Packages":
        if self.kind in ("tarball", "git") and not self.url:
            raise ValueError(f"kind {self.kind} needs a url")
        if self.kind == "path" and not self.path:
            raise ValueError("kind path needs a path")
        return self


class NixSection(_Section):
    """How Nix is used; deadlines in seconds."""

    store: str = ""
    evaluation_deadline: float = Field(default=120, gt=0)
    build_deadline: float = Field(default=3600, gt=0)


class Layers(_Section):
    """How store paths become layers."""

    compression: Literal["gzip", "none"] = "gzip"
    most: int = Field(default=100, ge=2, le=125)
    concurrency: int = Field(default=4, ge=1)


class ImageSection(_Section):
    """What kind of manifest is pushed."""

    format: Literal["docker", "oci"] = "docker"


class Builds(_Section):
    """How long a failure is remembered, in seconds."""

    failure_seconds: float = Field(default=15, ge=0)


class Log(_Section):
    """What is written on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(_Section):
    """The whole configuration."""

    http: Http = Http()
    data: Data = Data()
    registry: RegistrySection = RegistrySection()
    packages: Packages = Packages()
    nix: NixSection = NixSection()
    layers: Layers = Layers()
    image: ImageSection = ImageSection()
    builds: Builds = Builds()
    log: Log = Log()

    @property
    def data_dir(self) -> Path:
        """The data folder, absolute."""
        if self.data.dir:
            return Path(self.data.dir).expanduser().absolute()
        if os.geteuid() == 0:
            return Path("/var/lib/nixfront")
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(state).expanduser() / "nixfront"

    @property
    def nix_store(self) -> str:
        """The folder of a Nix store of its own, absolute, or empty for the system's store."""
        return str(Path(self.nix.store).expanduser().absolute()) if self.nix.store else ""

    @property
    def system(self) -> str:
        """The Nix system that images are made for."""
        return self.packages.system or f"{platform.machine()}-linux"

    @property
    def source_url(self) -> str:
        """Where the package set comes from, with `{ref}` and `{revision}` still in it."""
        return self.packages.url or (_NIXPKGS if self.packages.kind == "nixpkgs" else "")


def load(file: Path | None, environment: Mapping[str, str], **overrides: Any) -> Settings:
    """The settings of this file, this environment and `overrides` (`packages={"kind": "demo"}`), later ones first.

    Raises `SettingsInvalid`, with every wrong key.
    """
    tree = _read(file) if file is not None else {}
    for name, value in sorted(environment.items()):
        if name.startswith(_PREFIX):
            _set(tree, name, value)
    for section, values in overrides.items():
        tree[section] = {**(tree.get(section) or {}), **values}
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}" for item in error.errors()
        ]
        raise SettingsInvalid("; ".join(problems)) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise SettingsInvalid(f"cannot read {file}: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsInvalid(f"{file}: the settings are sections with keys, not a {type(tree).__name__}")
    return {section: _tuples(values) for section, values in tree.items()}


def _set(tree: dict[str, Any], variable: str, value: str) -> None:
    """Put the value of `NIXFRONT_SECTION_KEY` in its place; it is read as YAML where the key is no string."""
    section, _, key = variable.removeprefix(_PREFIX).lower().partition("_")
    field = Settings.model_fields.get(section)
    model = field.annotation if field is not None else None
    known = model.model_fields.get(key) if isinstance(model, type) and issubclass(model, BaseModel) else None
    if known is None:
        raise SettingsInvalid(f"{variable} names no setting ({section}.{key or '?'})")
    textual = isinstance(known.default, str)
    values = tree.get(section)
    tree[section] = {
        **(values if isinstance(values, dict) else {}),
        key: value if textual else _tuple(yaml.safe_load(value)),
    }


def _tuples(values: Any) -> Any:
    """Lists as tuples, and an empty section as one without keys: what the strict models take."""
    if values is None:
        return {}
    return {key: _tuple(value) for key, value in values.items()} if isinstance(values, dict) else values


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
