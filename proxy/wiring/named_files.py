"""What is wrong with the files that the settings name. Nothing is served, and no program runs."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from proxy.core.errors import SettingsInvalid
from proxy.settings import Settings
from proxy.web.connections.certificate import ServerCertificate
from proxy.wiring.builder import read_table
from proxy.wiring.registry import registry_endpoint
from proxy.wiring.signing import open_signer


def problems(settings: Settings) -> list[str]:
    """One text for each file that this user cannot use, with its key. Blocking: it reads the files."""
    found = [*_unreadable(settings)]
    for read in _readers(settings):
        try:
            read()
        except SettingsInvalid as error:
            found += error.problems
    return list(dict.fromkeys(found))


def _readers(settings: Settings) -> Iterator[Callable[[], object]]:
    """What a server does with such files at its start."""
    http, registry = settings.http, settings.registry
    if http.certificate:
        yield lambda: ServerCertificate(Path(http.certificate), Path(http.key))
    yield lambda: registry_endpoint(settings, registry.url)
    yield lambda: open_signer(settings)
    if settings.layers.table:
        yield lambda: read_table(settings.layers.table, "", "")


def _unreadable(settings: Settings) -> Iterator[str]:
    """What others read: Nix, and the short way for blobs."""
    places = {"images.file": settings.images.file, "registry.storage": settings.registry.storage}
    for name, source in settings.package_sources.items():
        places[f"sets.{name}.path" if name else "packages.path"] = source.path
    for key, place in places.items():
        if place and not os.access(place, os.R_OK):
            missing = (
                "this user cannot read it" if Path(place).exists() else "there is no such file or folder"
            )
            yield f"{key}: {place}: {missing}"
