"""Platforms as engines write them (`linux/arm64`), and the systems of Nix that make them (`aarch64-linux`). No IO.

image-spec writes Go's names of operating systems and processors (`GOOS`, `GOARCH`), and the variants of a processor.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: The annotation of an index of ours that says, for each platform that it lacks, why.
MISSING = "nixfront.missing"
# By the processor of a Nix system.
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "riscv64": ("riscv64", ""),
    "powerpc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
}
# The variant that engines assume where a platform names none.
_USUAL = {"arm64": "v8", "arm": "v7"}


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform in the words of image-spec. Its name leaves out a variant that engines assume."""

    os: str
    architecture: str
    variant: str = ""

    @property
    def name(self) -> str:
        """As a person writes it for `--platform`."""
        parts = [self.os, self.architecture]
        return "/".join(
            parts if self.variant in ("", _USUAL.get(self.architecture)) else [*parts, self.variant]
        )

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a descriptor or a configuration that say so."""
        fields = {"architecture": self.architecture, "os": self.os}
        return {**fields, "variant": self.variant} if self.variant else fields


def of_system(system: str) -> Platform:
    """The platform of what a Nix system such as `x86_64-linux` makes."""
    processor, _, name = system.partition("-")
    return Platform(name or "linux", *_ARCHITECTURES.get(processor, (processor, "")))


def system_of(text: str) -> str:
    """The Nix system that makes a platform: `linux/arm64` or `linux/arm/v7`. Raises `ValueError` for any other text."""
    name, _, rest = text.partition("/")
    architecture, _, variant = rest.partition("/")
    wanted = (architecture, variant or _USUAL.get(architecture, ""))
    for processor, parts in _ARCHITECTURES.items():
        if name == "linux" and parts == wanted:
            return f"{processor}-linux"
    names = ", ".join(of_system(f"{processor}-linux").name for processor in _ARCHITECTURES)
    raise ValueError(f"{text!r} is no platform; there are {names}")


def name_of(text: str) -> str:
    """A platform as nixfront writes it: `linux/arm64` for `linux/arm64/v8`. Raises `ValueError` for any other text."""
    return of_system(system_of(text)).name


def joint_message(messages: Mapping[str, str]) -> str:
    """One message of what each platform says, in their order."""
    return "; ".join(f"for {platform}: {message}" for platform, message in messages.items())


def client_first(message: str, architecture: str) -> str:
    """A joint message with the part of this architecture (`arm64`) in front; any other text stays as it is."""
    parts = _PART.split(message)
    if len(parts) < 5:
        return message
    start, platforms, messages = parts[0], parts[1::2], parts[2::2]
    pairs = sorted(
        zip(platforms, messages, strict=True), key=lambda pair: pair[0].split("/")[1] != architecture
    )
    return start + joint_message({platform: text.removesuffix("; ") for platform, text in pairs})


_PART = re.compile(r"for (linux/[a-z0-9/]+): ")
