"""What Nix prints: closures in the shapes of several releases, plans, failures, and how far it is."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import BuildFailed, ProcessFailed
from proxy.core.model import PathInfo
from proxy.nix import output
from proxy.nix.output import NixCounts, advance

HASH = "a" * 32
LISTED: list[dict[str, Any]] = [
    {"path": "/nix/store/b", "narSize": 20, "references": ["/nix/store/c", "/nix/store/b", "/nix/store/a"]},
    {"path": "/nix/store/a", "narSize": 10, "references": []},
]


def after(*lines: str) -> NixCounts:
    counts = NixCounts()
    for line in lines:
        counts = advance(counts, line)
    return counts


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], NixCounts(), id="nothing"),
        pytest.param(["this derivation will be built:"], NixCounts(to_build=1), id="one to build"),
        pytest.param(["these 12 derivations will be built:"], NixCounts(to_build=12), id="many to build"),
        pytest.param(
            ["this path will be fetched (0.04 MiB download, 0.2 MiB unpacked):"],
            NixCounts(to_fetch=1),
            id="one to fetch",
        ),
        pytest.param(
            ["these 3 paths will be fetched (1.04 MiB download, 4.2 MiB unpacked):"],
            NixCounts(to_fetch=3),
            id="many",
        ),
        pytest.param(
            [f"building '/nix/store/{HASH}-hello-1.0.drv'..."],
            NixCounts(built=1, to_build=1, now="hello-1.0"),
            id="begun",
        ),
        pytest.param(
            [
                "these 2 paths will be fetched:",
                f"copying path '/nix/store/{HASH}-zlib-1.3' from 'https://cache'...",
            ],
            NixCounts(fetched=1, to_fetch=2, now="zlib-1.3"),
            id="fetched",
        ),
        pytest.param(
            ["these 2 derivations will be built:", "these 3 derivations will be built:"],
            NixCounts(to_build=5),
            id="rounds",
        ),
        pytest.param(["checking for gcc... gcc", "  building it"], NixCounts(), id="a builder's own words"),
    ],
)
def test_lines(lines: list[str], expected: NixCounts) -> None:
    assert after(*lines) == expected


def test_no_count_is_above_its_total() -> None:
    lines = [
        "this derivation will be built:",
        *(f"building '/nix/store/{HASH}-p{n}.drv'..." for n in range(4)),
    ]

    counts = after(*lines)

    assert (counts.built, counts.to_build) == (4, 4)


@pytest.mark.parametrize(
    ("told", "cause"),
    [
        (
            [
                "building '/nix/store/x.drv'...",
                "error: unable to download 'http://x': Couldn't resolve host name (6)",
                "error: builder for '/nix/store/x.drv' failed with exit code 1",
                "error: 1 dependencies of derivation '/nix/store/y.drv' failed to build",
                "error: build of '/nix/store/y.drv' failed",
            ],
            "unable to download 'http://x': Couldn't resolve host name (6)",
        ),
        (["error: builder for 'x' failed with exit code 3;"], "builder for 'x' failed with exit code 3"),
        (["error: build of 'x' failed"], "build of 'x' failed"),
        (["nothing at all"], "Nix printed no error"),
    ],
    ids=["first of many", "the builder", "a consequence alone", "none"],
)
def test_the_cause_of_a_failure_is_what_went_wrong_first(told: list[str], cause: str) -> None:
    assert output._cause(told) == cause


@pytest.mark.parametrize(
    ("lines", "fetched"),
    [
        ([], 0),
        (
            ["these 2 paths will be fetched (0.05 MiB download, 1.50 MiB unpacked):", "  /nix/store/a"],
            3 << 19,
        ),
        (["this path will be fetched (1.00 KiB download, 2.00 KiB unpacked):"], 2048),
        (["warning: x", "these 3 paths will be fetched (1.0 GiB download, 2.5 GiB unpacked):"], 5 << 29),
        (
            [
                "this derivation will be built:",
                "  /nix/store/a.drv",
                "these 3 paths will be fetched (1.00 MiB download, 2.00 MiB unpacked):",
            ],
            0,
        ),
    ],
    ids=["nothing", "paths", "a path", "in GiB", "a build fetches for itself"],
)
def test_a_plan_says_what_the_closure_fetches(lines: list[str], fetched: int) -> None:
    assert output.read_plan(lines) == fetched


@pytest.mark.parametrize(
    "printed",
    [
        pytest.param(LISTED, id="a list, until 2.18"),
        pytest.param({item["path"]: item for item in LISTED}, id="by path, with the path within"),
        pytest.param(
            {item["path"]: {k: v for k, v in item.items() if k != "path"} for item in LISTED},
            id="by path, since 2.19",
        ),
    ],
)
def test_either_shape_of_path_info_is_read(printed: object) -> None:
    assert output.read_path_info(json.dumps(printed).encode()) == (
        PathInfo("/nix/store/a", 10, ()),
        PathInfo("/nix/store/b", 20, ("/nix/store/a", "/nix/store/c")),
    )


@pytest.mark.parametrize(
    "printed",
    [
        pytest.param([*LISTED, {"path": "/nix/store/x", "valid": False}], id="a list"),
        pytest.param({"/nix/store/a": LISTED[1], "/nix/store/x": None}, id="by path"),
    ],
)
def test_a_path_that_is_not_valid_is_a_failed_build(printed: object) -> None:
    with pytest.raises(BuildFailed, match=r"just built: /nix/store/x$"):
        output.read_path_info(json.dumps(printed).encode())


@pytest.mark.parametrize("printed", [b"[]", b"{}"])
def test_nothing_is_an_empty_closure(printed: bytes) -> None:
    assert output.read_path_info(printed) == ()


@given(
    st.dictionaries(st.text("abc/"), st.tuples(st.integers(0), st.lists(st.text("abc/"), unique=True))),
    st.randoms(use_true_random=False),
)
def test_both_shapes_in_any_order_are_the_same_closure(
    paths: dict[str, tuple[int, list[str]]], random: Random
) -> None:
    by_path = {path: {"narSize": size, "references": refs} for path, (size, refs) in paths.items()}
    listed = [{"path": path, **facts, "deriver": None} for path, facts in by_path.items()]
    random.shuffle(listed)

    closure = output.read_path_info(json.dumps(listed).encode())

    assert closure == output.read_path_info(json.dumps(by_path).encode())
    assert [info.path for info in closure] == sorted(paths)
    assert all(info.path not in info.references for info in closure)


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        pytest.param(
            ["warning: x", "error: attribute 'a' missing", "", "       at /x.nix:1:2:"],
            "attribute 'a' missing\n\nat /x.nix:1:2:",
            id="from the error on",
        ),
        pytest.param(["error: first", "  error: second"], "second", id="the last of two"),
        pytest.param(["one", "two", "three", "four"], "two\nthree\nfour", id="the end where none is named"),
        pytest.param([], "", id="nothing"),
        pytest.param(["error: x", *["more"] * 50], "\n".join(["x", *["more"] * 19]), id="not too much"),
    ],
)
def test_the_message_of_an_evaluation_is_its_error(tail: list[str], message: str) -> None:
    assert output.last_lines(tail) == message


DRV = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-tool-1.0.drv"
IN_OUR_WORDS = (
    "building arm64/tool failed: tool-1.0 is for aarch64-linux, and this host builds for x86_64-linux. A binary cache that has "
    "it would do, or a remote builder (nix.builders), or an emulator (extra-platforms in nix.conf)"
)


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        pytest.param(
            [
                f"error: a 'aarch64-linux' with features {{}} is required to build '{DRV}', but I am a 'x86_64-linux' "
                "with features {benchmark, big-parallel, nixos-test}",
                f"error: a 'aarch64-linux' with features {{}} is required to build '{DRV}', but I am a 'x86_64-linux' "
                "with features {benchmark, big-parallel, nixos-test}",
            ],
            IN_OUR_WORDS,
            id="Nix up to 2.30",
        ),
        pytest.param(
            [
                f"error: Cannot build '{DRV}'.",
                "       Reason: required system or feature not available",
                "       Required system: 'aarch64-linux' with features {}",
                "       Current system: 'x86_64-linux' with features {benchmark}",
            ],
            IN_OUR_WORDS,
            id="later",
        ),
        pytest.param(
            [
                f"error: a 'x86_64-linux' with features {{kvm}} is required to build '{DRV}', but I am a 'x86_64-linux' "
                "with features {benchmark}"
            ],
            "building arm64/tool failed: tool-1.0 needs a host with the features kvm, which this one does not have "
            "(system-features)",
            id="a feature",
        ),
    ],
)
def test_another_platform_is_said_once_and_in_our_words(tail: list[str], message: str) -> None:
    error = output.not_built("arm64/tool", ProcessFailed("nix-store", 1, tail), 60)

    assert type(error) is BuildFailed
    assert str(error) == message


@pytest.mark.parametrize(
    "consequence",
    [
        pytest.param(["error: 1 dependencies of derivation '{}' failed to build"], id="Nix up to 2.30"),
        pytest.param(
            [
                "error: Cannot build '{}'.",
                "       Reason: 1 dependency failed.",
                "       Output paths:",
                "         /nix/store/x",
            ],
            id="later",
        ),
    ],
)
def test_all_that_needs_a_failed_package_hides_no_cause(consequence: list[str]) -> None:
    cause = "error: unable to download 'http://x': Couldn't resolve host name (6)"
    behind = [line.format(f"/nix/store/{n}.drv") for n in range(40) for line in consequence]

    error = output.not_built("tool", ProcessFailed("nix-store", 1, [cause, *behind]), 60)

    assert str(error) == f"building tool failed: {cause.removeprefix('error: ')}; its log ends:\n{cause}"


# --- flakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["b", "\ufffd", "\ufffd\ufffd", "x\ufffd", "\t"])
def test_a_builder_that_nix_cannot_start_is_said_without_the_bytes_around_it(length: str) -> None:
    other = "\ufffd"
    text = f"executing '/nix/store/{HASH}-busybox': Permission denied"
    lengths = length + other * (8 - len(length))
    last = f"error: builder for '/nix/store/{HASH}-x.drv' failed with exit code 1"
    tail = [
        f"building '/nix/store/{HASH}-x.drv'...",
        other,
        f"{other * 8}Error{other * 19}Error{other * 3}{lengths}{text}{other * 22}",
        last,
    ]

    error = output.not_built("x", ProcessFailed("nix-store", 1, tail), 60)

    assert str(error) == (
        f"building x failed: {text}; its log ends:\nbuilding '/nix/store/{HASH}-x.drv'...\nerror: {text}\n{last}"
    )


def test_each_input_of_a_flake_has_its_path_by_its_node() -> None:
    archive = {
        "path": "/nix/store/root",
        "inputs": {
            "data": {"path": "/nix/store/data", "inputs": {}},
            "lib": {"path": "/nix/store/lib", "inputs": {"data": {"path": "/nix/store/other", "inputs": {}}}},
        },
    }
    nodes = {
        "root": {"inputs": {"data": "data", "lib": "lib", "again": ["data"]}},
        "data": {},
        "lib": {"inputs": {"data": "data_2"}},
        "data_2": {},
    }

    inputs = output.flake_inputs(archive, {"root": "root", "nodes": nodes})

    assert inputs == {"data": "/nix/store/data", "lib": "/nix/store/lib", "data_2": "/nix/store/other"}


@pytest.mark.parametrize("lock", [{}, {"root": "root", "nodes": {"root": {}}}, {"root": [], "nodes": []}])
def test_a_lock_file_of_another_archive_is_a_mistake(lock: dict[str, Any]) -> None:
    archive = {"path": "/nix/store/root", "inputs": {"data": {"path": "/nix/store/data"}}}

    with pytest.raises(ValueError, match="the lock file lacks"):
        output.flake_inputs(archive, lock)
