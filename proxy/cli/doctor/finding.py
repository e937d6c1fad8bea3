"""What a check of `nixfront doctor` returns."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from proxy.cli.command import Console
from proxy.settings import Settings

_SIGNS = {"fine": ("ok", "green"), "doubtful": ("!!", "yellow"), "wrong": ("XX", "bold red")}

Level = Literal["fine", "doubtful", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `wrong` makes pulls fail now; `doubtful` will, or it costs a feature.

    `cure` names the setting, the file or the command that mends it; it is empty where the level is `fine`.
    """

    check: str
    level: Level
    message: str
    cure: str = ""


Check = Callable[[Settings], Coroutine[None, None, list[Finding]]]


def fine(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, "fine", message)


def doubtful(check: str, message: str, cure: str) -> Finding:
    """Pulls work, but not for ever, or without a feature."""
    return Finding(check, "doubtful", message, cure)


def wrong(check: str, message: str, cure: str) -> Finding:
    """Pulls fail."""
    return Finding(check, "wrong", message, cure)


def show(findings: Sequence[Finding], console: Console) -> int:
    """Print a line for each finding and for its cure. Returns the exit code: 1 where something is wrong."""
    console.document([asdict(finding) for finding in findings])
    for finding in findings:
        sign, style = _SIGNS[finding.level]
        console.line(f"{sign}  {finding.check}: {finding.message}", style)
        if finding.cure:
            console.line(f"    -> {finding.cure}")
    return 1 if any(finding.level == "wrong" for finding in findings) else 0
