"""Give the store paths in a stream other hashes: `python renaming.py FILE`, a filter between two runs of Nix.

FILE holds a JSON object: the hash of a store path -> the hash to write instead, both of 32 characters. The stream is that of
`nix-store --export`: it has no checksums, so bytes of the same length may change. Where a store path stands, it stands whole, with
the folder of the store in front.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

_STORE_PATH = re.compile(rb"/nix/store/([0-9a-z]{32})")
_LONGEST = len(b"/nix/store/") + 32
_CHUNK = 1 << 20


def renamed(source: BinaryIO, names: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """The bytes of the stream, with these hashes instead of those."""

    def other(match: re.Match[bytes]) -> bytes:
        return match[0][:-32] + names.get(match[1], match[1])

    rest = b""
    while chunk := source.read(_CHUNK):
        text = _STORE_PATH.sub(other, rest + chunk)
        # A store path may go on in the next chunk. The rest is too short for a whole one, so none is replaced twice.
        rest = text[1 - _LONGEST :]
        yield text[: len(text) - len(rest)]
    yield rest


def main() -> None:
    """Rename from standard input to standard output."""
    names = json.loads(Path(sys.argv[1]).read_bytes())
    pairs = {old.encode(): new.encode() for old, new in names.items()}
    for part in renamed(sys.stdin.buffer, pairs):
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
