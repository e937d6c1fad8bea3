"""What one package needs beyond the general repairs, as data."""

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inputs import closure, environment, out, shell


def apply(fixups: Mapping[str, Any]) -> None:
    """Apply what `packages.json` says of this node. In every text `{out}` is this path, and `{x}` node x.

    In texts and in names of files `{multiarch}` is Debian's name of the system, and `{loader}` the file name of its loader.

    links      { link: target }; a link that ends in `/` is a folder that gets one link for each match
    concat     { file: pattern }: the sorted matches, one after the other
    write      { file: text }
    replace    { file: { old: new } }: bytes, so that it works in programs too (there, keep the length)
    wrap       { program: { env: {...}, append: { variable: [folder] }, path: [folder], run: program, after: [argument] } }: a
               script that sets variables, appends to others, then runs `run` (a file of this path; left out: what was there
               before)
    propagate  [ path ]: installed in an image wherever this one is
    remove     [ pattern ]
    """
    for name, target in fixups.get("links", {}).items():
        if name.endswith("/"):
            for match in sorted(out.glob(target)):
                replace_link(out / name / match.name, match)
        else:
            replace_link(out / name, expand(target))
    for name, pattern in fixups.get("concat", {}).items():
        write(name, b"".join(path.read_bytes() for path in sorted(out.glob(pattern))))
    for name, text in fixups.get("write", {}).items():
        write(name, expand(text).encode())
    for place, changes in fixups.get("replace", {}).items():
        name = expand(place)
        content = (out / name).read_bytes()
        for text, new in changes.items():
            old = expand(text)
            if old.encode() not in content:
                sys.exit(f"{name} does not contain {old!r}")
            content = content.replace(old.encode(), expand(new).encode())
        (out / name).write_bytes(content)
    for name, how in fixups.get("wrap", {}).items():
        wrap(out / name, how)
    if "propagate" in fixups:
        record("propagated-user-env-packages", [expand(path) for path in fixups["propagate"]])
    for pattern in fixups.get("remove", []):
        for path in sorted(out.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def expand(text: str) -> str:
    """`{name}` -> the store path of that node, or a word of the system."""
    nodes = dict(zip(environment["names"].split(), closure, strict=True))
    words = {name: environment[name] for name in ("multiarch", "loader")}
    for name, value in {**nodes, "out": out, "shell": shell, **words}.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def wrap(path: Path, how: Mapping[str, Any]) -> None:
    """Replace a program by a script that sets variables, then runs it under the name it was called by."""
    if "run" in how:
        path.unlink(missing_ok=True)
        hidden = out / how["run"]
    else:
        hidden = path.with_name(f".{path.name}-wrapped")
        path.rename(hidden)
    lines = [f"#!{shell}/bin/bash"]
    lines += [f"export {name}={shlex.quote(expand(value))}" for name, value in how.get("env", {}).items()]
    after_the_users = {**how.get("append", {}), **({"PATH": how["path"]} if "path" in how else {})}
    for name, places in after_the_users.items():
        folders = ":".join(expand(folder) for folder in places)
        lines += [f'export {name}="${{{name}:+${name}:}}{folders}"']
    lines += [" ".join(['exec -a "$0"', str(hidden), '"$@"', *map(expand, how.get("after", []))])]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)


def replace_link(link: Path, target: str | Path) -> None:
    """A symlink, whatever was there before."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def write(name: str, content: bytes) -> None:
    """A file of `out`."""
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_bytes(content)


def record(name: str, paths: list[str]) -> None:
    """Note store paths where Nix tools look for them."""
    if paths:
        write(f"nix-support/{name}", "".join(f"{path}\n" for path in paths).encode())
