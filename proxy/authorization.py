"""What `WWW-Authenticate` and `Authorization` say. Pure, and no judge of it: passwords and signatures are the registry's."""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"[\s,]*({_WORD})(?=\s|,|$)")
_PARAMETER = re.compile(rf'[\s,]*({_WORD})\s*=\s*("(?:[^"\\]|\\.)*"|[^\s",]+)')


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to be let in, of a `WWW-Authenticate`: names in lowercase, values without quotes."""

    scheme: str
    parameters: Mapping[str, str]


def challenges(values: Iterable[str]) -> list[Challenge]:
    """All of a response's challenges, in their order; what cannot be read ends its line."""
    found: list[Challenge] = []
    for value in values:
        position = 0
        parameters: dict[str, str] | None = None
        while match := (parameters is not None and _PARAMETER.match(value, position)) or _SCHEME.match(
            value, position
        ):
            if match.re is _SCHEME:
                parameters = {}
                found.append(Challenge(match[1].lower(), parameters))
            elif parameters is not None:
                text = match[2]
                quoted = text.startswith('"')
                parameters[match[1].lower()] = re.sub(r"\\(.)", r"\1", text[1:-1]) if quoted else text
            position = match.end()
    return found


def user(authorizations: Sequence[str]) -> str:
    """The user whom a request names in its `Authorization`, empty where it names none: to be believed only after
    a registry let this very request in, for it is the registry that reads the password or the signature.

    Basic (RFC 7617), or a token that is a JWT (RFC 7519): its `sub`.
    """
    if len(authorizations) != 1:
        return ""
    scheme, _, rest = authorizations[0].strip().partition(" ")
    try:
        if scheme.lower() == "basic":
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[0]
        if scheme.lower() == "bearer":
            _, payload, _ = rest.strip().split(".")
            subject = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]
            return subject if isinstance(subject, str) else ""
    except (ValueError, KeyError, TypeError):  # no token of that kind: who it is for is not known
        pass
    return ""
