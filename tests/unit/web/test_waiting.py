"""Which answer a waiting client gets, at which hop, after how long."""

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from proxy.web import waiting
from proxy.web.waiting import Then, WaitingRules

RULES = WaitingRules(
    patience=5, hop_seconds=22, hops=9, restart_agents=("containerd",), restart_seconds=25, hold_seconds=3600
)
HELD = WaitingRules(
    patience=5, hop_seconds=22, hops=0, restart_agents=(), restart_seconds=25, hold_seconds=3600
)

DOCKER = "docker/20.10.24 go/go1.19.8 os/linux UpstreamClient(Docker-Client/20.10.24 \\(linux\\))"
DOCKER_ON_CONTAINERD = "docker/29.2.1 go/go1.25.6 os/linux containerd-client/2.2.1+unknown storage-driver/x"
CTR = "containerd/1.6.20~ds1"
SKOPEO = "skopeo/1.9.3"

TABLE = [
    # method, hop, agent, rules -> seconds, then
    ("HEAD", 0, DOCKER, RULES, 5, Then.ASK_WITH_GET),
    ("HEAD", 0, CTR, RULES, 5, Then.ASK_WITH_GET),
    ("HEAD", 9, CTR, RULES, 5, Then.ASK_WITH_GET),
    ("GET", 0, DOCKER, RULES, 22, Then.ASK_AGAIN),
    ("GET", 0, SKOPEO, RULES, 22, Then.ASK_AGAIN),
    ("GET", 8, CTR, RULES, 22, Then.ASK_AGAIN),
    ("GET", 9, CTR, RULES, 25, Then.START_OVER),
    ("GET", 9, "Containerd/9", RULES, 25, Then.START_OVER),
    ("GET", 9, DOCKER_ON_CONTAINERD, RULES, 25, Then.START_OVER),
    ("GET", 9, DOCKER, RULES, 3600, Then.GIVE_UP),
    ("GET", 9, SKOPEO, RULES, 3600, Then.GIVE_UP),
    ("GET", 9, "", RULES, 3600, Then.GIVE_UP),
    ("GET", 999, SKOPEO, RULES, 3600, Then.GIVE_UP),
    ("HEAD", 0, DOCKER, HELD, 3600, Then.GIVE_UP),
    ("GET", 0, CTR, HELD, 3600, Then.GIVE_UP),
]


@pytest.mark.parametrize(("method", "hop", "agent", "rules", "seconds", "then"), TABLE)
def test_the_table(
    method: str, hop: int, agent: str, rules: WaitingRules, seconds: float, then: Then
) -> None:
    assert waiting.decide(method, hop, agent, rules) == (seconds, then)


@given(st.sampled_from([DOCKER, CTR, SKOPEO, DOCKER_ON_CONTAINERD]), st.integers(0, 9))
def test_a_chain_ends_within_the_redirects_that_docker_follows(agent: str, hops: int) -> None:
    rules = WaitingRules(5, 22, hops, ("containerd",), 25, 3600)

    answers = [waiting.decide("GET", hop, agent, rules)[1] for hop in range(11)]

    assert answers[:hops] == [Then.ASK_AGAIN] * hops
    assert Then.ASK_AGAIN not in answers[hops:]


@pytest.mark.parametrize(
    ("query", "hop", "kept"),
    [
        ("", 0, ""),
        ("wait=3", 3, ""),
        ("ns=docker.io&wait=3", 3, "ns=docker.io"),
        ("wait=3&ns=docker.io", 3, "ns=docker.io"),
        ("a=%2F+&wait=12&b", 12, "a=%2F+&b"),
        ("wait=x", 0, ""),
        ("wait=", 0, ""),
        ("wait=-1", 0, ""),
        ("wait=1000", 0, ""),
        ("wait=\N{SUPERSCRIPT TWO}", 0, ""),
        ("waits=3", 0, "waits=3"),
        ("a&&b", 0, "a&&b"),
    ],
)
def test_the_hop_is_taken_out_of_the_query(query: str, hop: int, kept: str) -> None:
    assert waiting.read_query(query) == (hop, kept)


@pytest.mark.parametrize(
    ("asked", "hop", "plain"),
    [
        ("/v2/git/manifests/latest", 0, "/v2/git/manifests/latest"),
        ("/v2/git/manifests/latest?wait=4", 4, "/v2/git/manifests/latest"),
        ("/v2/a%2fb/manifests/latest?x=%2f&wait=4", 4, "/v2/a%2fb/manifests/latest?x=%2f"),
        ("/v2/git/manifests/latest?", 0, "/v2/git/manifests/latest?"),
        ("/v2/_catalog?wait=4", 0, "/v2/_catalog?wait=4"),
        ("/v2/git/tags/list?wait=4", 0, "/v2/git/tags/list?wait=4"),
    ],
)
def test_only_a_manifest_has_hops(asked: str, hop: int, plain: str) -> None:
    # aiohttp's server takes what came over the wire for encoded already.
    request = make_mocked_request("GET", "/", headers={"Accept": "a", "User-Agent": "b"}).clone(
        rel_url=URL(asked, encoded=True)
    )

    found, same = waiting.as_asked(request)

    assert (found, same.rel_url.raw_path_qs) == (hop, plain.removesuffix("?"))
    assert same.headers == request.headers
