"""Settings as they are written, in a file and in the environment, before anything but their keys is checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr

from proxy.errors import SettingsInvalid

#: What a variable that is a setting begins with.
PREFIX = "NIXFRONT_"


def read(file: Path) -> dict[str, Any]:
    """The sections of a file. Raises `SettingsInvalid`."""
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # YAML makes dates, and 2026-99-31 is none
        raise SettingsInvalid(f"cannot read {file}: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsInvalid(f"{file}: the settings are sections with keys, not a {type(tree).__name__}")
    return {section: _tuples(values) for section, values in tree.items()}


def put(tree: dict[str, Any], sections: type[BaseModel], variable: str, value: str) -> None:
    """Put the value of `NIXFRONT_SECTION_KEY` in its place in `sections`; it is read as YAML where the key is no string.

    Raises `SettingsInvalid` where there is no such key.
    """
    section, _, key = variable.removeprefix(PREFIX).lower().partition("_")
    field = sections.model_fields.get(section)
    model = field.annotation if field is not None else None
    known = model.model_fields.get(key) if isinstance(model, type) and issubclass(model, BaseModel) else None
    if known is None:
        raise SettingsInvalid(f"{variable} names no setting ({section}.{key or '?'})")
    textual = isinstance(known.default, (str, SecretStr))
    try:
        lay_over(tree, section, {key: value if textual else _tuples(yaml.safe_load(value))})
    except (ValueError, yaml.YAMLError) as error:
        raise SettingsInvalid(f"{section}.{key}: cannot read the value of {variable}: {error}") from error


def lay_over(tree: dict[str, Any], section: str, values: Mapping[str, Any]) -> None:
    """Set keys of a section; one that is no section at all is left for the check to complain about."""
    present = tree.get(section) or {}
    if isinstance(present, dict):
        tree[section] = {**present, **values}


def _tuples(values: Any) -> Any:
    """Lists as tuples at every level, an empty section as one without keys: what the strict models take."""
    if values is None:
        return {}
    if isinstance(values, dict):
        return {key: value if value is None else _tuples(value) for key, value in values.items()}
    return tuple(values) if isinstance(values, list) else values
