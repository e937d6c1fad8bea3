"""A fuzz of the HTTP front: seeded bytes to nixfront, and the same bytes to a stock registry that says what is right.

A case is a request of a real client with some mutations. Some keep it HTTP: then nixfront's answer has the class of status
that the registry's has. The others may break it: then nixfront may be stricter. A number and a seed make a case again.

    tests/fuzz --minutes 10 --seed 7          the whole run, which prints its figures
    tests/fuzz --seed 7 --only 1234           one case: its bytes and both answers
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.support import handmade
from tests.support.front import PACKAGES
from tests.support.processes import run
from tests.support.servers import FROM_CHECKOUT, Server, nixfront, stock_registry

AT_ONCE = 24  # most of them wait for an end that comes by a time-out
_BATCH = 150  # cases between two looks
_PATIENCE = 90.0  # seconds after which a connection counts as stuck: much more than any answer takes
_QUIET = 1.0  # seconds in which neither server says a word to a request that is not whole
_MADE = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
_BLOB = handmade.digest_of(_MADE.layers[0])
#: A request inside of others, which no server may take for one.
_INNER = b"GET /v2/inner/%09d/tags/list HTTP/1.1\r\nHost: a\r\n\r\n"

_METHODS = [
    b"GET",
    b"HEAD",
    b"PUT",
    b"POST",
    b"PATCH",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"PROPFIND",
]
_TARGETS = [
    b"/v2/", b"/v2", b"/v2/_catalog", b"/v2/TOKEN/tags/list", b"/v2/TOKEN/manifests/latest", b"/v2/kept/manifests/v1",
    b"/v2/kept/blobs/" + _BLOB.encode(), b"/v2/TOKEN/blobs/sha256:" + b"0" * 64, b"/v2/TOKEN/blobs/uploads/",
    b"/v2/TOKEN/blobs/uploads/no-such", b"/v2/TOKEN/manifests/sha256:" + b"f" * 64, b"/v2/TOKEN/manifests/no:digest",
    b"/v2/TOKEN/referrers/sha256:" + b"0" * 64, b"/v2/TOKEN/tags/list?n=x", b"/v2/TOKEN/tags/list?n=1&last=a",
    b"/v2//TOKEN/tags/list", b"/v2/../TOKEN/tags/list", b"/v2/%2e%2e/TOKEN/tags/list", b"/v2/TOKEN%2fx/tags/list",
    b"/v2/TOKEN/manifests/%00", b"/v2/TOKEN/manifests/" + b"t" * 129, b"/v2/TOKEN/x/" + b"n" * 256 + b"/tags/list",
    b"/v2/TOKEN/tags/list#part", b"/v2/TOKEN/tags/list?%c3%a9", b"/v2/TOKEN/tags/list;x", b"/v2/UPPER/TOKEN/tags/list",
    b"http://a/v2/TOKEN/tags/list", b"http://other.example/v2/TOKEN/tags/list", b"/v2/TOKEN/" + b"a/" * 3000 + b"tags/list",
]  # fmt: skip
#: What nixfront's parser refuses and a stock registry does not.
_ODD_METHODS = [b"get", b"X", b"GET\t", b"G(T", b""]
_LINES = [
    b"Accept: */*", b"Accept: " + _MADE.media_type.encode(), b"Accept:", b"Accept: " + b"x/y, " * 2000, b"Range: bytes=0-0",
    b"Range: bytes=-1", b"Range: bytes=9-1", b"Range: bytes=0-0,5-6", b"Range: x", b"If-None-Match: x", b"If-Match: x",
    b"If-Modified-Since: x", b"Authorization: Basic eDp5", b"Authorization: x", b"Authorization:", b"Cookie: a=b; c",
    b"User-Agent: \xff\xfe", b"X-Request-Id: a b", b"X-Request-Id: abcdefgh12345678", b"X-Forwarded-For: 1.2.3.4",
    b"X-Forwarded-Host: evil.example", b"X-Forwarded-Proto: ftp", b"Forwarded: for=x;host=y", b"TE: trailers",
    b"Connection: keep-alive, Accept, Host", b"Keep-Alive: 99999", b"Proxy-Connection: x",
    b"Proxy-Authorization: Basic eDp5", b"X-Long: " + b"y" * 9000, b"Docker-Content-Digest: x", b"Location: http://evil.example/",
    b"Accept-Encoding: gzip;q=0, *;q=1", b"Content-Type: x", b"Content-Range: 0-9", b"Via: 1.1 x", b"Expect: 100-continue",
    b"X-HTTP-Method-Override: DELETE", b"Transfer-Encoding-X: chunked", b"Content-Lengths: 5", b"X_Y: z", b"Trailer: X-After",
]  # fmt: skip
#: What may be no HTTP any more, or HTTP that servers understand in two ways.
_ODD_LINES = [
    b"Connection: close, close", b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding : chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding:\x0bchunked", b"Content-Length: 5",
    b"Content-Length: 0", b"Content-Length: +5", b"Content-Length: 5, 5", b"Content-Length: 99999999999999999999",
    b"Content-Length: 0x5", b"Content-Length: ", b"Host: b", b"Host: a b", b"Host:", b"Host: [::1", b" folded: x", b"\tfolded",
    b"no colon", b": no name", b"X: a\0b", b"X: a\rY: b", b"X: a\nContent-Length: 5", b"X Y: z", b"\x80: z", b"Expect: something",
    b"Upgrade: websocket\r\nConnection: upgrade", b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAA",
    b"X: \xe2\x80\xa8", b"X: " + b"z" * 70_000,
]  # fmt: skip
_BODIES = [b"", b"{}", b"abc" * 50, _MADE.manifest, b"\0" * 5000]
_ENDS = [
    b"0\r\n\r\n", b"0\r\nX-After: y\r\n\r\n", b"0;last\r\n\r\n", b"000\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\nodd\r\n\r\n",
    b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\nHost: b\r\n\r\n", b"g\r\n", b"-1\r\n\r\n", b"0\n\n", b"ffffffffffffffffff\r\n", b"",
]  # fmt: skip
_FINE_ENDS = 4  # so many of them are HTTP


@dataclass(frozen=True, slots=True)
class Case:
    """Bytes of one connection. `token` is in the paths; `requests`: so many it means; `is_http`: nothing in it is odd."""

    number: int
    token: str
    pieces: tuple[bytes, ...]
    requests: int
    is_http: bool


def case(seed: int, number: int) -> Case:
    """The case of this seed and number."""
    chosen = random.Random(f"{seed}-{number}")
    token = f"fuzz{number}"
    count = chosen.choice((1, 1, 1, 1, 2, 3))
    is_http = chosen.random() < 0.5
    data = b"".join(_request(chosen, number, is_http, is_last=each == count - 1) for each in range(count))
    data = data.replace(b"TOKEN", token.encode())
    if not is_http:
        data = _broken(chosen, number, data)
    cuts = sorted(chosen.randrange(len(data) + 1) for _ in range(chosen.choice((0, 0, 1, 3))))
    pieces = tuple(data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True))
    return Case(number, token, pieces, count, is_http)


def _request(chosen: random.Random, number: int, is_http: bool, is_last: bool) -> bytes:
    method, target = (
        chosen.choice(_METHODS[:6] if chosen.random() < 0.8 else _METHODS),
        chosen.choice(_TARGETS),
    )
    if not is_http and chosen.random() < 0.1:
        method = chosen.choice(_ODD_METHODS)
    if method == b"DELETE":  # what one case deletes, another one would miss
        target = target.replace(b"kept", b"TOKEN")
    more = [chosen.choice(_LINES) for _ in range(chosen.randrange(6))]
    if is_http:  # nixfront's parser refuses some lines that come twice, and a stock registry does not
        more = list({line.split(b":")[0]: line for line in more}.values())
    lines = [b"Host: a", *more]
    version = b"HTTP/1.1"
    if not is_http:
        lines += [chosen.choice(_ODD_LINES) for _ in range(chosen.randrange(3))]
        version = chosen.choice(
            (version, version, version, b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/9", b"http/1.1", b"")
        )
    body, framing = chosen.choice([*_BODIES, _INNER % number]), chosen.choice(("none", "length", "chunks"))
    if framing == "length":
        lines.append(
            b"Content-Length: %d" % (len(body) + (0 if is_http else chosen.choice((0, 0, 0, -1, 1, 50))))
        )
    elif framing == "chunks":
        lines.append(b"Transfer-Encoding: chunked")
        body = _chunks(chosen, body) + chosen.choice(_ENDS[:_FINE_ENDS] if is_http else _ENDS)
    else:
        body = b""
    if is_last:
        lines.append(b"Connection: close")
    chosen.shuffle(lines)
    return method + b" " + target + b" " + version + b"\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + body


def _chunks(chosen: random.Random, body: bytes) -> bytes:
    size = chosen.choice((1 + len(body), 7, 100))
    extension = chosen.choice((b"", b"", b";a=b", b";x"))
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)


def _broken(chosen: random.Random, number: int, data: bytes) -> bytes:
    """The bytes with a few changes anywhere."""
    for _ in range(chosen.choice((0, 1, 1, 3))):
        at = chosen.randrange(len(data) + 1)
        match chosen.randrange(5):
            case 0:
                data = data[:at] + bytes([chosen.randrange(256)]) + data[at + 1 :]
            case 1:
                data = (
                    data[:at]
                    + chosen.choice((b"\r", b"\n", b"\0", b"\r\n", b" ", b"\x7f", b":", _INNER % number))
                    + data[at:]
                )
            case 2:
                data = data[:at] + data[at + chosen.randrange(1, 9) :]
            case 3:
                data = data.replace(b"\r\n", chosen.choice((b"\n", b"\r\r\n", b"\r\n")))
            case _:
                data = data[:at] + b"Z" * chosen.choice((10, 10_000)) + data[at:]
    return data[: chosen.randrange(len(data) + 1)] if chosen.random() < 0.15 else data


@dataclass
class Report:
    """What happened. `wrong`: what may never be; `samples`: memory, descriptors and tasks after each batch."""

    seed: int
    cases: int = 0
    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)


class Fuzz:
    """A nixfront, the registry behind it, and the oracle: a registry with the same images."""

    def __init__(self, front: Server, behind: Server, oracle: Server, seed: int) -> None:
        self.report = Report(seed)
        self._front, self._behind, self._oracle = front, behind, oracle
        self._twice: set[int] = set()

    async def batch(self, numbers: range) -> None:
        """Send these cases, then look at everything."""
        room = asyncio.Semaphore(AT_ONCE)
        cases = [case(self.report.seed, number) for number in numbers]

        async def one(each: Case) -> None:
            async with room:
                # A machine that is busy may have let a time-out pass: what is wrong is wrong twice.
                if _problem(each, *await self.answers(each)):
                    self._twice.add(each.number)
                    ours, right = await self.answers(each)
                    if problem := _problem(each, ours, right):
                        self.report.wrong.append(
                            f"case {each.number}: {problem}: {ours} instead of {right}: {each.pieces[0][:90]!r}"
                        )

        await asyncio.gather(*(one(each) for each in cases))
        await asyncio.to_thread(self._count_requests, cases)
        await self._look()
        self.report.cases += len(cases)

    async def answers(self, each: Case) -> tuple[int | None, int | None]:
        """The status of the first answer of nixfront and of the oracle; 0: closed without one; None: it waits for more."""
        ours = asyncio.create_task(_status(self._front.host, each.pieces))
        right = asyncio.create_task(_status(self._oracle.host, each.pieces))
        try:
            done, _ = await asyncio.wait((right,), timeout=_QUIET)
            await asyncio.wait((ours,), timeout=_PATIENCE if done else _QUIET)
            status = ours.result() if ours.done() else None
            self.report.answers[
                f"{'http' if each.is_http else 'odd'} {status if status is None else status // 100}"
            ] += 1
            return status, right.result() if right.done() else None
        finally:
            for task in (ours, right):
                task.cancel()
            await asyncio.gather(ours, right, return_exceptions=True)

    def _count_requests(self, cases: list[Case]) -> None:
        """Each request of a client is at most one of the registry's, and no body is a request."""
        behind, oracle = (_requests(server) for server in (self._behind, self._oracle))
        for each in cases:
            seen, right = behind[each.token], oracle[each.token]
            if seen > max((1 + (each.number in self._twice)) * each.requests, right):
                self.report.wrong.append(
                    f"case {each.number}: {seen} requests reached the registry, {right} the oracle"
                )
            if behind[f"inner/{each.number:09}"] > oracle[f"inner/{each.number:09}"]:
                self.report.wrong.append(f"case {each.number}: a request in a body reached the registry")

    async def _look(self) -> None:
        """nixfront answers others, has nothing odd in its log; what it has in use goes to the samples."""
        async with aiohttp.ClientSession(self._front.url) as session:
            async with session.get(f"/v2/marker/blobs/{_BLOB}") as blob:
                if (blob.status, await blob.read()) != (200, _MADE.layers[0]):
                    self.report.wrong.append(f"after case {self.report.cases}: a blob is {blob.status}")
            async with session.get("/metrics") as counts:
                values = dict(re.findall(r"^(\w+) ([0-9.e+]+)$", await counts.text(), re.MULTILINE))
        names = ("process_resident_memory_bytes", "process_open_fds", "nixfront_tasks")
        self.report.samples.append({name: float(values[name]) for name in names})
        log = await asyncio.to_thread(self._front.process.log_text)
        odd = [
            line
            for line in log.splitlines()
            if re.search(r"^Traceback| (error|critical) | does not answer", line)
        ]
        self.report.wrong += [
            f"in the log: {line[:300]}"
            for line in dict.fromkeys(odd)
            if f"in the log: {line[:300]}" not in self.report.wrong
        ]

    def grown(self) -> list[str]:
        """What is more in the last third than in the second, by more than noise."""
        third = len(self.report.samples) // 3
        grown = []
        for name, noise in (
            ("process_resident_memory_bytes", 16 << 20),
            ("process_open_fds", 16),
            ("nixfront_tasks", 16),
        ):
            early = min(
                sample[name] for sample in self.report.samples[third : 2 * third] or [{name: float("inf")}]
            )
            late = min(sample[name] for sample in self.report.samples[2 * third :] or [{name: 0.0}])
            if late > early * 1.05 + noise:
                grown.append(f"{name} grew from {early:.0f} to {late:.0f}")
        return grown


