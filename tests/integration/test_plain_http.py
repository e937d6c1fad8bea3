"""Questions on sockets of our own: what comes back, and which connections are used again."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from proxy.web.blobs.plain_http import BrokenOff, PlainHttp
from tests.support.wait import PATIENCE

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Script:
    """A server that says prepared bytes for each question, `None` ending the connection; and what it was asked."""

    def __init__(self, *says: bytes | None) -> None:
        self.says = list(says)
        self.asked: list[bytes] = []
        self.connections = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.says:
                self.asked.append(await reader.readuntil(b"\r\n\r\n"))
                said = self.says.pop(0)
                if said is None:
                    break
                writer.write(said)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[PlainHttp]:
    server = await asyncio.start_server(script.talk, "127.0.0.1", 0)
    async with server:
        client = PlainHttp("127.0.0.1", server.sockets[0].getsockname()[1])
        try:
            yield client
        finally:
            client.close()


async def whole(client: PlainHttp, target: str = "/x") -> tuple[int, bytes]:
    async with client.get(target, [("Accept", "a"), ("Accept", "b")]) as answer:
        body = b""
        while data := await answer.read():
            body += data
        return answer.status, body


async def test_question_and_answer_are_what_was_said() -> None:
    script = Script(b"HTTP/1.1 206 Quite Fine\r\nX-Case: A\r\nx-case: b\r\nContent-Length: 2\r\n\r\nhi")
    async with (
        serving(script) as client,
        client.get("/v2/?a=%20", [("Accept", "a"), ("accept", "b")]) as answer,
    ):
        assert (answer.status, answer.reason) == (206, "Quite Fine")
        assert answer.headers == [("X-Case", "A"), ("x-case", "b"), ("Content-Length", "2")]

    first, host, *rest = script.asked[0].split(b"\r\n")
    assert first == b"GET /v2/?a=%20 HTTP/1.1"
    assert host.startswith(b"Host: 127.0.0.1:")
    assert rest == [b"Accept: a", b"accept: b", b"", b""]


@pytest.mark.parametrize(
    "says",
    [
        pytest.param(OK, id="a length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            id="chunks",
        ),
        pytest.param(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, id="something before"),
    ],
)
async def test_a_connection_is_used_again(says: bytes) -> None:
    script = Script(says, says)
    async with serving(script) as client:
        answers = [await whole(client) for _ in range(2)]

    assert answers == [(200, b"hello")] * 2
    assert script.connections == 1


@pytest.mark.parametrize(
    "says",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 5\r\n\r\nhello", id="said"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", id="old"),
        pytest.param(OK + b"more than was said", id="out of step"),
    ],
)
async def test_a_connection_is_not_used_again(says: bytes) -> None:
    script = Script(says, says)
    async with serving(script) as client:
        for _ in range(2):
            assert await whole(client) == (200, b"hello")
            await asyncio.sleep(0.05)

    assert script.connections == 2


async def test_an_answer_that_was_not_read_to_its_end_closes_its_connection() -> None:
    script = Script(OK, OK)
    async with serving(script) as client:
        async with client.get("/", []) as answer:
            assert answer.left == 5
        assert await whole(client) == (200, b"hello")

    assert script.connections == 2


async def test_a_body_up_to_the_end_of_the_connection() -> None:
    script = Script(b"HTTP/1.1 200 OK\r\n\r\nhello", None)
    async with serving(script) as client, client.get("/", []) as answer:
        assert answer.left is None
        assert await answer.read() == b"hello"
        answer.socket.shutdown(socket.SHUT_WR)  # upon which the server hangs up
        assert await answer.read() == b""


async def test_no_body_where_none_can_be() -> None:
    script = Script(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", OK)
    async with serving(script) as client:
        assert await whole(client) == (304, b"")
        assert await whole(client) == (200, b"hello")

    assert script.connections == 1


async def test_what_is_on_the_socket_is_counted() -> None:
    head, size = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", 1_000_000
    async with serving(Script(head + bytes(size))) as client, client.get("/", []) as answer:
        begun = answer.begun()
        assert answer.left == size - len(begun)
        rest = b""
        while len(rest) < answer.left:
            rest += await asyncio.get_running_loop().sock_recv(answer.socket, answer.left - len(rest))
        assert begun + rest == bytes(size)
        assert not answer.reusable
        answer.left = 0
        assert answer.reusable


async def test_a_connection_that_was_closed_meanwhile_is_not_noticed() -> None:
    script = Script(OK, None, OK)
    async with serving(script) as client:
        answers = [await whole(client) for _ in range(2)]

    assert answers == [(200, b"hello")] * 2
    assert len(script.asked) == 3, "the second question was asked twice"
    assert script.connections == 2


@pytest.mark.parametrize(
    "says",
    [
        pytest.param(None, id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="half a head"),
    ],
)
async def test_no_answer(says: bytes | None) -> None:
    async with serving(Script(says)) as client:
        with pytest.raises(BrokenOff):
            await whole(client)


async def test_a_body_that_ends_too_early() -> None:
    async with serving(Script(OK[:-2])) as client, client.get("/", []) as answer:
        assert await answer.read() == b"hel"
        with pytest.raises(BrokenOff):
            await answer.read()
        assert not answer.reusable


async def test_no_server() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = PlainHttp("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(BrokenOff, match="ConnectionRefused"):
            await whole(client)


async def test_no_such_host() -> None:
    with pytest.raises(BrokenOff):
        await whole(PlainHttp("nosuch.invalid", 80))


async def test_headers_that_http_does_not_allow() -> None:
    with pytest.raises(ValueError, match="header"):
        await PlainHttp("127.0.0.1", 1).get("/", [("X", "a\r\nb")]).__aenter__()


@pytest_asyncio.fixture
async def silent() -> AsyncIterator[tuple[PlainHttp, asyncio.Event]]:
    """A server that says nothing, and whether its client is gone."""
    gone = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()
        writer.close()

    server = await asyncio.start_server(wait, "127.0.0.1", 0)
    async with server:
        yield PlainHttp("127.0.0.1", server.sockets[0].getsockname()[1]), gone


async def test_who_does_not_want_to_know_any_more_hangs_up(silent: tuple[PlainHttp, asyncio.Event]) -> None:
    client, gone = silent
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await whole(client)
    async with asyncio.timeout(PATIENCE):
        await gone.wait()
