"""What `serve` says at its start."""

import logging
import socket

import pytest

from proxy import settings
from proxy.cli.host import serving


async def test_a_registry_that_does_not_answer_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

    await serving._check_registry(settings.load(None, {}, registry={"url": url}))

    (record,) = [record for record in caplog.records if record.name == "nixfront"]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"no image can be pulled until registry.url works: {url}: "
        "the registry did not answer GET /v2/ (connection refused)"
    )


async def test_a_registry_of_nixfronts_own_is_not_asked(caplog: pytest.LogCaptureFixture) -> None:
    await serving._check_registry(settings.load(None, {}))

    assert not caplog.records
