"""What is wrong with settings, in our words: the key, what it may be, and the key that was perhaps meant."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from proxy.tools import name_index

# What a value has to be, by pydantic's type of error.
_WANTED: Mapping[str, str] = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "keys with values",
    "model_type": "a section of keys with values",
    "model_attributes_type": "a section of keys with values",
}
# What a value is. The value itself may be a password.
_KINDS: Mapping[type, str] = {
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    tuple: "a list",
    list: "a list",
    dict: "a section",
    type(None): "empty",
}
_SIZE = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(?:([KMGT])(i)?B?|B)\s*", re.IGNORECASE)
_LIMITS: Mapping[str, tuple[str, str]] = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "greater_than": ("more than", "gt"),
    "less_than": ("less than", "lt"),
}


def in_words(error: ValidationError, sections: type[BaseModel]) -> list[str]:
    """Every problem, with the path of its key."""
    problems: dict[str, None] = {}  # a key that may be several kinds of value has several equal problems
    for item in error.errors(include_url=False):
        path = ".".join(map(str, item["loc"])) or "settings"
        problems[f"{path}: {_problem(item, sections)}"] = None
    return list(problems)


def no_such(key: str, keys: Iterable[str], what: str = "setting") -> str:
    """That there is no such key, and the one that was perhaps meant."""
    return f"no such {what}{perhaps(key, keys)}"


def perhaps(key: str, keys: Iterable[str], before: str = "") -> str:
    """The end of a message: the key that was perhaps meant, with `before` in front; empty where none is like it.

    A key may be a short form of what somebody wrote: `addr` of `address`. There are few keys, so a weak likeness is enough.
    """
    choices = sorted(keys)
    alike = [other for other in choices if other[:1] == key[:1]]
    close = name_index.close(key, choices) or difflib.get_close_matches(key, alike, 1)
    return f", did you mean {before}{close[0]}?" if close else ""


def _problem(item: Mapping[str, Any], sections: type[BaseModel]) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        *above, key = item["loc"]
        return no_such(str(key), _keys(sections, above), "setting" if above else "section")
    if kind == "literal_error":
        return f"it must be {context['expected']}, and is {item['input']!r}"
    if kind in _WANTED:
        return f"it must be {_WANTED[kind]}, and is {what_is(item['input'])}{_bytes(kind, item['input'])}"
    if kind in _LIMITS:
        words, name = _LIMITS[kind]
        return f"it must be {words} {context[name]}, and is {item['input']!r}"
    if kind == "string_pattern_mismatch":
        return f"it does not have the form {context['pattern']}"
    if kind == "value_error":
        return str(context["error"])
    return str(item["msg"])


def _bytes(kind: str, value: object) -> str:
    """The end of a message about a size with a unit: the same in bytes, which is what nixfront reads."""
    size = _SIZE.fullmatch(value) if kind == "int_type" and isinstance(value, str) else None
    if size is None:
        return ""
    number, letter, binary = size.groups()
    factor = (1024 if binary else 1000) ** ("KMGT".index(letter.upper()) + 1 if letter else 0)
    return f" with a unit; without one, in bytes, it is {int(float(number) * factor)}"


def _keys(sections: type[BaseModel], path: Sequence[Any]) -> Iterable[str]:
    """The keys of the section at this path; none where the path leads through something else."""
    model: Any = sections
    for part in path:
        fields = getattr(model, "model_fields", {})
        model = _model(fields[part].annotation) if part in fields else model
    return getattr(model, "model_fields", {})


def _model(annotation: Any) -> Any:
    """The section in an annotation: itself, or that of the values of a mapping."""
    arguments: Sequence[Any] = getattr(annotation, "__args__", ())
    return next((each for each in reversed(arguments) if hasattr(each, "model_fields")), annotation)


def what_is(value: object) -> str:
    """What a value is, in words."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")
