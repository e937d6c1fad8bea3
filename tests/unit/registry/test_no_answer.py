"""Why a server gave no answer: words for people, and for clients no address of the operator's hosts."""

import asyncio
import socket

import aiohttp
import pytest

from proxy.registry.no_answer import why, why_for_clients


def closed_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/"


async def test_a_port_at_which_nothing_listens() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.get(closed_address())

    assert why_for_clients(caught.value) == "connection refused"


async def test_a_socket_of_our_own_has_no_number_and_no_address_either() -> None:
    with pytest.raises(OSError, match="Connect call failed") as caught:
        await asyncio.open_connection("127.0.0.1", int(closed_address().rpartition(":")[2].strip("/")))

    assert why(caught.value) == "connection refused"


async def test_a_server_that_hangs_up() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with (
        await asyncio.start_server(hang_up, "127.0.0.1", 0) as server,
        aiohttp.ClientSession() as session,
    ):
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(aiohttp.ClientError) as caught:
            await session.get(f"http://127.0.0.1:{port}/")

    assert why_for_clients(caught.value) == "it hung up"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "it does not answer in time"),
        (aiohttp.ServerTimeoutError(), "it does not answer in time"),
        (aiohttp.ClientPayloadError("half of http://secret.example/"), "it broke off"),
        (aiohttp.InvalidURL("http://secret.example/?token=1"), "its answer is no HTTP"),
    ],
)
def test_no_text_of_a_library_and_no_class_of_python(error: Exception, reason: str) -> None:
    assert why_for_clients(error) == reason
