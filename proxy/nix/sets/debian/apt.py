"""Debian's archive through apt's own tools: package lists that its keys have signed, and files by their hash.

Only this file uses apt's options. apt gets a state, a cache and a configuration of its own below one folder. So it works
for any user, needs no lists on the host, runs none of the host's hooks, and changes nothing else. It takes two things from the
host's configuration: where Debian's archive is, and how to get there (`Acquire`: proxies, retries).
"""

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from debian.deb822 import Deb822, Release

from proxy.core.errors import PackageSetUnavailable, ProcessFailed
from proxy.tools.process import run

RELEASE = "bookworm"
#: Debian's name of each Nix system that the package set can be for.
ARCHITECTURES = {"x86_64-linux": "amd64", "aarch64-linux": "arm64"}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_HELPER = "/usr/lib/apt/apt-helper"  # not on PATH; apt always installs it here

# How a host may name the release and its updates. "stable" may also be another release: see `_indexes`.
_SUITES = frozenset(
    name + part for name in (RELEASE, "stable", "oldstable") for part in ("", "-updates", "-security")
)
_REMEDY = f"set the URL of an archive that has Debian 12 ({RELEASE}) in the settings"
_NOT_INHERITED = ("IndexTargets", "GzipIndexes", "CompressionTypes", "Languages")
_SIGNED_BY = re.compile(r"signed-by\s*[:=]\s*([^\s\]]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Index:
    """One list of packages: a file, uncompressed, and the URL that the file names in it are relative to."""

    path: Path
    repository: str


@dataclass(frozen=True, slots=True)
class Archive:
    """The result of an update.

    `created` is the date in the release's own Release file, RFC 3339. It changes with a point release alone: the dates
    of the updates and security suites change daily, and hosts would disagree on them for the same packages.
    """

    indexes: tuple[Index, ...]
    created: str


@dataclass(frozen=True, slots=True)
class Source:
    """A suite of an archive, component `main`. `entry` is `file:number`, where the host's configuration names it."""

    repository: str
    suite: str
    entry: str = ""


async def update(folder: Path, archive: str | None, system: str, deadline: float) -> Archive:
    """Fetch the lists of `archive`, or of what the host's configuration says, into `folder`.

    `system` is any of `ARCHITECTURES`; the host's own dpkg need not have its architecture. Raises `PackageSetUnavailable`.
    """
    if not await asyncio.to_thread(KEYRING.is_file):
        raise PackageSetUnavailable(
            f"{KEYRING} is missing: it proves that a package list is Debian's; install debian-archive-keyring"
        )
    dump = await _apt("apt-config", "dump", deadline=deadline)
    sources = [Source(archive.rstrip("/") + "/", RELEASE)] if archive else await _host_sources(deadline)
    environment = await asyncio.to_thread(_configure, folder, dump, sources, system)

    await _apt("apt-get", "update", "-o", "APT::Update::Error-Mode=any", env=environment, deadline=deadline)
    shape = "$(FILENAME)|$(REPO_URI)|$(COMPONENT)|$(ORIGIN)|$(CODENAME)"
    targets = await _apt(
        "apt-get",
        "indextargets",
        "--format",
        shape,
        "Identifier: Packages",
        env=environment,
        deadline=deadline,
    )
    return await asyncio.to_thread(_indexes, targets.splitlines(), system)


async def download(
    folder: Path, files: Sequence[tuple[str, str, Path]], system: str, deadline: float
) -> None:
    """Fetch files, each a tuple (URL, SHA-256 in hex, path to write to); apt checks the hash.

    Raises `PackageSetUnavailable`.
    """
    dump = await _apt("apt-config", "dump", deadline=deadline)
    environment = await asyncio.to_thread(_configure, folder, dump, (), system)
    words = [word for url, sha256, path in files for word in (url, str(path), f"SHA256:{sha256}")]
    await _apt(_HELPER, "download-file", *words, env=environment, deadline=deadline)


async def _host_sources(deadline: float) -> list[Source]:
    """Debian's own suites among what the host's configuration lists, as apt reads it."""
    shape = "$(COMPONENT)|$(RELEASE)|$(REPO_URI)|$(SOURCESENTRY)"
    listed = await _apt(
        "apt-get", "indextargets", "--no-release-info", "--format", shape, "Identifier: Packages",
        deadline=deadline,
    )  # fmt: skip
    fields = [line.split("|") for line in dict.fromkeys(listed.splitlines())]
    sources = {
        Source(repository, suite, entry)
        for component, suite, repository, entry in fields
        if component == "main" and suite in _SUITES
    }
    ours = await asyncio.to_thread(lambda: [source for source in sources if signed_by_debian(source.entry)])
    if not ours:
        offered = (
            ", ".join(sorted({f"{suite} of {repository}" for _, suite, repository, _ in fields})) or "nothing"
        )
        raise PackageSetUnavailable(
            f"apt's configuration on this host offers {offered}, but not Debian 12 ({RELEASE}): {_REMEDY}"
        )
    return sorted(ours, key=lambda source: (source.repository, source.suite))


def signed_by_debian(entry: str) -> bool:
    """Whether a line (or stanza, in a `.sources` file) of apt's configuration leaves the key open or names Debian's.

    Others offer suites of the same name: each of them has its own key.
    """
    name, _, number = entry.rpartition(":")
    text = Path(name).read_text(errors="replace")
    if name.endswith(".sources"):
        stanzas = [str(stanza) for stanza in Deb822.iter_paragraphs(text, use_apt_pkg=False)]
    else:
        stanzas = text.splitlines()
    keys = _SIGNED_BY.search(stanzas[int(number) - 1])
    return keys is None or Path(keys[1]).name.startswith("debian-archive-")


def _configure(folder: Path, dump: str, sources: Sequence[Source], system: str) -> dict[str, str]:
    """Write apt's private configuration; returns the environment in which apt reads it instead of the host's."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    inherited = [
        line
        for line in dump.splitlines()
        if line.startswith("Acquire::")
        and not line.startswith(tuple(f"Acquire::{key}" for key in _NOT_INHERITED))
    ]
    own = {
        "APT::Architecture": ARCHITECTURES[system],
        "APT::Architectures": ARCHITECTURES[system],
        "Acquire::AllowInsecureRepositories": "false",  # even where the host allows it
        "Acquire::AllowDowngradeToInsecureRepositories": "false",
        "Acquire::GzipIndexes": "false",
        "Acquire::Languages": "none",
        "Dir::State": folder / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
    }
    configuration = folder / "apt.conf"
    configuration.write_text(
        "\n".join([*inherited, *(f'{key} "{value}";' for key, value in own.items()), ""])
    )
    if sources:
        lines = [f"deb [signed-by={KEYRING}] {source.repository} {source.suite} main\n" for source in sources]
        (folder / "sources.list").write_text("".join(lines))
    return {"APT_CONFIG": str(configuration)}


def _indexes(targets: Sequence[str], system: str) -> Archive:
    """The lists of the release among those fetched, and the release's date."""
    fields = [line.split("|") for line in targets]
    ours = [
        (Path(path), repository, component, codename)
        for path, repository, component, origin, codename in fields
        if origin == "Debian" and codename in (RELEASE, f"{RELEASE}-updates", f"{RELEASE}-security")
    ]
    base = next((path for path, _, _, codename in ours if codename == RELEASE), None)
    if base is None:
        offered = (
            ", ".join(sorted({f"{origin} {codename}" for _, _, _, origin, codename in fields})) or "nothing"
        )
        raise PackageSetUnavailable(f"the archive offers {offered}, but not Debian 12 ({RELEASE}): {_REMEDY}")
    for _, repository, _, _ in ours:
        if not repository.startswith(("http://", "https://", "file:/")):
            raise PackageSetUnavailable(f"Nix cannot fetch from {repository}: {_REMEDY}")
    stem = str(base).removesuffix(f"_main_binary-{ARCHITECTURES[system]}_Packages")
    release = next(path for end in ("_InRelease", "_Release") if (path := Path(stem + end)).exists())
    _, signed, _ = Deb822.split_gpg_and_payload(iter(release.read_bytes().splitlines()))
    date = parsedate_to_datetime(Release(signed)["Date"])
    return Archive(
        indexes=tuple(
            Index(path, repository.rstrip("/")) for path, repository, _, _ in ours if path.exists()
        ),
        created=date.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


async def _apt(*argv: str, env: dict[str, str] | None = None, deadline: float) -> str:
    """What one of apt's tools prints. Raises `PackageSetUnavailable`."""
    try:
        output = await run(argv, env={**os.environ, "LC_ALL": "C", **(env or {})}, deadline=deadline)
    except ProcessFailed as error:
        step = " ".join(argv[:2])
        if error.returncode is None:
            raise PackageSetUnavailable(
                f"{argv[0]} is missing: the Debian package set is resolved by apt's own tools; install apt, "
                "or choose another package set"
            ) from error
        last = "\n".join(error.tail[-6:]) or str(error)
        raise PackageSetUnavailable(
            f"{step} failed; if the archive is the wrong one, {_REMEDY}:\n{last}"
        ) from error
    return output.decode(errors="replace")
