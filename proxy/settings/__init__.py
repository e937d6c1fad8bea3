"""The configuration: a YAML file, then `NIXFRONT_SECTION_KEY` in the environment, checked as a whole at the start.

Only `cli` and `wiring` use it; everything below gets plain values. Every error names the wrong key by its path.
"""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from proxy.core import platforms
from proxy.core.errors import SettingsInvalid
from proxy.core.model import Policy
from proxy.core.names import Vocabulary
from proxy.settings import problems, sources
from proxy.settings.packages import (
    PRESETS,
    ImagesSection,
    NamesSection,
    PackageSource,
    PackagesSection,
    PolicySection,
    PresetSection,
)
from proxy.settings.sections import (
    AccessSection,
    AnswersSection,
    BuildsSection,
    DataSection,
    HttpSection,
    ImageSection,
    LayersSection,
    LogSection,
    MirrorSection,
    NixSection,
    PageSection,
    RegistrySection,
    StateSection,
    StatusSection,
    TracesSection,
    TrustSection,
)
from proxy.settings.values import Section
from proxy.tools.data_folder import data_folder


class Settings(Section):
    """The whole configuration, and what follows from it."""

    http: HttpSection = HttpSection()
    data: DataSection = DataSection()
    state: StateSection = StateSection()
    registry: RegistrySection = RegistrySection()
    packages: PackagesSection = PackagesSection()
    sets: dict[str, PackageSource] = Field(default_factory=dict)
    names: NamesSection = NamesSection()
    images: ImagesSection = ImagesSection()
    policy: PolicySection = PolicySection()
    nix: NixSection = NixSection()
    layers: LayersSection = LayersSection()
    image: ImageSection = ImageSection()
    trust: TrustSection = TrustSection()
    answers: AnswersSection = AnswersSection()
    access: AccessSection = AccessSection()
    builds: BuildsSection = BuildsSection()
    mirror: MirrorSection = MirrorSection()
    status: StatusSection = StatusSection()
    page: PageSection = PageSection()
    traces: TracesSection = TracesSection()
    log: LogSection = LogSection()

    @model_validator(mode="after")
    def _check_prefix_of_images(self) -> "Settings":
        prefix = self.images.prefix
        if self.images.file and (prefix in self.sets or prefix in self.presets):
            what = "package set" if prefix in self.sets else "meta-package"
            raise ValueError(f"images.prefix: {prefix} is the name of a {what} too")
        return self

    @model_validator(mode="after")
    def _check_type_of_layers(self) -> "Settings":
        if self.layers.compression == "zstd" and self.image.format != "oci":
            raise ValueError("layers.compression zstd needs image.format oci: no Docker type says zstd")
        return self

    @model_validator(mode="after")
    def _check_identity(self) -> "Settings":
        if self.trust.key and not self.identity:
            raise ValueError(
                "trust.identity: say by which name clients call this host, for example images.example.org: signatures hold it"
            )
        return self

    @property
    def identity(self) -> str:
        """What stands before a repository in signatures; empty where nobody can know it."""
        host = self.http.addr.rpartition(":")[0]
        here = self.http.addr if host in ("127.0.0.1", "[::1]", "localhost") else ""
        return self.trust.identity or next(iter(self.http.names), here)

    @property
    def data_dir(self) -> Path:
        """The data folder, absolute."""
        return data_folder(self.data.dir)

    @property
    def state_file(self) -> Path:
        """The file of the state. `state.url` replaces it by a Redis."""
        return self.data_dir / "state.sqlite"

    @property
    def nix_store(self) -> str:
        """The absolute folder of our own Nix store; empty for the system's store."""
        return str(Path(self.nix.store).expanduser().absolute()) if self.nix.store else ""

    @property
    def packers(self) -> int:
        """The number of threads that pack layers; by default one for each processor that this process may use."""
        return self.layers.packers or _processors()

    @property
    def uploads(self) -> int:
        """How many layers are uploaded at once; by default two for each processor, and at least four.

        That is more than `packers`, because a registry needs some time to put a blob in its place.
        """
        return self.layers.uploads or max(4, 2 * _processors())

    @property
    def system(self) -> str:
        """The Nix system of images, such as `x86_64-linux`."""
        return self.packages.system or f"{platform.machine()}-linux"

    @property
    def systems(self) -> tuple[str, ...]:
        """The Nix systems of the platforms under one name, each once, in the operator's order."""
        wanted = [platforms.system_of(name) for name in self.image.platforms]
        return tuple(dict.fromkeys(wanted)) or (self.system,)

    @property
    def push(self) -> Literal["all", "users", "none"]:
        """Who may write through nixfront. A registry of the operator's decides itself; the embedded one asks for no login."""
        return self.access.push or ("all" if self.registry.url else "users")

    @property
    def own_hosts(self) -> frozenset[str]:
        """The hosts that stand in front of our images' names: what people paste from an engine. `*` matches nothing here."""
        return frozenset((*self.http.names, *self.http.hosts, self.http.addr, platform.node()))

    @property
    def package_sources(self) -> dict[str, PackageSource]:
        """Every package set by its name, with its addresses. The default set has the empty name."""
        return {name: source.with_addresses() for name, source in {"": self.packages, **self.sets}.items()}

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
            default_set=self.packages.kind,
            images=self.images.prefix,
            has_images=bool(self.images.file),
            most_packages=self.policy.most_packages,
        )

    @property
    def presets(self) -> dict[str, PresetSection]:
        """The meta-packages by name. The operator's replace ours of the same name."""
        return {**PRESETS, **self.names.presets}


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def load(file: Path | None, environment: Mapping[str, str], **overrides: Any) -> Settings:
    """The settings of a file, an environment and `overrides` (`packages={"kind": "demo"}`). The last one wins.

    Raises `SettingsInvalid`, which names every wrong key.
    """
    tree = sources.read_file(file) if file is not None else {}
    for name, value in sorted(environment.items()):
        if name.startswith(sources.PREFIX):
            sources.set_variable(tree, Settings, name, value)
    for section, values in overrides.items():
        sources.set_keys(tree, section, values)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsInvalid(*problems.in_words(error, Settings)) from error
