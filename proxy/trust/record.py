"""The facts of an image as a file: written by the server, read by the child process, and left by a server that was killed.

The child reads it without `pydantic`, which takes longer to load than all else that the child does for a small image.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, get_args, get_origin

from proxy.core.model import canonical_json
from proxy.trust.facts import ImageFacts


def write(facts: ImageFacts) -> bytes:
    """The facts as JSON."""
    return canonical_json(asdict(facts))


def read(data: bytes) -> ImageFacts:
    """The facts in this JSON. Raises `ValueError`."""
    try:
        facts: ImageFacts = _value(ImageFacts, json.loads(data))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"these are no facts of an image: {error}") from error
    return facts


def _value(kind: Any, value: Any) -> Any:
    """The value of this type that the value of JSON stands for. Raises `TypeError` and `ValueError`.

    A field of a dataclass may be missing if it has a default. Nobody reads fields that it does not have.
    """
    make, origin, inner = kind, get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        members = _of(dict, value)
        types = {field.name: field.type for field in fields(kind) if field.name in members}
        return make(**{name: _value(type_, members[name]) for name, type_ in types.items()})
    if origin is tuple:
        items = _of(list, value)
        kinds = inner[:1] * len(items) if inner[1:] == (...,) else inner
        return tuple(_value(*pair) for pair in zip(kinds, items, strict=True))
    if origin is Mapping:
        return {_of(inner[0], name): _of(inner[1], item) for name, item in _of(dict, value).items()}
    return _of(kind, value)


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.60} is no {kind}")
    return value
