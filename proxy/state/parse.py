"""Records out of texts that anybody may have written or damaged: each function returns a record, or nothing."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from proxy.core.model import Layer
from proxy.state import BuildRecord, Failure, ImageRecord, TagRecord

#: Characters of a record.
LONGEST = 1 << 16
_LONGEST_COUNT = 16  # digits

R = TypeVar("R", TagRecord, Failure, BuildRecord, ImageRecord, Layer)


def record(kind: type[R], *values: Any) -> R | None:
    """The record with these values; None where they are too few, too many, or of other types than its fields."""
    wanted = fields(kind)
    required = sum(field.default is MISSING for field in wanted)
    if not required <= len(values) <= len(wanted):
        return None
    for field, value in zip(wanted, values, strict=False):
        if field.type is float:
            fits = type(value) in (int, float) and math.isfinite(value)
        else:
            fits = type(value) is field.type
        if not fits:
            return None
    return kind(*values)


def words(text: str | None) -> list[Any]:
    """The list that this JSON text spells; an empty one for any other text."""
    value = _json(text)
    return value if isinstance(value, list) else []


def _json(text: str | None) -> Any:
    """None for what is no JSON, and for a text that is too long to be a record."""
    if text is None or len(text) > LONGEST:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def number(text: str | None) -> float | None:
    """None for what is no number."""
    try:
        return float(text or "")
    except ValueError:
        return None


def layer(values: Mapping[str, str]) -> Layer | None:
    """The layer in these fields; None where they are not those of a layer."""
    try:
        return record(Layer, values["digest"], int(values["size"]), values["diff_id"])
    except (KeyError, ValueError):
        return None


def image(member: str, values: Mapping[str, str]) -> ImageRecord | None:
    """The image in these fields; `member` is its repository and digest with a space in between."""
    repository, _, digest = member.partition(" ")
    if not digest:
        return None
    times = [number(values.get(name, "")) for name in ("made", "pulled")]
    texts = [values.get(name, "") for name in ("revision", "settings")]
    later = [number(values.get(name, "0")) for name in ("deleted", "due")]
    count = values.get("pulls", "0")
    pulls = int(count) if count.isdecimal() and len(count) < _LONGEST_COUNT else 0
    return record(ImageRecord, repository, digest, *times, *texts, *later, pulls)


def build(text: str | None) -> BuildRecord | None:
    """The record of a build; another version of nixfront may have written it, so further values are left out."""
    values = _json(text)
    if not isinstance(values, dict):
        return None
    defaults = {field.name: field.default for field in fields(BuildRecord)}
    return record(BuildRecord, *({**defaults, **values}[name] for name in defaults))


def revision(text: str | None) -> tuple[str, float] | None:
    """The revision in this text, and when it was resolved."""
    match words(text):
        case [str(name), int() | float() as when] if name and math.isfinite(when):
            return name, float(when)
    return None


def tags(repository: str, values: Mapping[str, str]) -> tuple[TagRecord, ...]:
    """The records in these texts by tag, sorted."""
    found = [record(TagRecord, repository, tag, *words(values[tag])) for tag in sorted(values)]
    return tuple(tag for tag in found if tag is not None)
