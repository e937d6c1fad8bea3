"""`python -m proxy.trust FILE...`: the documents of these images, whose facts are in the files (see `record`).

A program of its own, as the libraries take long to load and work for seconds on a large image: a server would stop meanwhile.
It prints one JSON object: the documents of each file as texts by kind, or its `error`.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from proxy.trust import record
from proxy.trust.documents import documents

ERROR = "error"


def main(files: list[str]) -> None:
    """Print the documents of these files."""
    json.dump(of_files(files), sys.stdout)


def of_files(files: Iterable[str]) -> dict[str, dict[str, str]]:
    """The documents of each file by kind, or its `error`."""
    return {file: _documents(Path(file)) for file in files}


def _documents(file: Path) -> dict[str, str]:
    try:
        made = documents(record.read(file.read_bytes()))
    except Exception as error:  # one image must not cost the others their documents
        return {ERROR: repr(error)}
    return {name: document.decode() for name, document in made.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