def _problem(each: Case, ours: int | None, right: int | None) -> str:
    """What may not be in these two answers; empty if all is well."""
    if ours is None and right is not None:
        return "no answer and no end"
    # 505 is a refusal. Where a stock registry hangs up without an answer, nobody knows whether it would have been an error.
    if ours and ours >= 500 and ours != 505 and (right is None or 0 < right < 500):
        return "an error of ours"
    # A list of tags that is empty, and a name that is too long, are the differences that are documented.
    if each.is_http and ours is not None and right and right < 500 and (ours, right) != (200, 404):
        return "" if ours // 100 == right // 100 else "another class of status"
    return ""


async def _status(host: str, pieces: tuple[bytes, ...]) -> int:
    """The status of the first final answer, 0 if there is none before the end."""
    reader, writer = await asyncio.open_connection(*host.split(":"))
    try:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
        received = b""
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(1 << 16):
                received += chunk
                while match := re.match(rb"HTTP/1\.\d 1\d\d .*?\r\n\r\n", received, re.DOTALL):
                    received = received[match.end() :]
                if match := re.match(rb"HTTP/1\.\d ([2-9]\d\d) .*?\r\n\r\n", received, re.DOTALL):
                    return int(match[1])
        match = re.match(rb"HTTP/1\.\d ([2-9]\d\d) ", received)
        return int(match[1]) if match else 0
    finally:
        writer.close()


