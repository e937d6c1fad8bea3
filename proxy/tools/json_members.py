"""The members of a large JSON object, one by one: the object never lies in memory as a whole.

Python's own parser keeps the interpreter's lock until it has read everything, which is seconds for a list of nixpkgs. Here each
member is a step of its own.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

_LONGEST_VALUE = 4 << 20  # characters; also how much is read of a text that is no JSON
_AFTER_A_VALUE = frozenset(" \t\n\r,:}]")
_SPACES = re.compile(r"[ \t\n\r]*")


class MembersInvalid(ValueError):
    """The text is no JSON object of this shape."""


def members(pieces: Iterator[str], inside: str = "") -> Iterator[tuple[str, Any]]:
    """The members of the object in a text, in their order; `pieces` is the text.

    With `inside` these are the members of the object that the outermost one has under this name. Raises `MembersInvalid`, after
    the members that came before the mistake.
    """
    text = _Text(pieces)
    for key in _keys(text):
        if key == inside and inside:
            for inner in _keys(text):
                yield inner, text.value()
        elif inside:
            text.value()
        else:
            yield key, text.value()


def _keys(text: "_Text") -> Iterator[str]:
    """The names in an object. Whoever takes one reads its value before taking the next."""
    text.expect("{")
    if text.take("}"):
        return
    while True:
        key = text.value()
        if not isinstance(key, str):
            raise MembersInvalid("a member has no name")
        text.expect(":")
        yield key
        if text.take("}"):
            return
        text.expect(",")


class _Text:
    """A text in pieces, of which only the part that is being read is in memory."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._text = ""
        self._at = 0
        self._decoder = json.JSONDecoder()

    def take(self, character: str) -> bool:
        """Whether this character comes next, which is then read."""
        self._skip_spaces()
        taken = self._text.startswith(character, self._at)
        self._at += taken
        return taken

    def expect(self, character: str) -> None:
        """Read this character. Raises `MembersInvalid` where another one comes."""
        if not self.take(character):
            raise MembersInvalid(f"there is no {character!r} where the JSON needs one")

    def value(self) -> Any:
        """Read a value. Raises `MembersInvalid`."""
        self._skip_spaces()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if isinstance(error, RecursionError) or not self._more():
                    raise MembersInvalid("a value is cut, too long, or no JSON") from None
            else:
                # The next piece may go on with a number, as with the rest of 1e5.
                if self._text[end : end + 1] in _AFTER_A_VALUE or not self._more():
                    self._at = end
                    return value

    def _skip_spaces(self) -> None:
        while True:
            spaces = _SPACES.match(self._text, self._at)
            self._at = spaces.end() if spaces else self._at
            if self._at < len(self._text) or not self._more():
                return

    def _more(self) -> bool:
        """Whether there was another piece, which is in the text now."""
        if len(self._text) - self._at > _LONGEST_VALUE:
            return False
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._text = self._text[self._at :] + piece
        self._at = 0
        return True
