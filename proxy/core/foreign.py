"""JSON that a stranger wrote, read without trust.

Python's own parser ends in a `RecursionError` for deep nesting, takes the last of two equal names, and accepts `NaN` and halves
of characters. Another reader may see another document then. Here all of that is one exception, a `ValueError`.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

#: Levels of lists and objects in one another; manifests and configurations have some five.
MOST_LEVELS = 32
# The closing quote is optional, so that no text makes the expression read anything twice.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_NO_BRACKET = re.compile(r"[^\[\]{}]+")
_SHOWN = 60  # characters of a wrong value in a message


class DocumentInvalid(ValueError):
    """A foreign document is not what it has to be; the message says where."""


def parse(data: bytes) -> Any:
    """The JSON value of these bytes. Raises `DocumentInvalid`."""
    try:
        text = data.decode()
        _check_levels(text)
        value = json.loads(
            text, object_pairs_hook=_without_twins, parse_constant=_no_number, parse_float=_finite
        )
        if r"\ud" in text or r"\uD" in text:  # a half of a character passes the parser and no encoder
            json.dumps(value, ensure_ascii=False).encode()
    except DocumentInvalid:
        raise
    except (ValueError, RecursionError) as error:
        raise DocumentInvalid(f"it is no JSON: {str(error)[:200]}") from None
    return value


def to_object(value: Any, place: str) -> Mapping[str, Any]:
    """The value as an object; null counts as an empty one. Raises `DocumentInvalid`, as the following functions do."""
    return {} if value is None else _of(dict, value, place, "object")


def to_list(value: Any, place: str) -> list[Any]:
    """The value as a list; null counts as an empty one."""
    return [] if value is None else _of(list, value, place, "list")


def to_text(value: Any, place: str) -> str:
    """The value as a text; null counts as an empty one."""
    return "" if value is None else _of(str, value, place, "text")


def to_size(value: Any, place: str) -> int:
    """The value as a number of bytes."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise DocumentInvalid(f"{place} is no number of bytes: {_shown(value)}")
    return value


def to_names(data: bytes, key: str) -> list[str]:
    """The texts in the list `key` of the object that these bytes hold."""
    listed = to_list(to_object(parse(data), "the document").get(key), key)
    return [to_text(name, key) for name in listed]


def _of(kind: type, value: Any, place: str, noun: str) -> Any:
    if not isinstance(value, kind):
        raise DocumentInvalid(f"{place} is no {noun}: {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _check_levels(text: str) -> None:
    """Take the innermost pairs of brackets away, level by level. Raises `DocumentInvalid` if too many are left.

    A text that is no JSON passes, or fails for another reason than its own: it fails in any case.
    """
    brackets = _NO_BRACKET.sub("", _STRING.sub("", text))
    for _ in range(MOST_LEVELS):
        if not brackets:
            return
        brackets = brackets.replace("[]", "").replace("{}", "")
    if len(brackets) > 1:
        raise DocumentInvalid(f"it has more than {MOST_LEVELS} levels of lists and objects")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise DocumentInvalid("an object has the same name twice")
    return value


def _no_number(text: str) -> NoReturn:
    raise DocumentInvalid(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise DocumentInvalid("a number is too large")
    return number
