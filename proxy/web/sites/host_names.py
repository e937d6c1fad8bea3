"""The names by which clients may call nixfront."""

import fnmatch
from collections.abc import Iterable
from ipaddress import ip_address


class HostNames:
    """The names by which clients may call nixfront; `*` stands for any characters in them."""

    def __init__(self, names: Iterable[str]) -> None:
        """`localhost` and every name below it are among them."""
        self._patterns = ("localhost", "*.localhost", *(name.lower().rstrip(".") for name in names))

    def hold(self, authority: str) -> bool:
        """Whether the host of `HOST:PORT` has one of these names."""
        name = host(authority)
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns)

    def may_call(self, authority: str) -> bool:
        """Whether a client may call us so: by one of these names, or by an address, which no site can give away."""
        return _is_address(host(authority)) or self.hold(authority)


def host(authority: str) -> str:
    """The host of `USER@HOST:PORT`, lowercase and without the dot of a root."""
    name = authority.strip().lower().rpartition("@")[2]
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return (name.partition(":")[0] if name.count(":") == 1 else name).rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
