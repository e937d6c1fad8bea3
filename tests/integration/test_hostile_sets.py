"""Package sets whose authors mean harm: nothing of the host gets out or breaks, and other pulls go on."""

import asyncio
import gzip
import io
import json
import os
import re
import socket
import tarfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.core.model import DOCKER_MANIFEST
from proxy.image import root_tree
from tests.support.front import Front
from tests.support.servers import Server

Start = Callable[..., AbstractAsyncContextManager[Front]]
HOSTILE = Path(__file__).parent / "hostile"
SETS = {"sets": {"hostile": {"kind": "path", "path": str(HOSTILE)}}}
SECONDS = 5.0  # the deadline of evaluations
LIMITS = {"nix": {"evaluation_deadline": SECONDS, "evaluation_memory": 1_500_000_000}}


@pytest_asyncio.fixture
async def hostile(start: Start, registry: Server) -> AsyncIterator[Front]:
    async with start(registry.url, **SETS) as front:
        yield front


async def refusal(front: Front, repository: str) -> str:
    """The message of a pull that gets a 404: short, and without control characters."""
    status, body = 307, b""
    while status == 307:  # it is still being built; the time of a test is bounded
        status, _, body = await front.get(f"/v2/{repository}/manifests/latest")
    assert status == 404, body
    message = str(json.loads(body)["errors"][0]["message"])
    assert len(message) < 30_000
    assert message.replace("\n", "").replace("\t", "").isprintable(), message
    return message


# --- the policy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("secretapp", "secretapp has the unfree licence secret"),
        ("secretapp.src", "secretapp has the unfree licence secret"),
        ("secretapp.unwrapped", "secretapp has the unfree licence secret"),
        ("secretapp.drvattrs.src", "secretapp has the unfree licence secret"),
        ("pkgs.secretapp.src", "secretapp has the unfree licence secret"),
        ("interpreter.pkgs.secretapp", "secretapp has the unfree licence secret"),
        ("insecure.src", "insecure is insecure: CVE-2026-0001"),
        ("deniedpkg", "deniedpkg is named by policy.deny_packages"),
        ("deniedpkg.src", "deniedpkg is named by policy.deny_packages"),
        ("pkgs.deniedpkg.src", "deniedpkg is named by policy.deny_packages"),
        ("interpreter.pkgs.library", "library is named by policy.deny_packages"),
    ],
)
async def test_a_path_is_as_strict_as_its_strictest_derivation(
    start: Start, registry: Server, name: str, message: str
) -> None:
    denied = ("deniedpkg", "interpreter.pkgs.library")
    async with start(registry.url, policy={"deny_packages": denied}, **SETS) as front:
        assert message in await refusal(front, f"hostile/{name}")


async def test_what_is_below_an_allowed_derivation_is_served(hostile: Front) -> None:
    assert (await hostile.pull("hostile/interpreter.pkgs.library")).digest


async def test_every_derivation_of_a_path_has_to_be_listed_or_the_whole_path(
    start: Start, registry: Server
) -> None:
    only = {"only_packages": ("library", "pkgs.interpreter.pkgs.library")}
    async with start(registry.url, policy=only, **SETS) as front:
        await front.pull("hostile/pkgs.interpreter.pkgs.library")

        message = await refusal(front, "hostile/interpreter.pkgs.library")
        assert "interpreter is not among policy.only_packages" in message


# --- evaluations without a bound ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("eatsmemory", "Nix cannot evaluate eatsmemory|took longer than 5 s"),
        ("recurses", "Nix cannot evaluate recurses|took longer than 5 s"),
        ("neverends", "evaluating neverends took longer than 5 s"),
        ("printslog", "more than 16777216 bytes on standard error"),
        ("printsnames.nosuch", "more than 33554432 bytes of output|took longer than 5 s"),
        ("throwsmegabyte", "so much: megabyte"),
    ],
)
async def test_an_evaluation_ends_and_others_go_on(
    start: Start, registry: Server, name: str, message: str
) -> None:
    async with start(registry.url, **SETS, **LIMITS) as front:
        await front.get("/v2/hello/manifests/latest")
        started = time.monotonic()
        pull = asyncio.create_task(refusal(front, f"hostile/{name}"))
        while not pull.done():  # pulls of what is there do not wait for it
            asked = time.monotonic()
            assert (await front.get("/v2/hello/manifests/latest"))[0] == 200
            assert time.monotonic() - asked < SECONDS
            await asyncio.sleep(0.2)

        assert re.search(message, await pull)
        assert time.monotonic() - started < SECONDS + 20


# --- what an evaluation or a builder may read of this host ------------------------------------------------------


@pytest.mark.parametrize("name", ["fetchesfolder", "fetchesflake", "readsfile"])
async def test_an_evaluation_reads_no_file_of_this_host(hostile: Front, name: str) -> None:
    message = await refusal(hostile, f"hostile/{name}")

    assert "Nix cannot evaluate" in message
    assert socket.gethostname() not in message


async def test_no_builder_reads_a_secret_of_our_environment(
    start: Start, registry: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "first-secret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=second-secret")
    monkeypatch.setenv("NIX_CONFIG", f"{os.environ['NIX_CONFIG']}access-tokens = github.com=third-secret\n")
    async with start(registry.url, **SETS) as front:
        message = await refusal(front, "hostile/environment")

    assert "aws= otel= home=/" in message, "the builder ran"
    assert "-secret" not in message


