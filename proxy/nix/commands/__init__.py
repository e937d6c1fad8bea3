"""The command lines of Nix, and its environment, as values; nothing runs here.

What a client typed reaches Nix as JSON in one argument, never as source text. In Nix 2.8 `--eval` writes no .drv without
`--read-write-mode`. A bare .drv realises every output, `drv!out` only `out`. `path-info` needs the feature `nix-command`.
"""

import grp
import os
import pwd
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.core.model import Package, canonical_json

# A program of util-linux: an evaluation that eats memory ends, before the host runs out of it.
_PRLIMIT = shutil.which("prlimit")
# What Nix needs of our environment while builders run. A builder whose output has a hash may read each variable of Nix
# (impureEnvVars), so there must be no secret among them.
_FOR_BUILDERS = re.compile(
    r"PATH|HOME|USER|LOGNAME|TMPDIR|TZ|LANG|LC_\w+|LOCALE_ARCHIVE|LD_LIBRARY_PATH|XDG_\w+|NIX_\w+|SSH_AUTH_SOCK"
    r"|SSL_CERT_\w+|CURL_CA_BUNDLE|\w+_(?:proxy|PROXY)"
)
_FOR_S3 = re.compile(r"AWS_\w+")
_TOKENS = re.compile(r"\s*(?:extra-)?access-tokens\b")
_NOT_STARTED = (126, 127)  # the exit codes of prlimit when it cannot start the program
# In the arguments: a Python, its program, the file of names, and store paths. A stream that ends too early is an error of the last program.
_RENAME = (
    "python=$1 program=$2 names=$3; shift 3; "
    'nix-store --export "$@" | "$python" -I "$program" "$names" | nix-store --import'
)
#: Answer questions about the store (`nix.hold`).
HOLD = ("nix-store", "--serve", "--write")
_INSTANTIATE = ("nix-instantiate", "--eval", "--strict", "--json", "--read-write-mode")


@dataclass(frozen=True, slots=True)
class Caches:
    """Where else store paths come from, in Nix's own words: binary caches, the keys that sign there, and remote builders."""

    substituters: tuple[str, ...] = ()
    public_keys: tuple[str, ...] = ()
    builders: str = ""


NO_CACHES = Caches()


def evaluate_argv(
    entry: Path,
    request: Mapping[str, Any],
    readable: Sequence[str],
    *,
    may_build: bool = False,
    memory: int = 0,
) -> tuple[str, ...]:
    """Evaluate one of our expressions on a request: prints its result (shape: its head comment).

    The evaluation is restricted: it reads only our expressions and the `readable` paths, and fetches nothing. It builds only
    if it `may_build` (import from derivation). `memory`: bytes of address space, 0 for no limit.
    """
    bounded = (_PRLIMIT, f"--as={memory}") if _PRLIMIT and memory else ()
    building = ("--option", "allow-import-from-derivation", str(may_build).lower())
    # Flakes bring builtins that copy any folder of the host into the store (fetchTree, getFlake), whatever is restricted.
    bounds = {"restrict-eval": "true", "allowed-uris": "", "experimental-features": ""}
    restricted = (*(word for pair in bounds.items() for word in ("--option", *pair)), *building)
    search = tuple(word for path in (str(entry.parent), *readable) for word in ("-I", path))
    argument = ("--argstr", "request", canonical_json(request).decode())
    return (*bounded, *_INSTANTIATE, *restricted, *search, str(entry), *argument)


def fetch_argv(entry: Path, source: Mapping[str, Any], prefix: str) -> tuple[str, ...]:
    """Fetch the source of a package set (shape: `nix/source.nix`)."""
    arguments = ("--argstr", "source", canonical_json(source).decode(), "--argstr", "prefix", prefix)
    return (*_INSTANTIATE, str(entry), *arguments)


def flake_argv(verb: str, reference: str) -> tuple[str, ...]:
    """`archive`: fetch a flake and its inputs; `metadata`: describe it. Nix refuses a flake without a whole lock file."""
    return ("nix", "flake", verb, "--json", "--no-update-lock-file", reference)


def realise_argv(packages: Iterable[Package], root: Path, beside: Iterable[str] = ()) -> tuple[str, ...]:
    """Build or fetch the outputs of the packages, and what is `beside` them, and root all at `root`, `root-2`, ..."""
    wanted = dict.fromkeys((*(_installable(package) for package in packages), *beside))
    return ("nix-store", "--realise", *wanted, "--add-root", str(root), "--indirect")


def plan_argv(packages: Iterable[Package]) -> tuple[str, ...]:
    """Print what Nix would build and fetch for the packages, and do neither."""
    return (*realise_argv(packages, Path())[:-3], "--dry-run")


def build_argv(entry: Path, request: Path, root: Path) -> tuple[str, ...]:
    """Build the root tree of a named image (shape: `nix/root.nix`) and root it at `root`; prints its path."""
    return ("nix-build", str(entry), "--argstr", "request", str(request), "--out-link", str(root))


def path_info_argv(paths: Iterable[str]) -> tuple[str, ...]:
    """Sizes and references of the closure of these store paths."""
    return ("nix", "path-info", "--json", "--recursive", *dict.fromkeys(paths))


def all_paths_argv() -> tuple[str, ...]:
    """Sizes and times of registration of all valid store paths."""
    return ("nix", "path-info", "--json", "--all")


def sizes_argv() -> tuple[str, ...]:
    """A line for each valid store path, which ends in its size."""
    return ("nix", "path-info", "--all", "--size")


