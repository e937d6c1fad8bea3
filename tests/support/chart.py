"""A Helm chart rendered without helm, for the few actions that the chart of deploy/helm uses; any other action is an error.

The release has the namespace `nixfront`, unless a test chooses another one.

It follows Go's text/template: `{{-` and `-}}` trim white space, a pipe hands its value on as the last argument.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

_ACTION = re.compile(r"(\s*\{\{-|\{\{)\s(.+?)\s(-\}\}\s*|\}\})", re.DOTALL)
_VALUE = re.compile(r"\.(Values|Release)((?:\.[A-Za-z]+)+)")
_NESTED = re.compile(r"tpl \((.+)\) \.")


def _nindent(spaces: str, text: object) -> str:
    return "".join(f"\n{' ' * int(spaces)}{line}" for line in str(text).split("\n"))


_FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "toYaml": lambda value: yaml.safe_dump(value).rstrip("\n"),
    "nindent": _nindent,
    "quote": lambda value: json.dumps(str(value)),
    "sha256sum": lambda value: hashlib.sha256(str(value).encode()).hexdigest(),
}


def render(
    chart: Path, namespace: str = "nixfront", **values: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """The documents of each template; `values` are laid over the chart's own, section by section."""
    merged = yaml.safe_load((chart / "values.yaml").read_text())
    for section, changes in values.items():
        assert section in merged, section
        merged[section] = {**merged[section], **changes}
    context = {"Values": merged, "Release": {"Namespace": namespace}}
    return {
        file.name: [
            document for document in yaml.safe_load_all(_template(file.read_text(), context)) if document
        ]
        for file in sorted((chart / "templates").iterdir())
    }


def _template(text: str, values: Mapping[str, Any]) -> str:
    """The text of a template. `if` and `end` do not nest, and there is no `else`."""
    output, at, shown, inside = "", 0, True, False
    for match in _ACTION.finditer(text):
        before = text[at : match.start()]
        assert "{{" not in before, before
        output += before if shown else ""
        at = match.end()
        words = match[2].split()
        if words[0] == "if":
            assert not inside, match[0]
            assert len(words) == 2, match[0]
            shown, inside = bool(_value(words[1], values)), True
        elif words == ["end"]:
            assert inside, match[0]
            shown, inside = True, False
        elif shown:
            output += _pipe(match[2], values)
    assert not inside
    assert "{{" not in text[at:]
    return output + text[at:]


def _pipe(action: str, values: Mapping[str, Any]) -> str:
    result: object = None
    for number, stage in enumerate(action.split(" | ")):
        function, *arguments = stage.split()
        if nested := _NESTED.fullmatch(stage):
            result = _template(_pipe(nested[1], values), values)
        elif number == 0 and not arguments:
            result = _value(function, values)
        else:
            handed = [_value(word, values) if word.startswith(".") else word for word in arguments]
            result = _FUNCTIONS[function](*handed, *([result] if number else []))
    return str(result)


def _value(path: str, values: Mapping[str, Any]) -> object:
    match = _VALUE.fullmatch(path)
    assert match is not None, path
    result: Any = values
    for key in (match[1], *match[2].split(".")[1:]):
        result = result[key]
    return result