def _requests(server: Server) -> Counter[str]:
    """How often each token is in the target of a request that a registry has logged."""
    lines = re.findall(r'^\S+ - - \[[^]]*\] "\S+ (.*) HTTP/', server.process.log_text(), re.MULTILINE)
    return Counter(token for line in lines for token in re.findall(r"fuzz\d+|inner/\d+", line))


@contextlib.asynccontextmanager
async def fuzz(folder: Path, seed: int) -> AsyncIterator[Fuzz]:
    """All three servers, with data in `folder`. No name may be built: Nix has tests of its own."""
    settings = {
        "nix": {"store": str(folder / "store")},
        "packages": {"kind": "path", "path": str(PACKAGES)},
        "access": {"repositories": ["nothing"]},
        "http": {"head_seconds": 8, "body_seconds": 8},
        "answers": {"seconds": 0},
    }
    async with contextlib.AsyncExitStack() as stack:
        registries = []
        for name in ("behind", "oracle"):
            (folder / name).mkdir()
            registries.append(await stack.enter_async_context(stock_registry(folder / name)))
            for repository in ("kept", "marker"):
                await handmade.push(registries[-1].url, repository, "v1", _MADE)
        settings["registry"] = {"url": registries[0].url}
        front = await stack.enter_async_context(nixfront(folder, settings=settings, command=FROM_CHECKOUT))
        yield Fuzz(front, registries[0], registries[1], seed)


