"""A package set of the size of nixpkgs: a hundred thousand names, most of them in sets, and the list that a channel publishes.

The same count gives the same names. Few of them are real: those that the tests look for.
"""

import json

import brotli

#: Names, versions, descriptions, licences and programs that are in every list.
REAL = {
    "hello": ("2.12.2", "Program that produces a familiar, friendly greeting", "GPL-3.0-or-later", "hello"),
    "git": ("2.51.0", "Distributed version control system", "GPL-2.0-only", "git"),
    "gitFull": ("2.51.0", "Distributed version control system", "GPL-2.0-only", "git"),
    "ripgrep": (
        "14.1.1",
        "Utility that combines the usability of The Silver Searcher with grep",
        "MIT",
        "rg",
    ),
    "mongosh": ("2.5.6", "MongoDB Shell", "Apache-2.0", "mongosh"),
    "python313Packages.numpy": ("2.3.2", "Scientific tools for Python", "BSD-3-Clause", ""),
    "xorg.xeyes": ("1.3.1", "Eyes that follow the pointer", "MIT", "xeyes"),
}
_PREFIXES = (
    *[""] * 5,
    *["haskellPackages."] * 4,
    *["python313Packages.", "python312Packages."] * 2,
    *["rPackages."] * 5,
    *["perlPackages.", "xorg."],
)
_ENDINGS = ("", "", "", "", "-cli", "lib", "2", "Full", "_3", "", "", "-tools")
_SYLLABLES = [consonant + vowel for consonant in "bcdfgklmnprstvxz" for vowel in "aeio"]
_WORDS = (
    "a",
    "archive",
    "audio",
    "client",
    "compiler",
    "data",
    "editor",
    "fast",
    "file",
    "for",
    "image",
    "library",
    "parser",
    "server",
    "terminal",
    "viewer",
)
_PLATFORMS = json.dumps(
    [f"{cpu}-linux" for cpu in ("aarch64", "armv6l", "armv7l", "i686", "riscv64", "x86_64")]
)
_LICENSES = ("MIT", "GPL-3.0-or-later", "Apache-2.0", "BSD-3-Clause", "ISC", "MPL-2.0")


def names(count: int = 100_000) -> list[str]:
    """So many attribute names, sorted: those of `REAL`, and names in the sets of nixpkgs."""
    made = set(REAL)
    number = 0
    while len(made) < count:
        number += 1
        mixed = number * 2654435761 % (1 << 32)
        made.add(_PREFIXES[mixed % len(_PREFIXES)] + _word(mixed) + _ENDINGS[mixed % len(_ENDINGS)])
    return sorted(made)


def channel_list(listed: list[str]) -> bytes:
    """What a channel publishes about these packages, as long as the real thing is for each: `packages.json.br`."""
    # Quality 1 takes a second where the 9 of nixpkgs takes minutes.
    packages = ",".join(_package(number, name) for number, name in enumerate(listed))
    packed: bytes = brotli.compress(f'{{"packages":{{{packages}}},"version":"2"}}'.encode(), quality=1)
    return packed


def facts(number: int, name: str) -> tuple[str, str, str, str]:
    """Version, description, licence and main program of the package of this number."""
    if name in REAL:
        return REAL[name]
    mixed = number * 2654435761 % (1 << 32)
    words = [_WORDS[(mixed >> shift) % len(_WORDS)] for shift in range(0, 24, 4)]
    program = name if "." not in name and number % 5 < 2 else ""
    version = f"{mixed % 10}.{mixed % 31}.{mixed % 7}"
    return version, " ".join(words).capitalize(), _LICENSES[mixed % len(_LICENSES)], program


def _word(number: int) -> str:
    """A name that can be spoken, of two to five syllables."""
    word = ""
    while number > 0:
        number, syllable = divmod(number, len(_SYLLABLES))
        word += _SYLLABLES[syllable]
    return word[: 4 + len(word) % 7]


def _package(number: int, name: str) -> str:
    version, description, license_name, program = facts(number, name)
    word = name.rpartition(".")[2]
    main_program = f'"mainProgram":{json.dumps(program)},' if program else ""
    return (
        f'{json.dumps(name)}:{{"meta":{{"available":true,"broken":false,"description":{json.dumps(description)},'
        f'"homepage":"https://{word}.example.org/","insecure":false,"license":{{"deprecated":false,"free":true,'
        f'"fullName":"The {license_name} licence","redistributable":true,"shortName":"{license_name.lower()}",'
        f'"spdxId":"{license_name}","url":"https://spdx.org/licenses/{license_name}.html"}},{main_program}'
        f'"maintainers":[{{"email":"{word}@example.org","github":"{word}","githubId":{number},"name":"{word}"}}],'
        f'"name":"{word}-{version}","outputsToInstall":["out"],"platforms":{_PLATFORMS},'
        f'"position":"pkgs/by-name/{word[:2]}/{word}/package.nix:{number % 90}","unfree":false,"unsupported":false}},'
        f'"name":"{word}-{version}","outputName":"out","outputs":{{"out":null}},"pname":"{word}",'
        f'"system":"x86_64-linux","version":"{version}"}}'
    )
