"""The kinds of values: one row for each rule of ours, with the path in the message."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from proxy.core.errors import SettingsInvalid
from proxy.settings import load


def value(tmp_path: Path, section: str, key: str, text: str) -> Any:
    file = tmp_path / "settings.yml"
    file.write_text(f"{section}: {{{key}: {text}}}\n")
    return getattr(getattr(load(file, {}), section), key)


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("http.addr", "'0.0.0.0:0'", "0.0.0.0:0"),
        ("http.addr", "'[::1]:65535'", "[::1]:65535"),
        ("mirror.addr", "''", ""),
        ("registry.url", "'https://registry.example/'", "https://registry.example"),
        ("state.url", "'rediss://h/1'", "rediss://h/1"),
        ("mirror.prefix", "nix/", "nix/"),
        ("http.trusted_proxies", "[10.1.2.3/8, '::1']", (ip_network("10.0.0.0/8"), ip_network("::1"))),
        ("status.networks", "['*', 192.0.2.7]", ("*", ip_network("192.0.2.7"))),
        ("access.networks", "[]", ()),
        ("packages.date", "2026-01-31T00:00:00Z", "2026-01-31T00:00:00Z"),  # without quotes YAML makes a date
        ("packages.date", "'2026-01-31T02:00:00+02:00'", "2026-01-31T00:00:00Z"),
        ("packages.date", "''", ""),
    ],
)
def test_what_a_value_may_be(tmp_path: Path, key: str, text: str, expected: object) -> None:
    section, _, name = key.partition(".")

    assert value(tmp_path, section, name, text) == expected


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        *(
            ("http.addr", text, "HOST:PORT")
            for text in ("':80'", "a", "'a:'", "'a:65536'", "'a:-1'", "'a:http'")
        ),
        ("http.addr", "''", "HOST:PORT"),
        ("mirror.addr", "x", "HOST:PORT"),
        *(
            ("registry.url", f"'{text}'", "")
            for text in ("r:5000", "ftp://x", "http://", "http://x/v2", "http://[", "http://x:99999")
        ),
        *(
            ("registry.url", f"'http://{text}'", "scheme, host")
            for text in ("x?y=1", "x#y", "me@x", "x?", "x:0")
        ),
        ("registry.public_url", "'registry:5000'", "scheme, host and port"),
        ("registry.storage", "data", "absolute path"),
        ("state.url", "'http://h'", "redis://HOST:PORT/NUMBER"),
        ("traces.endpoint", "'h:4318'", "http:// or https://"),
        ("images.prefix", "a/b", "one component"),
        ("images.prefix", "Images", "one component"),
        ("mirror.prefix", "nix", "a slash at its end"),
        ("packages.date", "yesterday", "time data"),
        ("packages.date", "'2026-01-31T00:00:00'", "time data"),  # a time without a zone
        ("status.networks.0", "[10.0.0.0/33]", "10.0.0.0/33"),
        ("status.networks.1", "['*', office]", "office"),
        ("http.trusted_proxies.0", "['*']", "an address or a range"),
        ("http.trusted_proxies.1", "[10.0.0.1, 5]", "an address or a range"),
        ("names.presets.x.user", "{x: {user: me}}", "UID:GID"),
    ],
)
def test_what_a_value_may_not_be(tmp_path: Path, key: str, text: str, message: str) -> None:
    section, name, *_ = key.split(".")

    with pytest.raises(SettingsInvalid) as caught:
        value(tmp_path, section, name, text)

    assert str(caught.value).startswith(f"{key}: ")
    assert message in str(caught.value)
