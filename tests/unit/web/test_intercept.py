"""Which 404 of a registry says that it has no such repository."""

import json

import pytest

from proxy.web import intercept


def said(*codes: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": "x"} for code in codes]}).encode()


@pytest.mark.parametrize(
    ("body", "unknown"),
    [
        pytest.param(said("NAME_UNKNOWN"), True, id="it"),
        pytest.param(said("MANIFEST_UNKNOWN"), False, id="another"),
        pytest.param(said("NAME_UNKNOWN", "UNKNOWN"), False, id="it and another"),
        pytest.param(said(), False, id="none"),
        pytest.param(b"404 page not found\n", False, id="text"),
        pytest.param(b"", False, id="nothing"),
        pytest.param(b"[]", False, id="a list"),
        pytest.param(b'{"errors": null}', False, id="null"),
        pytest.param(b'{"errors": [1]}', False, id="no objects"),
        pytest.param(b'{"errors": [{}]}', False, id="no code"),
        pytest.param(b"\xff", False, id="no text"),
    ],
)
def test_unknown_name(body: bytes, unknown: bool) -> None:
    assert intercept._is_name_unknown(body) is unknown


def test_an_empty_list_is_written_as_the_stock_registry_does() -> None:
    assert intercept._no_tags("a/b").body == b'{"name":"a/b","tags":[]}\n'
