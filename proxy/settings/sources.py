"""Settings as they stand in the file and in the environment: trees of sections and keys, not yet checked.

pydantic-settings (2.16 was tried) ignores variables of an unknown section, and where it cannot read a value it names
the section and not the key. So these two readers are ours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr

from proxy.core.errors import ArgumentsInvalid, SettingsInvalid, reason
from proxy.settings import problems

#: Every variable of the environment that begins so is a setting.
PREFIX = "NIXFRONT_"


def read_file(file: Path) -> dict[str, Any]:
    """The sections of a file. Raises `SettingsInvalid`, where it cannot read the file `ArgumentsInvalid`."""
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (
        OSError,
        ValueError,
        yaml.YAMLError,
    ) as error:  # ValueError: YAML reads dates, and 2026-99-31 is none
        raise ArgumentsInvalid(f"cannot read {file}: {_why(error)}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsInvalid(
            f"{file}: the settings are sections with keys, and not {problems.what_is(tree)}"
        )
    return {section: _tuples(values) for section, values in tree.items()}


def _why(error: Exception) -> str:
    """Why a text is no YAML, with the place; or why a file cannot be read."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return reason(error)
    problem = getattr(error, "problem", None) or "it is no YAML"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def set_variable(tree: dict[str, Any], sections: type[BaseModel], variable: str, value: str) -> None:
    """Put the value of `NIXFRONT_SECTION_KEY` into the tree. The value is YAML, unless the key is a text.

    Raises `SettingsInvalid` where `sections` has no such key, and where the value is no YAML.
    """
    section, _, key = variable.removeprefix(PREFIX).lower().partition("_")
    field = sections.model_fields.get(section)
    model = field.annotation if field is not None else None
    setting = (
        model.model_fields.get(key) if isinstance(model, type) and issubclass(model, BaseModel) else None
    )
    if setting is None:
        meant = problems.perhaps(variable, _variables(sections))
        raise SettingsInvalid(f"{variable} names no setting ({section}.{key or '?'}){meant}")
    is_text = isinstance(setting.default, (str, SecretStr))
    try:
        set_keys(tree, section, {key: value if is_text else _tuples(yaml.safe_load(value))})
    except (ValueError, yaml.YAMLError) as error:
        raise SettingsInvalid(
            f"{section}.{key}: cannot read the value of {variable}: {_why(error)}"
        ) from error


def _variables(sections: type[BaseModel]) -> list[str]:
    """The name of every variable that is a setting."""
    models = ((name, field.annotation) for name, field in sections.model_fields.items())
    return [
        f"{PREFIX}{section}_{key}".upper()
        for section, model in models
        if isinstance(model, type) and issubclass(model, BaseModel)
        for key in model.model_fields
    ]


def set_keys(tree: dict[str, Any], section: str, values: Mapping[str, Any]) -> None:
    """Set keys of a section. A value that is no section stays, and the check of the whole tree refuses it."""
    present = tree.get(section) or {}
    if isinstance(present, dict):
        tree[section] = {**present, **values}


def _tuples(values: Any) -> Any:
    """The same with tuples for lists and an empty mapping for an empty section, as the strict models want it."""
    if values is None:
        return {}
    if isinstance(values, dict):
        return {key: value if value is None else _tuples(value) for key, value in values.items()}
    return tuple(values) if isinstance(values, list) else values
