"""The child that makes documents answers many questions, and another one takes its place when it ends."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.core.errors import ProcessFailed
from proxy.pipeline.attachments import maker
from proxy.pipeline.attachments.maker import Maker
from proxy.tools import process
from proxy.tools.process import Child
from proxy.trust import record
from proxy.trust.documents import documents
from tests.support.image_facts import FACTS

OURS = {kind: document.decode() for kind, document in documents(FACTS).items()}


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    file = tmp_path / "facts.json"
    file.write_bytes(record.write(FACTS))
    return file


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """All children that start."""
    started = []
    start = process.start

    async def remember(argv: Sequence[str], env: Mapping[str, str], *, reads: bool) -> Child:
        started.append(await start(argv, env, reads=reads))
        return started[-1]

    monkeypatch.setattr(process, "start", remember)
    return started


@asynccontextmanager
async def opened() -> AsyncIterator[Maker]:
    made = Maker()
    try:
        yield made
    finally:
        await made.close()


def program(folder: Path, text: str) -> str:
    file = folder / "program"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


async def test_one_child_answers_until_the_maker_is_closed(facts: Path, children: list[Child]) -> None:
    async with opened() as making:
        for _ in range(3):
            assert await making.documents([facts]) == {str(facts): OURS}
        (child,) = children
        assert child.returncode is None

    assert child.returncode is not None


async def test_a_child_that_nobody_asks_ends(
    facts: Path, children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maker, "_STAYS", 0.0)
    async with opened() as making:
        for number in (1, 2):
            assert await making.documents([facts]) == {str(facts): OURS}
            assert len(children) == number
            await children[-1].wait()


async def test_a_child_ends_after_so_many_answers(
    facts: Path, children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maker, "_MOST_ANSWERS", 2)
    async with opened() as making:
        for _ in range(3):
            assert await making.documents([facts]) == {str(facts): OURS}
        assert len(children) == 2
        await children[0].wait()


async def test_another_child_answers_where_the_host_ended_the_first(
    facts: Path, children: list[Child]
) -> None:
    async with opened() as making:
        await making.documents([facts])
        os.kill(children[0].pid, signal.SIGKILL)
        await children[0].wait()

        assert await making.documents([facts]) == {str(facts): OURS}
        assert len(children) == 2


@pytest.mark.parametrize(
    "text", ["echo broken >&2; exit 3", "echo broken >&2; echo nonsense; exec sleep 600"]
)
async def test_a_child_without_an_answer_says_why(
    facts: Path, tmp_path: Path, children: list[Child], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """It is asked once, and then started anew for the next question."""
    monkeypatch.setattr(sys, "executable", program(tmp_path, text))
    async with opened() as making:
        for number in (1, 2):
            with pytest.raises(ProcessFailed) as caught:
                await making.documents([facts])
            assert caught.value.tail == ("broken",)
            assert len(children) == number
            assert children[-1].returncode is not None


async def test_a_child_that_takes_too_long_is_asked_once(
    facts: Path, tmp_path: Path, children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = json.dumps({})
    text = f"read question; printf '{len(answer)}\\n{answer}'; exec sleep 600"
    monkeypatch.setattr(sys, "executable", program(tmp_path, text))
    async with opened() as making:
        assert await making.documents([facts]) == {}
        monkeypatch.setattr(maker, "_DEADLINE", 0.01)
        with pytest.raises(ProcessFailed, match="ran out of time"):
            await making.documents([facts])
        assert len(children) == 1
        assert children[0].returncode is not None
