"""A binary cache in a folder, served by HTTP, that can change what it sends."""

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import override

from proxy.tools.process import run


@dataclass(slots=True)
class Served:
    """A cache by HTTP. `change` maps a request's path and the file's bytes to the bytes that go out, None for a 404."""

    url: str
    paths: list[str]
    change: list[Callable[[str, bytes], bytes | None]] = field(default_factory=list)

    def asked(self, ending: str) -> list[str]:
        """The requests for files of this kind."""
        return [path for path in self.paths if path.endswith(ending)]


class _Handler(http.server.SimpleHTTPRequestHandler):
    served: Served

    @override
    def do_GET(self) -> None:
        self.served.paths.append(self.path)
        file = Path(self.translate_path(self.path))
        data = file.read_bytes() if file.is_file() else None
        for change in self.served.change:
            data = data if data is None else change(self.path, data)
        if data is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(file.stat().st_size))
        self.end_headers()
        self.wfile.write(data)
        if len(data) != file.stat().st_size:
            self.close_connection = True

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    state = Served("", [])
    handler = functools.partial(type("_Bound", (_Handler,), {"served": state}), directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def all_paths(cache: Path) -> list[str]:
    """The store paths that a cache in a folder has."""
    return [file.read_text().split()[1] for file in sorted(cache.glob("*.narinfo"))]


async def copied(cache: Path, target: str) -> None:
    """Copy all store paths of a cache in a folder to another cache."""
    copy = ("nix", "--extra-experimental-features", "nix-command", "copy", "--no-check-sigs")
    await run((*copy, "--from", f"file://{cache}", "--to", target, *all_paths(cache)), deadline=60)
