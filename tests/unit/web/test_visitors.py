"""Who may see what is not for everybody."""

from ipaddress import ip_network

import pytest

from proxy.web.client import Visitors

OFFICE = tuple(map(ip_network, ("127.0.0.0/8", "::1/128", "10.1.0.0/16", "fd00::/8", "192.0.2.7")))


@pytest.mark.parametrize(
    "remote", ["127.0.0.1", "::1", "10.1.2.3", "fd00::12", "192.0.2.7", "::ffff:10.1.2.3"]
)
def test_an_address_in_the_networks(remote: str) -> None:
    assert Visitors(OFFICE).may(remote, {})


@pytest.mark.parametrize(
    "remote", ["10.2.0.1", "192.0.2.8", "2001:db8::1", "", None, "unix:", "::ffff:10.2.0.1"]
)
def test_any_other(remote: str | None) -> None:
    assert not Visitors(OFFICE).may(remote, {})


@pytest.mark.parametrize(
    ("headers", "may"),
    [
        pytest.param({"X-Forwarded-For": "10.1.2.3"}, True, id="one of theirs through a web server here"),
        pytest.param({"X-Forwarded-For": "203.0.113.5"}, False, id="a stranger through a web server here"),
        pytest.param({"X-Forwarded-For": "127.0.0.1, 203.0.113.5"}, False, id="a stranger who forges one"),
        pytest.param({"X-Forwarded-For": "203.0.113.5, 10.1.2.3"}, False, id="any stranger in the chain"),
        pytest.param(
            {"X-Forwarded-For": "10.1.2.3", "X-Real-Ip": "203.0.113.5"}, False, id="two that differ"
        ),
        pytest.param({"X-Forwarded-For": "[::1], 10.1.2.3"}, True, id="in brackets"),
        pytest.param({"X-Forwarded-For": "unknown"}, False, id="no address"),
        pytest.param({"X-Forwarded-For": ""}, True, id="an empty header names nobody"),
        pytest.param({"Forwarded": "for=10.1.2.3"}, False, id="a header that is not read"),
    ],
)
def test_through_web_servers(headers: dict[str, str], may: bool) -> None:
    assert Visitors(OFFICE).may("127.0.0.1", headers) is may


def test_nobody_and_everybody() -> None:
    assert not Visitors(()).may("127.0.0.1", {})
    assert Visitors(("*",)).may(None, {"X-Forwarded-For": "203.0.113.5"})
