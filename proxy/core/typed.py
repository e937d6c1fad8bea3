"""Images as people write them, or paste them from an engine: `[SCHEME://][HOST/]NAME[:TAG][@DIGEST]`.

A command knows its registry from the settings, so it needs no host. Engines need one, and people paste what they gave to them.
A package set may have names with dots, as in `python3packages.numpy/git`. So not every dot makes a host: a port does, a
scheme, an address, and one of the operator's own names.
"""

import re
from collections.abc import Collection
from ipaddress import ip_address

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_LATEST = "latest"


def read(text: str, hosts: Collection[str] = ()) -> tuple[str, str]:
    """The repository, and the digest or tag: `latest` where there is none. It checks neither.

    `hosts`: names of this host, with or without a port.
    """
    image, at, digest = _without_host(text, hosts).partition("@")
    name, colon, tag = image.rpartition(":")
    repository, tag = (name, tag) if colon else (image, _LATEST)
    return repository, digest if at else tag


def write(repository: str, reference: str) -> str:
    """An image as engines write it; a digest stands behind an `@`."""
    return f"{repository}{'@' if ':' in reference else ':'}{reference}"


def _without_host(text: str, hosts: Collection[str]) -> str:
    scheme = _SCHEME.match(text)
    rest = text[scheme.end() :] if scheme else text
    first, slash, name = rest.partition("/")
    return name if slash and (scheme or _is_host(first.lower(), hosts)) else rest


def _is_host(first: str, hosts: Collection[str]) -> bool:
    """Whether this is a host, and no component of a name."""
    if ":" in first or first == "localhost":
        return True
    if "." not in first:  # engines take it for a part of the name too
        return False
    if first in {host.lower() for host in hosts}:
        return True
    try:
        ip_address(first)
    except ValueError:
        return False
    return True
