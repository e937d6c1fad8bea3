"""`config/README.md`: every setting with its default, its kind and its environment variable, from the model and the sample.

    python -m tests.support.settings_page >config/README.md

What a key is for stands in the sample's comments alone; its kind and default in the model alone.
"""

import sys
import types
import typing
from pathlib import Path

import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from proxy.settings import Settings
from proxy.settings.packages import PackageSource, PackagesSection

ROOT = Path(__file__).parents[2]
HOW = "python -m tests.support.settings_page >config/README.md"
_WIDTH = 118

_HEAD = """# Settings

Every setting, with its default and its name in the environment. The sample, [nixfront.yml](nixfront.yml), says the same with comments. A program makes
this page from the sample and the code (`{how}`), so it is always up to date.

nixfront reads three sources, and the first that has a value wins: the environment, the file of `--config FILE`, these defaults. A value in the environment
is YAML where it is no text: `NIXFRONT_PACKAGES_ALWAYS='[cacert]'`. nixfront refuses unknown keys and wrong types at the start, and the error
names the key. `nixfront check-config --json` prints the values in force.

`nixfront init` writes a first file from four answers, and what it did not ask has its default:
`nixfront init --registry https://registry.example.net --pull users --packages nixos-24.05 --mirror no -o nixfront.yml`.

More: [names and tags](names.md), [package sets and named images](packages.md), [layers](layers.md), [platforms](platforms.md), [what is in an image](trust.md),
[coming from Nixery](from-nixery.md),
[running it](../deploy/README.md), [troubleshooting by message](../deploy/troubleshooting.md).
"""


def page() -> str:
    """The whole text."""
    comments = _comments((ROOT / "config/nixfront.yml").read_text(encoding="utf-8"))
    parts = [_HEAD.format(how=HOW)]
    for section, field in Settings.model_fields.items():
        model = field.annotation
        parts.append(f"\n## {section}\n")
        if section == "sets" or not (isinstance(model, type) and issubclass(model, BaseModel)):
            parts.append(comments.get((section, ""), ""))
            of_all = [
                f"`{key}`" for key in PackagesSection.model_fields if key not in PackageSource.model_fields
            ]
            parts.append(
                f"Each set has the keys of `packages` but for {', '.join(of_all[:-1])} and {of_all[-1]}.\n"
            )
            continue
        above = ""
        for key, described in model.model_fields.items():
            parts.append(f"### `{section}.{key}`\n")
            parts.append(
                f"`NIXFRONT_{section.upper()}_{key.upper()}`, {_kind(described.annotation)}, default {_default(described)}\n"
            )
            above = key if comments.get((section, key)) else above
            parts.append(comments.get((section, key), "") or f"See `{section}.{above}`.\n")
    return "\n".join(part for part in parts if part).rstrip("\n") + "\n"


def _comments(sample: str) -> dict[tuple[str, str], str]:
    """What stands above each key, by section and key; above a section under an empty key."""
    found: dict[tuple[str, str], str] = {}
    section, above = "", list[str]()
    for line in sample.splitlines():
        bare = line.strip()
        if bare.startswith("#"):
            above.append(bare.removeprefix("#").removeprefix(" "))
        elif not bare:
            above = []
        else:
            key = bare.partition(":")[0]
            indented = line.startswith(" ")
            section = section if indented else key
            found[section, key if indented else ""] = _prose(above)
            above = []
    return found


def _prose(lines: list[str]) -> str:
    """Comments as Markdown: what is aligned by hand or an example stays as it is."""
    out, code = list[str](), list[str]()
    for line in [*lines, ""]:
        if line.startswith("  ") or "  " in line.strip():
            code.append(line)
            continue
        if code:
            out += ["", "```", *code, "```", ""]
            code = []
        out.append(_escaped(line))
    return "\n".join(out).strip("\n") + "\n" if any(out) else ""


def _escaped(line: str) -> str:
    return line.replace("<", "&lt;").replace("*", "\\*")


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    value = to_jsonable_python(value)
    if value == "":
        return "empty"
    return f"`{yaml.safe_dump(value, default_flow_style=True, width=_WIDTH).removesuffix('...' + chr(10)).strip()}`"


def _kind(annotation: object) -> str:
    """A type as people say it."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" if value != "" else "empty" for value in arguments)
    if origin is tuple:
        return "a list"
    if origin is dict:
        return "a mapping"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(each) for each in arguments if each is not type(None))
    names = {
        SecretStr: "text that is never shown",
        str: "text",
        bool: "`true` or `false`",
        int: "a whole number",
        float: "a number",
    }
    return names.get(annotation, "a section") if isinstance(annotation, type) else "a value"


if __name__ == "__main__":
    sys.stdout.write(page())
