"""Which headers cross the proxy, and how a `Location` of the registry looks from outside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.web import passthrough

Pairs = list[tuple[str, str]]

REGISTRY = "http://127.0.0.1:5000"
HOP_BY_HOP = [
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
]
TOKENS = st.from_regex(r"[A-Za-z][A-Za-z-]{0,12}", fullmatch=True)


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_hop_by_hop_headers_stay_on_their_side(name: str) -> None:
    pairs = [("Accept", "a"), (name, "x"), (name.upper(), "x"), (name.lower(), "x")]

    assert passthrough.forward(pairs) == [("Accept", "a")]
    assert passthrough.backward(pairs) == [("Accept", "a")]


@pytest.mark.parametrize(
    "name",
    ["Host", "host", "X-Forwarded-For", "x-forwarded-host", "X-Forwarded-Proto", "Forwarded", "X-Real-IP"],
)
def test_what_is_made_anew_for_the_registry_is_not_forwarded(name: str) -> None:
    assert passthrough.forward([(name, "x")]) == []
    assert passthrough.backward([(name, "x")]) == [(name, "x")]


@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
def test_who_waits_for_a_100_is_answered_here(value: str) -> None:
    assert passthrough.waits([("Accept", "a"), ("expect", value)])
    assert passthrough.forward([("Expect", value)]) == []


def test_another_expectation_is_for_the_registry_to_judge() -> None:
    assert not passthrough.waits([("Expect", "x")])
    assert passthrough.forward([("Expect", "x")]) == [("Expect", "x")]


def test_every_line_of_a_repeated_header_goes_on_in_order() -> None:
    pairs = [("Accept", "b"), ("Authorization", "Basic x"), ("accept", "a"), ("Accept", "c")]

    assert passthrough.forward(pairs) == pairs


@pytest.mark.parametrize(
    "connection",
    [
        pytest.param([("Connection", "X-Secret")], id="one"),
        pytest.param([("Connection", "close, x-secret")], id="in a list"),
        pytest.param([("Connection", "close"), ("connection", " X-SECRET ,")], id="in a second line"),
    ],
)
def test_what_the_registrys_connection_names_stays_here(connection: Pairs) -> None:
    pairs = [("x-Secret", "1"), *connection, ("X-Other", "2")]

    assert passthrough.backward(pairs) == [("X-Other", "2")]


@pytest.mark.parametrize("name", ["Accept", "Authorization", "Range", "If-None-Match", "X-Other"])
def test_a_client_cannot_drop_a_header_of_its_own_on_the_way(name: str) -> None:
    pairs = [(name, "1"), ("Connection", f"close, {name}"), ("connection", name.lower())]

    assert passthrough.forward(pairs) == [(name, "1")]


@given(st.lists(st.tuples(TOKENS, st.text(max_size=10))))
def test_filtering_keeps_order_and_text_and_drops_nothing_more_the_second_time(pairs: Pairs) -> None:
    once = passthrough.forward(pairs)

    rest = iter(pairs)
    assert all(pair in rest for pair in once)
    assert passthrough.forward(once) == once


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        pytest.param(
            "http://127.0.0.1:5000/v2/a/blobs/uploads/1?_state=x%3D",
            "/v2/a/blobs/uploads/1?_state=x%3D",
            id="the registry's",
        ),
        pytest.param("https://127.0.0.1:5000/v2/", "/v2/", id="by another scheme"),
        pytest.param("/v2/a/blobs/uploads/1", "/v2/a/blobs/uploads/1", id="relative to the host"),
        pytest.param("uploads/1?x=y", "uploads/1?x=y", id="relative to the path"),
        pytest.param("http://cdn.example/blob?sig=1", "http://cdn.example/blob?sig=1", id="another host"),
        pytest.param("http://127.0.0.1:5001/v2/", "http://127.0.0.1:5001/v2/", id="another port"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_only_a_location_of_the_registry_is_turned_to_us(location: str, expected: str) -> None:
    assert passthrough.local_location(location, REGISTRY) == expected


def test_the_case_of_the_host_does_not_count() -> None:
    assert passthrough.local_location("http://REG:5000/v2/", "http://reg:5000") == "/v2/"


@pytest.mark.parametrize(
    ("location", "registry"),
    [
        ("http://reg/v2/", "http://reg:80"),
        ("https://reg:443/v2/", "https://reg"),
        ("http://reg:80/v2/", "http://reg"),
    ],
)
def test_the_port_of_a_scheme_need_not_be_said(location: str, registry: str) -> None:
    assert passthrough.local_location(location, registry) == "/v2/"


def test_a_location_that_is_no_url_stays_as_it_is() -> None:
    assert passthrough.local_location("http://[", "http://r:5000") == "http://["
