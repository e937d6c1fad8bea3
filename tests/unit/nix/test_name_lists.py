"""Lists of names: what Nix cannot list is not listed again for a while, and a damaged file is made anew."""

import asyncio
from pathlib import Path

import pytest

from proxy.core.errors import EvaluationFailed, ProcessFailed
from proxy.core.model import PackageSet, Policy
from proxy.nix.name_lists import NameLists
from proxy.nix.runner import Expressions, Limits, NixRunner

SET = PackageSet("set", "/nix/store/source", "0123", "https://example.org", "2026-01-31T00:00:00Z")


async def test_a_set_that_nix_cannot_list_costs_one_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = 0

    async def fail(*_words: object, **_options: object) -> bytes:
        nonlocal runs
        runs += 1
        raise ProcessFailed("nix-instantiate", 1, ("error: out of memory",))

    runner = NixRunner(Limits(1, 1))
    monkeypatch.setattr(runner, "run", fail)
    expressions = Expressions(runner, tmp_path, system="x86_64-linux", policy=Policy())
    lists = NameLists(expressions, tmp_path)

    for _ in range(3):
        assert await lists.names_soon(SET) == ()
    with pytest.raises(EvaluationFailed, match="out of memory"):
        await lists.names(SET)

    assert runs == 2, "all names at once, then the top level alone"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0" * 64,
        '["hello',
        "7",
        "null",
        '"hello"',
        '{"hello": 1}',
        "[1]",
        pytest.param("[" * 9999, id="deep"),
    ],
)
async def test_a_damaged_list_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    async def answer(*_words: object, **_options: object) -> bytes:
        return b'["jq", "hello"]'

    runner = NixRunner(Limits(1, 1))
    monkeypatch.setattr(runner, "run", answer)
    expressions = Expressions(runner, tmp_path, system="x86_64-linux", policy=Policy())
    await NameLists(expressions, tmp_path).names(SET)
    (file,) = await asyncio.to_thread(lambda: list(tmp_path.glob("names-*.json")))
    whole = file.read_bytes()
    file.write_text(text)

    assert await NameLists(expressions, tmp_path).names(SET) == ("hello", "jq")
    assert file.read_bytes() == whole
