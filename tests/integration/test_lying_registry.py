"""A registry that breaks HTTP's rules, on every way of a blob and for manifests: nobody gets bytes of another answer."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import h11
import pytest
import pytest_asyncio

from tests.support.front import Front
from tests.support.liar import CLOSE, PAUSE, Liar, liar

Start = Callable[..., AbstractAsyncContextManager[Front]]
DATA = bytes(range(256)) * 1200  # 300 KiB: more than what is copied instead of spliced
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
SIZE = b"Content-Length: %d\r\n" % len(DATA)
#: What nobody may ever get: the start of an answer to nobody's question.
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%b\r\n" % (len(DATA), DATA)

LIES = {
    "closes-early": OK + SIZE + b"\r\n" + DATA[:-1000] + CLOSE,
    "closes-at-once": OK + SIZE + b"\r\n" + CLOSE,
    "closes-in-its-head": OK + b"Content-Le" + CLOSE,
    "closes-without-a-word": CLOSE,
    "more": OK + SIZE + b"\r\n" + DATA + POISON,
    "more-small": OK + b"Content-Length: 3\r\n\r\nabc" + POISON,
    "more-later": OK + SIZE + b"\r\n" + DATA + PAUSE + POISON,
    "part-nobody-asked-for": b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-9/10\r\n"
    + SIZE
    + b"\r\n"
    + DATA
    + POISON,
    "part-that-is-short": b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9999999/10000000\r\n"
    b"Content-Length: 10000000\r\n\r\n" + DATA + CLOSE,
    "part-of-nonsense": b"HTTP/1.1 206 Partial Content\r\nContent-Range: x\r\nContent-Length: 3\r\n\r\nabcd"
    + POISON,
    "unsatisfied": b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */3\r\nContent-Length: 2\r\n\r\n"
    b"more than two" + POISON,
    "unchanged-with-a-body": b"HTTP/1.1 304 Not Modified\r\n" + SIZE + b"\r\n" + DATA + POISON,
    "unchanged-with-another": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n" + POISON,
    "unchanged-in-chunks": b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"
    + CHUNK
    + POISON,
    "nothing-with-a-body": b"HTTP/1.1 204 No Content\r\n" + SIZE + b"\r\n" + DATA + POISON,
    "nothing-with-another": b"HTTP/1.1 204 No Content\r\n\r\n" + POISON,
    "chunk-without-a-size": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n" + POISON,
    "chunk-with-a-sign": CHUNKED + b"-5\r\nabcde\r\n0\r\n\r\n" + POISON,
    "chunk-of-all": CHUNKED + b"f" * 40 + b"\r\nabc\r\n0\r\n\r\n" + POISON,
    "chunk-that-is-long": CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n" + POISON,
    "chunks-that-end": CHUNKED + CHUNK + CLOSE,
    "chunks-and-more": CHUNKED + CHUNK + b"0\r\n\r\n" + POISON,
    "chunks-and-a-length": OK
    + b"Content-Length: 9999999\r\nTransfer-Encoding: chunked\r\n\r\n"
    + CHUNK
    + b"0\r\n\r\n",
    "chunks-and-a-short-length": OK
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    + CHUNK
    + b"0\r\n\r\n",
    "two-lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd" + POISON,
    "negative-length": OK + b"Content-Length: -3\r\n\r\nabc" + POISON,
    "endless-length": OK + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n" + DATA + CLOSE,
    "length-of-words": OK + b"Content-Length: many\r\n\r\nabc" + POISON,
    "odd-coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNK + b"0\r\n\r\n" + POISON,
    "no-coding": OK + b"Transfer-Encoding: identity\r\n" + SIZE + b"\r\n" + DATA + POISON,
    "another-protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    + POISON,
    "another-protocol-plainly": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + POISON,
    "no-head": DATA + POISON + CLOSE,
    "no-http": b"SSH-2.0-OpenSSH_9.2\r\n" + PAUSE + POISON + CLOSE,
    "http-2": b"HTTP/2.0 200 OK\r\n" + SIZE + b"\r\n" + DATA + POISON,
    "status-99": b"HTTP/1.1 099 Odd\r\nContent-Length: 3\r\n\r\nabc" + POISON,
    "status-999": b"HTTP/1.1 999 Odd\r\nContent-Length: 3\r\n\r\nabcd" + POISON,
    "status-20": b"HTTP/1.1 20 Odd\r\nContent-Length: 3\r\n\r\nabc" + POISON,
    "status-2000": b"HTTP/1.1 2000 Odd\r\nContent-Length: 3\r\n\r\nabc" + POISON,
    "odd-reason": b"HTTP/1.1 200 \xff\x01\x7f\r\nContent-Length: 3\r\n\r\nabcd" + POISON,
    "odd-names": OK + b"X Y: z\r\n: z\r\nContent-Length: 3\r\n\r\nabc" + POISON,
    "folded": OK + b"X: a\r\n  b\r\nContent-Length: 3\r\n\r\nabcd" + POISON,
    "nul": OK + b"X: a\0b\r\nContent-Length: 3\r\n\r\nabcd" + POISON,
    "bare-cr": OK + b"X: a\rContent-Length: 9\r\nContent-Length: 3\r\n\r\nabcd" + POISON,
    "one-long-header": OK + b"X: " + b"y" * 1_500_000 + b"\r\nContent-Length: 3\r\n\r\nabcd" + POISON,
    "many-headers": OK + b"X: y\r\n" * 40_000 + b"Content-Length: 3\r\n\r\nabcd" + POISON,
    "many-small-answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000
    + OK
    + b"Content-Length: 3\r\n\r\nabcd"
    + POISON,
    "says-it-is-packed": OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabcd" + POISON,
}
#: What HTTP allows, however odd: these arrive as they are.
ODDITIES = {
    "trailers": CHUNKED + CHUNK + b"0\r\nX-Behind: z\r\n\r\n",
    "extensions": CHUNKED + b'%x;name="value";x\r\n%b\r\n0;last\r\n\r\n' % (len(DATA), DATA),
    "hints": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK + SIZE + b"\r\n" + DATA,
    "old": b"HTTP/1.0 200 OK\r\n\r\n" + DATA + CLOSE,
    "byte-by-byte": PAUSE.join((OK[:5], OK[5:], SIZE[:9], SIZE[9:] + b"\r", b"\n" + DATA[:7], DATA[7:])),
}


@dataclass
class Got:
    """What a strict client read: the status (0 where there was no answer), the body, and whether it came to its end."""

    status: int = 0
    body: bytes = b""
    whole: bool = False


class Client:
    """A client that reads strictly: one connection, with one question after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 22)
        self.received = b""

    async def get(self, path: str, headers: list[tuple[str, str]] | None = None) -> Got:
        got = Got()
        request = h11.Request(method="GET", target=path, headers=[("Host", "x"), *(headers or [])])
        try:
            self._writer.write(self._protocol.send(request) or b"")
            self._protocol.send(h11.EndOfMessage())
            while not got.whole:
                event = self._protocol.next_event()
                if event is h11.NEED_DATA:
                    data = await self._reader.read(1 << 16)
                    self.received += data
                    self._protocol.receive_data(data)
                elif isinstance(event, h11.Response):
                    got.status = event.status_code
                elif isinstance(event, h11.Data):
                    got.body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    got.whole = True
                elif isinstance(event, h11.ConnectionClosed):
                    break
        except (h11.RemoteProtocolError, ConnectionError):
            return got
        return got

    def goes_on(self) -> bool:
        """Whether the next question can be asked on this connection."""
        if self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE:
            self._protocol.start_next_cycle()
            return True
        return False

    def close(self) -> None:
        self._writer.close()


