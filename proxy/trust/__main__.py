"""`python -m proxy.trust`: the documents of images, whose facts are in files (see `record`).

A program of its own, as the libraries take long to load and work for seconds on a large image: a server would stop meanwhile.
It reads the names of files from standard input, a JSON list on each line, until that ends. For each list it prints a line with
the size of its answer, and the answer, one JSON object: the documents of each file as texts by kind, or its `error`.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

ERROR = "error"


def main() -> None:
    """Answer each line."""
    for line in sys.stdin.buffer:
        answer = json.dumps(of_files(json.loads(line))).encode()
        sys.stdout.buffer.write(b"%d\n%b" % (len(answer), answer))
        sys.stdout.buffer.flush()


def of_files(files: Iterable[str]) -> dict[str, dict[str, str]]:
    """The documents of each file by kind, or its `error`."""
    return {file: _documents(Path(file)) for file in files}


def _documents(file: Path) -> dict[str, str]:
    # `beartype`, by which spdx-tools checks types, does nothing with this; it would double the time to load. Python read the
    # variable when it started, and compiles modules as before.
    os.environ["PYTHONOPTIMIZE"] = "1"
    from proxy.trust import record
    from proxy.trust.documents import documents

    try:
        made = documents(record.read(file.read_bytes()))
    except Exception as error:  # one image must not cost the others their documents
        return {ERROR: repr(error)}
    return {name: document.decode() for name, document in made.items()}


if __name__ == "__main__":
    main()
