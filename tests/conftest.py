"""What holds for every test: its marker comes from its folder, and nothing may block the event loop."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from blockbuster import blockbuster_ctx
from hypothesis import settings

from tests.support.markers import without_documents

_TESTS = Path(__file__).parent
_MARKED = ("integration", "e2e")
_NEVER_BLOCKED = ("unit", "integration")

# Where no test looks at the log, a line of it costs nothing and is nowhere.
structlog.configure(processors=[lambda *_: ""], logger_factory=structlog.ReturnLoggerFactory())
settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=300, deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def _folder(path: Path) -> str:
    return path.relative_to(_TESTS).parts[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m` sees the folder of a test: `-m "not e2e"` leaves out tests/e2e. A test without documents says why."""
    for item in items:
        without_documents(item)
        folder = _folder(item.path)
        if folder in _MARKED:
            item.add_marker(folder)


@pytest.fixture(autouse=True)
def _no_blocking_call(request: pytest.FixtureRequest) -> Iterator[None]:
    """A call of our code that blocks the event loop (a file, a socket, a sleep) raises `BlockingError`."""
    if _folder(request.path) not in _NEVER_BLOCKED:
        yield
        return
    with blockbuster_ctx("proxy"):
        yield


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """A command sets its log up on the standard error of its test, which is a closed file in the next one."""
    root = logging.getLogger()
    handlers, level, configured = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = [handler for handler in root.handlers if handler in handlers]
    root.setLevel(level)
    structlog.configure(**configured)
