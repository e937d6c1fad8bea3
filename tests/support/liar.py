"""A registry that lies: to a path that begins with a lie's name it answers the bytes of this lie, to any other the truth."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

_PAUSE = 0.1  # seconds after which a lie goes on, so that its start is on its way to the client by then
#: What stands between two pieces of a lie that are sent with a pause between them.
PAUSE = b"<pause>"
#: What ends a lie after which the registry hangs up.
CLOSE = b"<close>"


@dataclass
class Liar:
    """A running liar: its `url`, the paths of each connection in order, and the connections that heard a lie."""

    lies: Mapping[str, bytes]
    oddities: Mapping[str, bytes] = field(default_factory=dict)
    url: str = ""
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    connections: list[list[str]] = field(default_factory=list)

    def truth(self, path: str) -> bytes:
        """The body of the honest answer to this path."""
        return f"the truth about {path}.".encode() * 100

    def reused(self, path: str) -> bool:
        """Whether any request came on a connection after one with this path."""
        return any(path in paths[:-1] for paths in self.connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        paths: list[str] = []
        self.writers.append(writer)
        self.connections.append(paths)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                method, path, _ = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split(" ", 2)
                paths.append(path)
                name = next((name for name in self.lies if f"/{name}/" in path), None)
                odd = next((odd for odd in self.oddities if f"/{odd}/" in path), None)
                if odd is not None:
                    answer = self.oddities[odd]
                    if method == "HEAD":
                        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 307200\r\n\r\n"
                    await _send(writer, answer)
                    if answer.endswith(CLOSE):
                        break
                elif name is not None:
                    await _send(writer, self.lies[name])
                    if self.lies[name].endswith(CLOSE):
                        break
                else:
                    body = self.truth(path)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
                    writer.write(b"" if method == "HEAD" else body)
                await writer.drain()
        writer.close()


async def _send(writer: asyncio.StreamWriter, lie: bytes) -> None:
    for number, piece in enumerate(lie.removesuffix(CLOSE).split(PAUSE)):
        if number:
            await asyncio.sleep(_PAUSE)
        writer.write(piece)
        await writer.drain()


@contextlib.asynccontextmanager
async def liar(lies: Mapping[str, bytes], oddities: Mapping[str, bytes]) -> AsyncIterator[Liar]:
    """A liar on a free port of 127.0.0.1."""
    running = Liar(lies, oddities)
    server = await asyncio.start_server(running._serve, "127.0.0.1", 0)
    running.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield running
    finally:
        server.close()
        for writer in running.writers:
            writer.close()
