"""The lines of our modules as fields: the text `registry url=%s` is the event `registry` with the field `url`.

So a module writes a line as plain `logging` does, and a machine that reads JSON finds each value under its name.
"""

import re
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any

# A field is a name and what follows up to the next space; anything else that `%` marks is part of the text.
_FIELD = re.compile(r"\s*\b(?P<name>[a-z_]+)=(?P<value>\S*%\S*)")
_MARK = re.compile(r"%(?:\.\d+)?[a-z]")
_OURS = ("proxy.", "nixfront")
_Part = tuple[str, str, int]  # the name of a field, or "" for text; the template; how many arguments it takes


def split(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A step for lines of `logging`, whose arguments are in the field `positional_args`."""
    arguments = fields.pop("positional_args", None)
    record = fields["_record"]
    template = str(record.msg)
    if isinstance(arguments, tuple) and arguments and record.name.startswith(_OURS):
        parts = _parts(template)
        if sum(count for *_, count in parts) == len(arguments):
            fields["event"] = _fill(parts, arguments, fields)
    return fields


def _fill(parts: tuple[_Part, ...], arguments: tuple[Any, ...], fields: MutableMapping[str, Any]) -> str:
    """Put the values into `fields`, and return the text that stays."""
    text, at = "", 0
    for name, template, count in parts:
        own = arguments[at : at + count]
        at += count
        if not name:
            text += template % own
        elif template in ("%s", "%d") and isinstance(own[0], (int, float)):
            fields[name] = own[0]
        else:
            fields[name] = template % own
    return text.strip()


@lru_cache(maxsize=512)
def _parts(template: str) -> tuple[_Part, ...]:
    parts: list[_Part] = []
    at = 0
    for match in _FIELD.finditer(template):
        parts.append(_part("", template[at : match.start()]))
        parts.append(_part(match["name"], match["value"]))
        at = match.end()
    return (*parts, _part("", template[at:]))


def _part(name: str, template: str) -> _Part:
    return name, template, len(_MARK.findall(template))
