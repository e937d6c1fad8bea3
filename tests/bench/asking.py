"""Who notices the others: a process that asks one server for one thing, a hundred times a second.

    python -m tests.bench.asking HOST PATH ACCEPT   asks until its standard input ends, then prints each answer's milliseconds
    python -m tests.bench.asking                    answers with some bytes

Each prints a line once it is there, the second its HOST. They are processes of their own, or what else a measurement does would be
in the figures. The second is the yardstick: what its answers take is what this machine takes to give a process its turn.
"""

import json
import re
import select
import socket
import sys
import time
from collections.abc import Sequence

_PAUSE = 0.01  # seconds
_MANIFEST = bytes(1000)  # about as long as that of a small image


def ask(host: str, path: str, accept: str) -> list[float]:
    """How long each answer took, in ms, until standard input ends."""
    name, _, port = host.rpartition(":")
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode()
    times = []
    with socket.create_connection((name, int(port))) as connection:
        print("asking", flush=True)
        while not select.select([sys.stdin], [], [], _PAUSE)[0]:
            started = time.perf_counter()
            connection.sendall(request)
            answer = connection.recv(1 << 16)
            assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
            (length,) = re.findall(rb"\r\ncontent-length: *(\d+)", answer, re.IGNORECASE)
            left = int(length) - len(answer.partition(b"\r\n\r\n")[2])
            while left > 0:
                left -= len(connection.recv(left))
            times.append((time.perf_counter() - started) * 1000)
    return times


def answer() -> None:
    """Answer one client until it hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(f"127.0.0.1:{server.getsockname()[1]}", flush=True)
        connection, _ = server.accept()
        with connection:
            while connection.recv(1 << 16):
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(_MANIFEST), _MANIFEST)
                )


def main(arguments: Sequence[str]) -> None:
    """Ask or answer."""
    if arguments:
        print(json.dumps(ask(*arguments)))
    else:
        answer()


if __name__ == "__main__":
    main(sys.argv[1:])
