"""Settings as they are written, in a file and in the environment, before anything but their keys is checked.

The configuration: a YAML file, then `NIXFRONT_SECTION_KEY` in the environment, checked as a whole at the start.

Only `cli` and `app` see it; everything below gets plain values. An unknown key or a wrong type is refused with the
key's path, in the file and in the environment alike.
"""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator

from proxy.core.errors import SettingsInvalid
from proxy.core.model import Policy
from proxy.core.names import Vocabulary
from proxy.settings.sections import (
    _CHANNEL,
    _CHANNEL_COMMIT,
    _NIXPKGS,
    _PRESETS,
    AccessSection,
    AnswersSection,
    Builds,
    Data,
    Http,
    Images,
    ImageSection,
    Layers,
    Log,
    MirrorSection,
    NamesSection,
    NixSection,
    Packages,
    PackageSource,
    PageSection,
    PolicySection,
    PresetSection,
    RegistrySection,
    Section,
    StateSection,
    StatusSection,
    TracesSection,
    _processors,
)

#: What a variable that is a setting begins with.
PREFIX = "NIXFRONT_"


def read(file: Path) -> dict[str, Any]:
    """The sections of a file. Raises `SettingsInvalid`."""
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # YAML makes dates, and 2026-99-31 is none
        raise SettingsInvalid(f"cannot read {file}: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsInvalid(f"{file}: the settings are sections with keys, not a {type(tree).__name__}")
    return {section: _tuples(values) for section, values in tree.items()}


def put(tree: dict[str, Any], sections: type[BaseModel], variable: str, value: str) -> None:
    """Put the value of `NIXFRONT_SECTION_KEY` in its place in `sections`; it is read as YAML where the key is no string.

    Raises `SettingsInvalid` where there is no such key.
    """
    section, _, key = variable.removeprefix(PREFIX).lower().partition("_")
    field = sections.model_fields.get(section)
    model = field.annotation if field is not None else None
    known = model.model_fields.get(key) if isinstance(model, type) and issubclass(model, BaseModel) else None
    if known is None:
        raise SettingsInvalid(f"{variable} names no setting ({section}.{key or '?'})")
    textual = isinstance(known.default, (str, SecretStr))
    try:
        lay_over(tree, section, {key: value if textual else _tuples(yaml.safe_load(value))})
    except (ValueError, yaml.YAMLError) as error:
        raise SettingsInvalid(f"{section}.{key}: cannot read the value of {variable}: {error}") from error


def lay_over(tree: dict[str, Any], section: str, values: Mapping[str, Any]) -> None:
    """Set keys of a section; one that is no section at all is left for the check to complain about."""
    present = tree.get(section) or {}
    if isinstance(present, dict):
        tree[section] = {**present, **values}


def _tuples(values: Any) -> Any:
    """Lists as tuples at every level, an empty section as one without keys: what the strict models take."""
    if values is None:
        return {}
    if isinstance(values, dict):
        return {key: value if value is None else _tuples(value) for key, value in values.items()}
    return tuple(values) if isinstance(values, list) else values


class Settings(Section):
    """The whole configuration."""

    http: Http = Http()
    data: Data = Data()
    state: StateSection = StateSection()
    registry: RegistrySection = RegistrySection()
    packages: Packages = Packages()
    sets: dict[str, PackageSource] = Field(default_factory=dict)
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
    def state_file(self) -> Path:
        """Where the state is, unless `state.url` names a Redis."""
        return self.data_dir / "state.sqlite"

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
    def package_policy(self) -> Policy:
        """Which packages may be served."""
        return Policy(**self.policy.model_dump(exclude={"most_packages"}))

    @property
    def vocabulary(self) -> Vocabulary:
        """What the names in a repository path may mean."""
        return Vocabulary(
            presets={name: preset.value for name, preset in self.presets.items()},
            aliases=self.names.aliases,
            package_sets=frozenset(self.sets),
            images=self.images.prefix if self.images.file else "",
            most_packages=self.policy.most_packages,
        )

    @property
    def presets(self) -> dict[str, PresetSection]:
        """The meta-packages by name: ours, and the operator's over them."""
        return {**_PRESETS, **self.names.presets}


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
    tree = read(file) if file is not None else {}
    for name, value in sorted(environment.items()):
        if name.startswith(PREFIX):
            put(tree, Settings, name, value)
    for section, values in overrides.items():
        lay_over(tree, section, values)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}" for item in error.errors()
        ]
        raise SettingsInvalid("; ".join(problems)) from error