def dead_paths_argv() -> tuple[str, ...]:
    """Print the store paths that no root and no process holds."""
    return ("nix-store", "--gc", "--print-dead")


def delete_argv(paths: Iterable[str]) -> tuple[str, ...]:
    """Delete these store paths, and those that refer to them, unless something holds them."""
    return ("nix-store", "--delete", *paths)


def keep_argv(paths: Iterable[str], root: Path) -> tuple[str, ...]:
    """Root these store paths, which are valid, at `root`, `root-2`, ...; of a derivation all outputs, which Nix builds."""
    return ("nix-store", "--realise", *paths, "--add-root", str(root), "--indirect")


def invalid_argv(paths: Iterable[str]) -> tuple[str, ...]:
    """Print those of these store paths that are not in the store."""
    return ("nix-store", "--check-validity", "--print-invalid", *dict.fromkeys(paths))


def requisites_argv(paths: Iterable[str]) -> tuple[str, ...]:
    """Print the closure of these store paths."""
    return ("nix-store", "--query", "--requisites", *dict.fromkeys(paths))


def rename_argv(program: Sequence[str], names: Path, paths: Iterable[str]) -> tuple[str, ...]:
    """Put these store paths into the store once more, with the hashes that the file `names` has for theirs.

    `program`: a Python, and the file `stand_ins.renaming`.
    """
    return ("/bin/sh", "-euc", _RENAME, "nix-store", *program, str(names), *paths)


def copy_argv(paths: Iterable[str], cache: str) -> tuple[str, ...]:
    """Copy these store paths, and all that they need, to a binary cache."""
    return ("nix", "copy", "--to", cache, *paths)


def kind_of_run(argv: Sequence[str]) -> str:
    """The program of a command line, and its verb where it has several: `nix-store --realise`."""
    if _RENAME in argv:
        return "nix-store --import"
    words = [word for word in argv if not word.startswith("--as=") and word != _PRLIMIT]
    return " ".join(words[: {"nix": 2, "nix-store": 2}.get(words[0], 1)])


# Of the demo set, the one that no cache has: its results must not depend on this host, and each of its downloads is a build to Nix.
_OF_DEMO = "sandbox = true\nmax-jobs = 8"
# By default Nix builds one package after another. Older Nix fetches no more of them at a time than it builds.
_PARALLEL = "max-jobs = auto"
# Seconds until Nix looks again for a lock. By default it waits for 5 where two images need the same path at once.
_LOOKS = "build-poll-interval = 1"


def child_environment(
    base: Mapping[str, str],
    *,
    store: str,
    substitutes: bool,
    log_bytes: int = 0,
    caches: Caches = NO_CACHES,
    secrets: bool = False,
    parallel: bool = False,
) -> dict[str, str]:
    """The environment of a Nix process: ours without nixfront's settings, and with `NIX_CONFIG` for this run.

    `parallel`: Nix works on several packages at a time, unless `NIX_CONFIG` of `base` says otherwise.
    `secrets`: the run starts no builder, so all of our environment is for it. Else it gets what Nix needs, and what
    binary caches at S3 need if the operator has any. Where root has no group of build users, Nix builds as root itself. A daemon ignores that setting.
    """
    lines = [
        _LOOKS,
        _PARALLEL if parallel else "",
        "" if substitutes else _OF_DEMO,
        base.get("NIX_CONFIG", "") if secrets else _without_tokens(base.get("NIX_CONFIG", "")),
        "extra-experimental-features = nix-command flakes",
        "allow-import-from-derivation = false",
    ]
    if os.geteuid() == 0 and not _has_group("nixbld"):
        lines.append("build-users-group =")
    own = " ".join(caches.substituters)
    if not substitutes:  # only the operator's own caches can have it
        lines.append(f"substituters = {own}" if own else "substitute = false")
    elif own:
        lines.append(f"extra-substituters = {own}")
    if caches.public_keys:
        lines.append(f"extra-trusted-public-keys = {' '.join(caches.public_keys)}")
    if caches.builders:
        lines.append(f"builders = {caches.builders}")
    if log_bytes:
        lines.append(f"max-build-log-size = {log_bytes}")
    environment = {
        name: value
        for name, value in base.items()
        if not name.startswith("NIXFRONT_")
        and (secrets or _FOR_BUILDERS.fullmatch(name) or ("s3://" in own and _FOR_S3.fullmatch(name)))
    }
    environment["NIX_CONFIG"] = "\n".join(line for line in lines if line)
    environment.pop("NIX_PATH", None)
    if not environment.get("USER") and not _has_name(os.geteuid()):
        environment["USER"] = str(os.geteuid())  # Nix refuses to start for a user without a name
    if store:
        environment["NIX_REMOTE"] = store
    return environment


def was_started(argv: Sequence[str], returncode: int | None) -> bool:
    """Whether Nix itself ran, by the exit code of its command line."""
    return returncode is not None and not (argv[0] == _PRLIMIT and returncode in _NOT_STARTED)


def _installable(package: Package) -> str:
    """The argument of `nix-store --realise` for the outputs of a package."""
    outputs = ",".join(name for name, _ in package.outputs)
    return f"{package.drv_path}!{outputs}" if package.drv_path else package.outputs[0][1]


def _without_tokens(configuration: str) -> str:
    """Nix's configuration without the tokens for forges, which only a fetch of a source needs."""
    return "\n".join(line for line in configuration.split("\n") if not _TOKENS.match(line))


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
