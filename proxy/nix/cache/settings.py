"""Which binary caches Nix itself would use, and whom it trusts there: its own settings, as `nix show-config` prints them."""

import json
import netrc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from yarl import URL

_SCHEMES = ("http", "https", "file")


@dataclass(frozen=True, slots=True)
class Address:
    """A binary cache by HTTP or in a folder. `priority`: as the address says it, None if it does not; a lower one comes first.

    `trusted`: its paths need no signature, because its address says so.
    """

    url: str
    priority: int | None = None
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The caches in the order of the settings, the keys that sign there, and the file of logins."""

    addresses: tuple[Address, ...] = ()
    keys: tuple[str, ...] = ()
    netrc_file: str = ""
    needs_signatures: bool = True


def read_settings(output: bytes) -> CacheSettings:
    """The settings in what `nix show-config --json` prints."""
    document: Mapping[str, Mapping[str, Any]] = json.loads(output)

    def value(name: str, default: Any) -> Any:
        return document.get(name, {}).get("value", default)

    urls = value("substituters", []) if value("substitute", True) else []
    addresses = (_address(url) for url in dict.fromkeys(urls))
    return CacheSettings(
        tuple(address for address in addresses if address is not None),
        tuple(value("trusted-public-keys", [])),
        value("netrc-file", ""),
        value("require-sigs", True),
    )


def read_logins(file: str) -> dict[str, tuple[str, str]]:
    """User and password by host, of a netrc file; none for a file that is missing or wrong. Blocking."""
    try:
        hosts = netrc.netrc(file).hosts
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return {}
    return {host: (user, password or "") for host, (user, _, password) in hosts.items()}


def _address(url: str) -> Address | None:
    """None for a store of another kind, for a cache of another folder than /nix/store, and for what is no address."""
    try:
        parts = urlsplit(url)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        priority = int(options["priority"]) if "priority" in options else None
        URL(url)
    except ValueError:
        return None
    if parts.scheme not in _SCHEMES or options.get("store", "/nix/store") != "/nix/store":
        return None
    plain = parts._replace(query="", fragment="").geturl().rstrip("/")
    return Address(plain, priority, options.get("trusted") in ("1", "true"))
