"""Text that others wrote, made fit for a terminal.

A builder, a package, a registry or a client can put control characters into a text: they ring, move the cursor, rename the window,
or make a line look like another one. None of them goes into a log, a message, a page or a terminal.
"""

import re

#: C0 but for tab and line feed, DEL, C1, what turns the direction of writing, line separators, and halves of characters.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# ECMA-48: what a terminal takes as one command. `CSI` with its parameters, `OSC` and its kin with their text, two characters.
_COMMANDS = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?|\x1b[ -/]*[0-~]"
)
_REPLACEMENT = "\ufffd"


def printable(text: str) -> str:
    """The text without the commands of terminals; any other control character becomes U+FFFD. Line feeds and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub(_REPLACEMENT, _COMMANDS.sub("", text))
