"""What a registry wants, and whom a request names."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.registry.login import Challenge, challenges
from proxy.web.client import user


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(['Basic realm="a b"'], [("basic", {"realm": "a b"})], id="basic"),
        pytest.param(
            ['Bearer realm="https://auth.example/token",service="a",scope="repository:x/y:pull,push"'],
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "a",
                        "scope": "repository:x/y:pull,push",
                    },
                )
            ],
            id="bearer",
        ),
        pytest.param(
            ["BEARER Realm = x , Service=y"], [("bearer", {"realm": "x", "service": "y"})], id="loose"
        ),
        pytest.param(
            ['Bearer realm="a", Basic realm="b"'],
            [("bearer", {"realm": "a"}), ("basic", {"realm": "b"})],
            id="two in a line",
        ),
        pytest.param(
            ["Negotiate", 'Basic realm="b"'],
            [("negotiate", {}), ("basic", {"realm": "b"})],
            id="two lines",
        ),
        pytest.param(['Basic realm="a \\"b\\" \\\\ c"'], [("basic", {"realm": 'a "b" \\ c'})], id="quoted"),
        pytest.param(['Basic realm="no end'], [("basic", {})], id="no end"),
        pytest.param(["", " , ", "=", '"'], [], id="nothing"),
        pytest.param([], [], id="no header"),
    ],
)
def test_challenges(values: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    assert challenges(values) == [Challenge(scheme, parameters) for scheme, parameters in expected]


@given(st.lists(st.text(max_size=60), max_size=3))
def test_any_text_is_read_as_challenges(values: list[str]) -> None:
    assert isinstance(challenges(values), list)


def basic(text: bytes) -> str:
    return f"Basic {base64.b64encode(text).decode()}"


def token(claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"Bearer e30.{payload}.c2ln"


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        pytest.param([basic(b"alice:secret")], "alice", id="basic"),
        pytest.param([basic(b"alice:a:b")], "alice", id="a colon in the password"),
        pytest.param([basic("jörg:x".encode())], "jörg", id="not ASCII"),
        pytest.param([basic(b"alice:x").replace("Basic", "bAsIc ")], "alice", id="any case"),
        pytest.param([token({"sub": "alice"})], "alice", id="token"),
        pytest.param([token({"sub": ""})], "", id="a token for nobody"),
        pytest.param([token({"sub": 1})], "", id="a number"),
        pytest.param([token({"name": "alice"})], "", id="no subject"),
        pytest.param([token(["sub"])], "", id="no claims"),
        pytest.param(["Bearer opaque"], "", id="no JWT"),
        pytest.param(["Bearer a.b!.c"], "", id="no base64"),
        pytest.param(["Basic YWxpY2U6eA==junk"], "", id="junk behind"),
        pytest.param([basic(b"\xff:x")], "", id="no text"),
        pytest.param(["Digest username=alice"], "", id="another scheme"),
        pytest.param([basic(b"alice:x"), basic(b"bob:x")], "", id="two"),
        pytest.param([""], "", id="empty"),
        pytest.param([], "", id="none"),
    ],
)
def test_user(headers: list[str], name: str) -> None:
    assert user(headers) == name


@given(st.text(max_size=60), st.sampled_from(["Basic ", "Bearer ", "Bearer a.", ""]))
def test_any_text_names_somebody_or_nobody(text: str, scheme: str) -> None:
    assert isinstance(user([scheme + text]), str)
