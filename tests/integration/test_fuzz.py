"""Names and tags that nobody would type, against a real Nix: whatever is asked, nothing breaks and nothing gets out."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.front import Front, front
from tests.support.servers import stock_registry

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Sources of mischief: what Nix, a shell, JSON or a path would take for something else than a name.
HOSTILE = [
    "${",
    "}",
    '"',
    "''",
    "\\",
    ";",
    "`",
    "$(",
    ")",
    "<",
    ">",
    "|",
    "&",
    "(",
    "..",
    "/",
    ".",
    "+",
    "~",
    "%",
    "#",
    "*",
    "'",
]
WORDS = [
    "hello",
    "builtins",
    "import",
    "throw",
    "abort",
    "or",
    "rec",
    "with",
    "let",
    "in",
    "nix",
    "store",
    "etc",
    "passwd",
    "7zz",
    "a",
]
KNOWN = ["hello", "alpha", "haskellpackages.shellcheck", "7zz", "gtk--2b", "shell", "user", "ci"]


def written(text: str) -> str:
    """Any text as a repository path can spell it: signs as escapes."""
    return "".join(char if char.isalnum() else f"--{ord(char):02x}" for char in text)


PARTS = st.one_of(
    st.sampled_from(KNOWN),
    st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,6}){0,3}", fullmatch=True),
    st.lists(st.sampled_from([*HOSTILE, *WORDS]), min_size=1, max_size=5).map(
        lambda words: "a" + written("".join(words))
    ),
)
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
TAGS = st.one_of(st.just("latest"), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,40}", fullmatch=True))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Front]:
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(
            "NIX_CONFIG", "substituters =\nsandbox = true\nextra-sandbox-paths = /bin /usr /lib /lib64\n"
        )
        (folder / "registry").mkdir()
        async with (
            stock_registry(folder / "registry") as registry,
            front(folder, folder / "count", registry.url) as started,
        ):
            yield started


@given(name=NAMES, tag=TAGS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_strange_name_is_an_image_or_a_message(running: Front, name: str, tag: str) -> None:
    status, _, body = await running.get(f"/v2/{name}/manifests/{tag}")

    if status == 200:
        await _stays_in_the_store(running, name, tag)
        return
    (error,) = json.loads(body)["errors"]
    assert status == 404, body
    assert error["message"]
    for given_away in ("syntax error", "undefined variable", "Traceback", "nixfront failed"):
        assert given_away not in error["message"]


async def _stays_in_the_store(running: Front, name: str, tag: str) -> None:
    """Every link of the root leads into the store that the image carries, or is relative."""
    image = await running.pull(name, tag)
    for path, member in image.files.items():
        if member.target and not path.startswith("nix/store/"):
            target = member.target
            if (path, target) == ("var/run", "../run"):
                continue
            assert target.startswith("/nix/store/"), f"{path} -> {target}"
            assert "/".join(target.split("/")[1:4]) in image.files, f"{path} -> {target} is in no layer"
