"""The kinds of values of settings. Each refuses a wrong value with a message that shows a right one."""

import re
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainValidator

from proxy.core import platforms
from proxy.core.names import COMPONENT, is_component, is_repository


class Section(BaseModel):
    """The base of all sections: frozen, strict, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 65536):
        raise ValueError("an address is HOST:PORT, for example 127.0.0.1:8080")
    return value


def here(address: str) -> str:
    """The address of this host at which a server with this setting answers."""
    host, _, port = address.rpartition(":")
    return f"{({'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}).get(host, host)}:{port}"  # noqa: S104 - to be replaced


def _address_or_none(value: str) -> str:
    return _address(value) if value else value


def _web_address(value: str) -> str:
    if value and urlsplit(value).scheme not in ("http", "https"):
        raise ValueError("an address is http:// or https://, for example http://127.0.0.1:4318/v1/traces")
    return value


def _network(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str) or value == "*":
        raise ValueError("a network is an address or a range, for example 10.0.0.0/8")
    return ip_network(value, strict=False)  # its ValueError says what is wrong


def _network_or_all(value: object) -> IPv4Network | IPv6Network | Literal["*"]:
    return "*" if value == "*" else _network(value)


def _origin(value: str) -> str:
    parts = urlsplit(value)  # and .port below: both raise ValueError
    bare = parts.path in ("", "/") and not parts.query and not parts.fragment and parts.port != 0
    bare = bare and "@" not in parts.netloc and not value.endswith(("?", "#"))
    if value and not (parts.scheme in ("http", "https") and parts.netloc and bare):
        raise ValueError("a registry is a scheme, host and port alone, for example http://127.0.0.1:5000")
    return value.rstrip("/")


def _redis(value: str) -> str:
    if value and not value.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("a state is redis://HOST:PORT/NUMBER, rediss:// or unix://; empty for a file")
    return value


def _absolute(value: str) -> str:
    if value and not Path(value).is_absolute():
        raise ValueError("a file or folder needs its absolute path")
    return value


_HOST = r"(?:localhost|[a-z0-9-]+(?:\.[a-z0-9-]+)+|\[[0-9a-f:]+\])(?::[0-9]+)?|[a-z0-9-]+:[0-9]+"
_IDENTITY = re.compile(rf"(?:{_HOST})(?:/{COMPONENT})*")


def _identity(value: str) -> str:
    if value and _IDENTITY.fullmatch(value) is None:
        raise ValueError(
            "an identity is what stands before the name of an image, for example images.example.org"
        )
    return value


def _as_text(value: object) -> object:
    """The text of a date: YAML reads one without quotes as a `datetime`."""
    return (
        value.strftime("%Y-%m-%dT%H:%M:%S%z").replace("+0000", "Z") if isinstance(value, datetime) else value
    )


def _date(value: str) -> str:
    if not value:
        return value
    moment = datetime.strptime(value, "%Y-%m-%dT%H:%M:%S%z")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _listing(value: str) -> str:
    parts = urlsplit(value)
    is_here = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    if value and (not (parts.scheme == "https" or is_here) or "{" in parts.netloc):
        raise ValueError(
            "a list has an https address, with {ref} in its path alone: https://HOST/{ref}/packages.json.br"
        )
    return value


def _component(value: str) -> str:
    if not is_component(value):
        raise ValueError("a prefix is one component of a repository path, for example images")
    return value


def _user(value: str) -> str:
    if value and not re.fullmatch(r"\d+:\d+", value):
        raise ValueError("a user is UID:GID, for example 1000:1000")
    return value


def _path_prefix(value: str) -> str:
    if value and not (value.endswith("/") and is_repository(value[:-1])):
        raise ValueError("a prefix is the beginning of a repository's path, with a slash at its end: nix/")
    return value


def _platform(value: str) -> str:
    return platforms.name_of(value)  # its ValueError names all platforms


Address = Annotated[str, AfterValidator(_address)]
AddressOrNone = Annotated[str, AfterValidator(_address_or_none)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_network)]
NetworkOrAll = Annotated[IPv4Network | IPv6Network | Literal["*"], PlainValidator(_network_or_all)]
Origin = Annotated[str, AfterValidator(_origin)]
RedisAddress = Annotated[str, AfterValidator(_redis)]
#: The host, or host and path, that stands before a repository.
Identity = Annotated[str, AfterValidator(_identity)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
Component = Annotated[str, AfterValidator(_component)]
User = Annotated[str, AfterValidator(_user)]
PathPrefix = Annotated[str, AfterValidator(_path_prefix)]
PlatformName = Annotated[str, AfterValidator(_platform)]
Listing = Annotated[str, AfterValidator(_listing)]
Date = Annotated[str, BeforeValidator(_as_text), AfterValidator(_date)]
