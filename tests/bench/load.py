"""Those who ask: wrk for GETs, ab for HEADs (wrk waits for the body that a HEAD announces), and readers of blobs."""

import asyncio
import csv
import json
import re
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.processes import succeed, write

CONNECTIONS = 16
_REPORT = """
done = function(summary, latency, requests)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format('{"rate": %f, "p50": %f, "p99": %f, "failed": %d}\\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed))
end
"""
_READ = 1 << 18


@dataclass(frozen=True, slots=True)
class Served:
    """Requests per second, and the time that half and nearly all of them took, in ms."""

    rate: float
    p50: float
    p99: float


async def get(
    url: str, accept: str, folder: Path, *, seconds: float, connections: int = CONNECTIONS
) -> Served:
    """As many GETs as there can be, on connections that stay."""
    script = await asyncio.to_thread(write, folder / "report.lua", _REPORT)
    options = (f"-c{connections}", f"-d{seconds:g}s", "-s", str(script), "-H", f"Accept: {accept}")
    said = json.loads((await succeed(("wrk", "-t1", *options, url))).splitlines()[-1])
    assert said["failed"] == 0, f"{url}: {said['failed']} requests failed"
    return Served(said["rate"], said["p50"], said["p99"])


async def head(url: str, accept: str, folder: Path, *, count: int) -> Served:
    """So many HEADs, on connections that stay."""
    times = folder / "ab.csv"
    options = (
        "-i",
        "-k",
        "-q",
        f"-c{CONNECTIONS}",
        f"-n{count}",
        "-e",
        str(times),
        "-H",
        f"Accept: {accept}",
    )
    said = await succeed(("ab", *options, url))
    assert "Non-2xx" not in said, said
    (rate,) = re.findall(r"^Requests per second: +([\d.]+)", said, re.MULTILINE)
    text = await asyncio.to_thread(times.read_text)
    by_percent = {row[0]: float(row[1]) for row in csv.reader(text.splitlines()[1:])}
    return Served(float(rate), by_percent["50"], by_percent["99"])


async def read(url: str, streams: int, size: int) -> float:
    """The bytes per second that so many clients get who read this blob at once, each on a connection of its own."""
    return await asyncio.to_thread(_read_all, url, streams, size)


def _read_all(url: str, streams: int, size: int) -> float:
    received: list[int] = []
    clients = [threading.Thread(target=lambda: received.append(_read(url))) for _ in range(streams)]
    started = time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    seconds = time.perf_counter() - started
    assert received == [size] * streams, f"{url}: {received}"
    return size * streams / seconds


def _read(url: str) -> int:
    """The bytes of a body; a redirect is followed."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(_READ)
            assert more, f"{url}: no answer"
            head += more
        head, _, begun = head.partition(b"\r\n\r\n")
        if b" 307 " in head.split(b"\r\n")[0]:
            (location,) = re.findall(rb"\r\nlocation: *([^\r]+)", head, re.IGNORECASE)
            return _read(location.decode())
        assert b" 200 " in head.split(b"\r\n")[0], head
        count, buffer = len(begun), bytearray(_READ)
        while got := connection.recv_into(buffer):
            count += got
    return count


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