async def test_a_root_tree_has_bounds(hostile: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_tree, "_LARGEST", 5000)

    assert "the files of these packages together are more than 5000" in await refusal(
        hostile, "hostile/endless"
    )


async def test_a_root_tree_shows_no_store_path_but_those_of_the_image(hostile: Front) -> None:
    await hostile.pull("hostile/private")  # so this host's store has what the links of `peeks` name
    status, _, body = await hostile.get(
        "/v2/hostile/peeks/manifests/latest", headers={"Accept": DOCKER_MANIFEST}
    )
    assert status == 200, body
    _, _, blob = await hostile.get(f"/v2/hostile/peeks/blobs/{json.loads(body)['layers'][-1]['digest']}")
    names = await asyncio.to_thread(_names, blob)

    assert "share/theirs" in names, "a link, which leads nowhere on every host"
    assert not [name for name in names if "inside" in name]


# --- meta, names, and values that Nix would not make ------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "metalist",
        "metafunction",
        "licencefunction",
        "programfunction",
        "throwsdescription",
        "longdescription",
        "controldescription",
        "versionlist",
        "latin",
    ],
)
async def test_odd_facts_for_people_count_as_absent(hostile: Front, name: str) -> None:
    image = await hostile.pull(f"hostile/{name}")

    assert len(json.dumps(image.config)) < 20_000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("freeistext", "Nix cannot evaluate freeistext"),
        ("vulnerabilitiestext", "is insecure: CVE-2026-0002"),
        ("vulnerabilitiesfunction", "is insecure"),
        ("throwslicence", "no licence"),
        ("controllicence", "control-licence has the unfree licence"),
        ("controlname", r"controlName has 'x\x1b[2J"),
        ("namefunction", "Nix cannot evaluate namefunction"),
        ("outputnames", "outputNames has 'out,../x' where a derivation has"),
        ("option", "option has '' where a derivation has"),
        ("hostfile", "hostFile has '' where a derivation has"),
        ("climbs", "/../../../etc' where a derivation has"),
    ],
)
async def test_odd_facts_that_count_are_refused(hostile: Front, name: str, message: str) -> None:
    assert message in await refusal(hostile, f"hostile/{name}")


# --- what a store path can hold ---------------------------------------------------------------------------------


def below(image: Any, folder: str) -> list[str]:
    """The paths of an image that lie in this folder of the package."""
    return [path.partition(folder)[2] for path in image.files if folder in path]


async def test_fifty_thousand_files(hostile: Front) -> None:
    status, body = 307, b""
    while status == 307:
        status, _, body = await hostile.get(
            "/v2/hostile/manyfiles/manifests/latest", headers={"Accept": DOCKER_MANIFEST}
        )
    assert status == 200, body

    found: Counter[bytes] = Counter()
    for layer in json.loads(body)["layers"]:  # the validator would unpack each of them
        _, _, blob = await hostile.get(f"/v2/hostile/manyfiles/blobs/{layer['digest']}")
        found += await asyncio.to_thread(_heads, blob)
    assert found == {b"many": 50_000, b"bin": 1000}


def _names(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return opened.getnames()


def _heads(archive: bytes) -> Counter[bytes]:
    """How many members of either folder an archive has, by the start of their heads: tarfile takes ten seconds."""
    name = re.compile(rb"nix/store/[^/\0]+-many-files/share/(many)/x|(bin)/x")
    data = gzip.decompress(archive)
    heads = (name.match(data, at) for at in range(0, len(data), 512))
    return Counter(head[1] or head[2] for head in heads if head)


async def test_no_file_runs_as_another_user(hostile: Front) -> None:
    image = await hostile.pull("hostile/setuid")

    (mode,) = [member.mode for path, member in image.files.items() if path.endswith("-setuid/bin/setuid")]
    assert mode == 0o555


@pytest.mark.parametrize("name", ["fifo", "socket", "device"])
async def test_a_store_path_holds_nothing_special(hostile: Front, name: str) -> None:
    assert f"building {name} failed" in await refusal(hostile, f"hostile/{name}")


async def test_names_that_differ_in_case_alone(hostile: Front) -> None:
    image = await hostile.pull("hostile/cases")

    assert sorted(below(image, "-cases/share/")) == ["README", "ReadMe", "readme"]
    assert {"bin/README", "bin/ReadMe", "bin/readme"} <= set(image.files)


async def test_a_sparse_file_is_as_large_as_it_looks(start: Start, registry: Server) -> None:
    async with start(registry.url, policy={"most_bytes": 100_000_000}, **SETS) as front:
        message = await refusal(front, "hostile/sparse")
    assert "sparse and what it needs are 315 MB" in message

    async with start(registry.url, **SETS) as front:
        status, _, _ = await front.get("/v2/hostile/sparse/manifests/latest")
    assert status == 200


async def test_names_of_files_may_hold_any_character(hostile: Front) -> None:
    image = await hostile.pull("hostile/names")

    names = ["--rf", "...", "a\\b", "bell\a", "c\tr\r", "clear\033[2J", "new\nline", "~"]
    assert sorted(below(image, "-names/share/")) == names
    assert {f"bin/{name}" for name in names} <= set(image.files)
