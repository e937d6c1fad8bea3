"""Repository paths and tags -> what they ask for. Parsed once, here; no later code splits a string.

Rules of this file: no IO, no knowledge of which packages exist. A name that no client may send, or that belongs
to another tool (`sha256-<hex>.sig`), is nobody's: the registry's own 404 is the answer to it.
"""

import re

from proxy.errors import NameInvalid
from proxy.model import ImageRequest

# distribution-spec: "<name> MUST match the following regular expression".
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
# distribution-spec: "<reference> as a tag MUST be at most 128 characters in length and MUST match ...".
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
# distribution-spec, "Referrers Tag Schema"; cosign appends .sig, .att and .sbom to the same stem.
_REFERRERS_TAG = re.compile(r"[a-z0-9]+-[0-9a-f]{64,}(?:\.[a-z0-9.]+)?")
_MANIFEST_PATH = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")

#: What the meta-package `shell` stands for, as attributes of the package set.
SHELL = ("bashInteractive", "coreutils", "moreutils", "nano")
_META_SHELL = "shell"
_MOST_ATTRIBUTES = 64


def manifest_route(path: str) -> tuple[str, str] | None:
    """(repository, reference) if the path, as it came over the wire, is that of a manifest, else None."""
    match = _MANIFEST_PATH.fullmatch(path)
    return (match["name"], match["reference"]) if match else None


def parse(repository: str, reference: str) -> ImageRequest | None:
    """What to build for this tag, or None if it can never be ours (a digest, a referrers tag, a bad name).

    Every component of the path is an attribute path (`python3packages.numpy`); `shell` in front stands for `SHELL`.
    Raises `NameInvalid` for a name that is well-formed but asks for too much.
    """
    if not _TAG.fullmatch(reference) or _REFERRERS_TAG.fullmatch(reference):
        return None
    if not _REPOSITORY.fullmatch(repository):
        return None
    components = repository.split("/")
    shell = components[0] == _META_SHELL
    named = [*SHELL, *components[1:]] if shell else components
    attributes = tuple(dict.fromkeys(named))
    if len(attributes) > _MOST_ATTRIBUTES:
        raise NameInvalid(
            f"{repository!r} names {len(attributes)} packages; one image may name at most {_MOST_ATTRIBUTES}"
        )
    return ImageRequest(repository=repository, tag=reference, attributes=attributes, shell=shell)
