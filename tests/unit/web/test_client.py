"""Who asks: of all that a request says about that, only the word of a trusted front proxy counts."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.web.client import Client, Networks, client, forwarding

PROXIES = Networks(map(ip_network, ("10.0.0.0/8", "fd00::/8")))
SAID = [
    ("Host", "inside:5000"),
    ("X-Forwarded-For", "192.0.2.1"),
    ("X-Forwarded-Host", "images.example"),
    ("X-Forwarded-Proto", "https"),
]


def test_the_socket_is_believed() -> None:
    assert client([("host", "images:8080")], "192.0.2.1", "http") == Client(
        "192.0.2.1", "http", "images:8080", ("192.0.2.1",)
    )


@pytest.mark.parametrize("trusted", [Networks(), PROXIES])
def test_a_stranger_is_not_believed(trusted: Networks) -> None:
    told = client(SAID, "198.51.100.7", "http", trusted)

    assert told == Client("198.51.100.7", "http", "inside:5000", ("198.51.100.7",))


def test_a_trusted_proxy_is_believed_and_what_it_said_goes_on() -> None:
    told = client(SAID, "10.1.1.1", "http", PROXIES)

    assert told == Client("192.0.2.1", "https", "images.example", ("192.0.2.1", "10.1.1.1"))
    assert told.headers() == [
        ("X-Forwarded-For", "192.0.2.1, 10.1.1.1"),
        ("X-Forwarded-Host", "images.example"),
        ("X-Forwarded-Proto", "https"),
    ]


@pytest.mark.parametrize(
    ("chain", "address"),
    [
        pytest.param(["192.0.2.1, 10.2.2.2"], "192.0.2.1", id="two proxies"),
        pytest.param(["1.1.1.1, 192.0.2.1"], "192.0.2.1", id="a client that made up another one"),
        pytest.param(["1.1.1.1", "192.0.2.1,10.2.2.2"], "192.0.2.1", id="in two lines"),
        pytest.param(["192.0.2.1:4711"], "192.0.2.1", id="with a port"),
        pytest.param(["[2001:DB8::1]:4711"], "2001:db8::1", id="IPv6 with a port"),
        pytest.param(["2001:db8:0::1"], "2001:db8::1", id="IPv6"),
        pytest.param(["::ffff:192.0.2.1"], "192.0.2.1", id="IPv4 written as IPv6"),
        pytest.param(["unknown"], "unknown", id="no address"),
        pytest.param(["10.3.3.3, 10.2.2.2"], "10.3.3.3", id="a client among the proxies"),
        pytest.param([], "10.1.1.1", id="nothing said"),
        pytest.param([" , "], "unknown", id="nothing but a comma"),
        pytest.param(["192.0.2.1", ""], "unknown", id="an empty line behind another"),
        pytest.param(["192.0.2.1, ,10.2.2.2"], "unknown", id="an empty element"),
    ],
)
def test_the_client_is_the_last_that_is_no_proxy(chain: list[str], address: str) -> None:
    pairs = [("x-forwarded-for", line) for line in chain]

    assert client(pairs, "10.1.1.1", "http", PROXIES).address == address


@pytest.mark.parametrize("peer", ["::ffff:10.1.1.1", "fd00::1", "fd00::1%eth0"])
def test_a_proxy_is_known_by_any_spelling_of_its_address(peer: str) -> None:
    assert client(SAID, peer, "http", PROXIES).address == "192.0.2.1"


@pytest.mark.parametrize(
    ("pairs", "scheme", "host"),
    [
        pytest.param([("X-Forwarded-Proto", "HTTPS, http")], "https", "inside", id="the first scheme"),
        pytest.param([("X-Forwarded-Proto", "gopher")], "http", "inside", id="no scheme of the web"),
        pytest.param(
            [("X-Forwarded-Host", "a.example, b.example")], "http", "a.example", id="the first host"
        ),
        pytest.param([("X-Forwarded-Host", "")], "http", "inside", id="no host"),
    ],
)
def test_several_words_of_a_proxy(pairs: list[tuple[str, str]], scheme: str, host: str) -> None:
    told = client([("Host", "inside"), *pairs], "10.1.1.1", "http", PROXIES)

    assert (told.scheme, told.host) == (scheme, host)


def test_a_whole_url_counts_for_more_than_the_host_header() -> None:
    assert client([("Host", "a")], "192.0.2.1", "http", authority="b:1").host == "b:1"


def test_nothing_is_said_of_what_is_not_known() -> None:
    assert client([], "", "http").headers() == [("X-Forwarded-Proto", "http")]


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_text_is_read(peer: str, said: str) -> None:
    assert client([("X-Forwarded-For", said)], peer, "http", PROXIES).scheme == "http"
    assert not PROXIES.contain("x" + peer)


OFFICE = tuple(map(ip_network, ("127.0.0.0/8", "::1/128", "10.1.0.0/16", "fd00::/8", "192.0.2.7")))


@pytest.mark.parametrize(
    "remote", ["127.0.0.1", "::1", "10.1.2.3", "fd00::12", "192.0.2.7", "::ffff:10.1.2.3"]
)
def test_an_address_in_the_networks(remote: str) -> None:
    assert Networks(OFFICE).contain_every_hop(remote, {})


@pytest.mark.parametrize(
    "remote", ["10.2.0.1", "192.0.2.8", "2001:db8::1", "", None, "unix:", "::ffff:10.2.0.1"]
)
def test_any_other(remote: str | None) -> None:
    assert not Networks(OFFICE).contain_every_hop(remote, {})


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
        pytest.param({"X-Forwarded-For": ""}, False, id="an empty header is nobody's address"),
        pytest.param({"X-Forwarded-For": "10.1.2.3, "}, False, id="an empty element too"),
        pytest.param({"X-Real-Ip": ""}, False, id="in any header"),
        pytest.param({"Forwarded": "for=10.1.2.3"}, False, id="a header that is not read"),
    ],
)
def test_through_web_servers(headers: dict[str, str], may: bool) -> None:
    assert Networks(OFFICE).contain_every_hop("127.0.0.1", headers) is may


def test_nobody_and_everybody() -> None:
    assert not Networks(()).contain_every_hop("127.0.0.1", {})
    assert Networks(("*",)).contain_every_hop(None, {"X-Forwarded-For": "203.0.113.5"})


def test_every_line_of_a_header_counts() -> None:
    """Some web servers add a line of their own below the client's."""
    lines = CIMultiDict([("X-Forwarded-For", "10.1.2.3"), ("X-Forwarded-For", "203.0.113.5")])

    assert not Networks(OFFICE).contain_every_hop("127.0.0.1", lines)
    assert forwarding(lines.items()) == forwarding([("x-forwarded-for", "10.1.2.3 ,203.0.113.5")])
    assert Networks(OFFICE).contain_every_hop(
        "127.0.0.1", CIMultiDict([("X-Forwarded-For", "10.1.2.3:4711")])
    )