async def connected(url: str) -> Client:
    return Client(*await asyncio.open_connection(*url.removeprefix("http://").split(":")))


@dataclass
class Behind:
    """A liar, nixfront before it, and the path of what a lie is about."""

    registry: Liar
    front: Front
    path: str


@pytest_asyncio.fixture(params=["spliced", "plain", "shared disk", "redirect", "manifest"])
async def behind(
    request: pytest.FixtureRequest, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Behind]:
    section: dict[str, str] = {}
    path = f"/v2/NAME/tool/blobs/{DIGEST}"
    if request.param == "plain":
        monkeypatch.setattr("proxy.web.blobs.splice.possible", lambda _: False)
    elif request.param == "shared disk":
        section["storage"] = str(store(tmp_path / "storage"))
    elif request.param == "redirect":
        section["public_url"] = "https://blobs.example"
    elif request.param == "manifest":
        path = f"/v2/NAME/tool/manifests/{DIGEST}"
    async with liar(LIES, ODDITIES) as registry, start(registry.url, registry=section) as front:
        yield Behind(registry, front, path)


def store(folder: Path) -> Path:
    """A registry's folder in which every lie's repository has the blob."""
    hexadecimal = DIGEST.removeprefix("sha256:")
    root = folder / "docker/registry/v2"
    data = root / "blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"
    data.parent.mkdir(parents=True)
    data.write_bytes(DATA)
    for name in (*LIES, *ODDITIES):
        link = root / "repositories" / name / "tool/_layers/sha256" / hexadecimal / "link"
        link.parent.mkdir(parents=True)
        link.write_text(DIGEST)
    return folder