def batches(count: int) -> Iterator[range]:
    """So many cases, in batches."""
    return (range(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH))


async def _main(seed: int, minutes: float, only: int | None) -> int:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        async with fuzz(folder, seed) as running:
            if only is not None:
                each = case(seed, only)
                sys.stdout.write(f"{each}\n{await running.answers(each)}\n")
                return 0
            began = time.monotonic()
            for numbers in batches(1 << 30):
                await running.batch(numbers)
                if time.monotonic() - began > minutes * 60:
                    break
            report = running.report
            report.seconds = round(time.monotonic() - began)
            wrong = [*report.wrong, *running.grown()]
            document = {
                **vars(report),
                "samples": report.samples[:: max(1, len(report.samples) // 10)],
                "wrong": wrong,
            }
            sys.stdout.write(json.dumps(document, indent=2) + "\n")
            return 1 if wrong else 0
    finally:
        await run(("rm", "-rf", str(folder)))


def main() -> int:
    """The command `tests/fuzz`."""
    parser = argparse.ArgumentParser(prog="tests/fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=20261129)
    parser.add_argument("--only", type=int, help="the number of one case")
    arguments = parser.parse_args()
    os.environ["NIX_CONFIG"] = "substituters =\n"
    return asyncio.run(_main(arguments.seed, arguments.minutes, arguments.only))


if __name__ == "__main__":
    raise SystemExit(main())