async def test_nobody_gets_bytes_of_another_answer(behind: Behind, caplog: pytest.LogCaptureFixture) -> None:
    honest = "/v2/honest/tool/blobs/sha256:" + "0" * 64
    wrong = []
    for name in LIES:
        path = behind.path.replace("NAME", name)
        client, got = await connected(behind.front.url), Got()
        try:
            async with asyncio.timeout(20):
                got = await client.get(path)
                if name == "more-later":
                    await asyncio.sleep(0.5)
                if got.whole and client.goes_on():
                    after = await client.get("/v2/honest/tool/tags/list")
                    if (after.status, after.body) != (
                        200,
                        behind.registry.truth("/v2/honest/tool/tags/list"),
                    ):
                        wrong.append(
                            f"{name}: {after.status} {after.body[:99]!r} to the next on its connection"
                        )
                other = await connected(behind.front.url)
                for _ in range(2):
                    after = await other.get(honest)
                    other.goes_on()
                    if (after.status, after.body[:99]) not in (
                        (200, behind.registry.truth(honest)[:99]),
                        (307, b""),
                    ):
                        wrong.append(f"{name}: {after.status} {after.body[:99]!r} to somebody else")
                other.close()
        except TimeoutError:
            wrong.append(f"{name}: no answer")
        if POISON[-6:] in client.received and name != "no-head":
            wrong.append(f"{name}: a client got what was meant for nobody: {client.received[:300]!r}")
        if got.status // 100 == 1:
            wrong.append(f"{name}: {got.status} went on to the client")
        # aiohttp drops what comes behind a 101, so its connection may be used.
        if behind.registry.reused(path) and name != "another-protocol-plainly":
            wrong.append(f"{name}: its connection was used again")
        client.close()
    wrong += traces(caplog)

    assert not wrong, "\n".join(wrong)


async def test_what_http_allows_arrives(behind: Behind, caplog: pytest.LogCaptureFixture) -> None:
    for name in ODDITIES:
        client = await connected(behind.front.url)
        try:
            async with asyncio.timeout(20):
                got = await client.get(behind.path.replace("NAME", name))
        finally:
            client.close()
        assert got.whole, name
        assert (got.status, got.body) in ((200, DATA), (307, b"")), name
        assert b"X-Behind" not in client.received

    assert not traces(caplog)


def traces(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The records that no operator should ever read."""
    return [
        f"{record.name}: {record.getMessage()}: {record.exc_info[1]!r}"
        if record.exc_info
        else record.getMessage()
        for record in caplog.records
        if record.exc_info or record.levelno >= logging.ERROR
    ]
