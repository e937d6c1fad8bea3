"""Which answer a waiting client gets, at which hop, after how long."""

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.request import parse
from proxy.settings.sections import BuildsSection
from proxy.web import waiting
from proxy.web.waiting import Then, WaitingRules

RULES = WaitingRules(
    patience=5,
    hop_seconds=22,
    hops=9,
    question_agents=BuildsSection().question_agents,
    restart_agents=("containerd",),
    restart_seconds=25,
    hold_seconds=3600,
)
HELD = WaitingRules(
    patience=5,
    hop_seconds=22,
    hops=0,
    question_agents=(),
    restart_agents=(),
    restart_seconds=25,
    hold_seconds=3600,
)

DOCKER = "docker/20.10.24 go/go1.19.8 os/linux UpstreamClient(Docker-Client/20.10.24 \\(linux\\))"
DOCKER_ON_CONTAINERD = "docker/29.2.1 go/go1.25.6 os/linux containerd-client/2.2.1+unknown storage-driver/x"
CTR = "containerd/1.6.20~ds1"
SKOPEO = "skopeo/1.9.3"
#: What the sources of each tool write. None of them sends a GET after a HEAD that failed, or only some of its callers do.
QUESTIONS = [
    "Renovate/41.0.0 (https://github.com/renovatebot/renovate)",
    "RenovateBot/37.1 (https://github.com/renovatebot/renovate)",
    "oras-go",
    "oras/1.2.0",
    "crane/0.20.2 go-containerregistry/v0.20.2",
    "regclient/regctl (v0.8.0)",
    "containers/5.36.0 (github.com/containers/image)",
    "libpod/5.4.0",
]

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
    ("HEAD", 0, DOCKER_ON_CONTAINERD, RULES, 5, Then.ASK_WITH_GET),
    ("HEAD", 0, "", RULES, 5, Then.ASK_WITH_GET),
    *(("HEAD", 0, agent, RULES, 22, Then.ASK_AGAIN) for agent in QUESTIONS),
    *(("HEAD", 9, agent, RULES, 3600, Then.GIVE_UP) for agent in QUESTIONS),
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
    rules = WaitingRules(5, 22, hops, (), ("containerd",), 25, 3600)

    answers = [waiting.decide("GET", hop, agent, rules)[1] for hop in range(11)]

    assert answers[:hops] == [Then.ASK_AGAIN] * hops
    assert Then.ASK_AGAIN not in answers[hops:]


def answer_to(target: str, method: str, rules: WaitingRules) -> web.Response | waiting.Overdue:
    """What a client gets whose work takes longer than it bears."""
    path, _, query = target.partition("?")
    return waiting._again(
        parse(path, query), waiting.decide(method, parse(path, query).hop or 0, CTR, rules)[1]
    )


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/v2/git/manifests/latest", "?wait=1"),
        ("/v2/git/manifests/latest?wait=3", "?wait=4"),
        ("/v2/git/manifests/latest?ns=docker.io", "?ns=docker.io&wait=1"),
        ("/v2/git/manifests/latest?wait=1&a=%2F&ns=docker.io", "?a=%2F&ns=docker.io&wait=2"),
    ],
)
def test_a_client_is_sent_on_with_its_own_query(target: str, location: str) -> None:
    answer = answer_to(target, "GET", RULES)

    assert isinstance(answer, web.Response)
    assert (answer.status, answer.headers["Location"]) == (307, location)
    assert answer.body == b"still being built\n"


def test_a_head_is_sent_on_to_get() -> None:
    answer = answer_to("/v2/git/manifests/latest", "HEAD", RULES)

    assert isinstance(answer, web.Response)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(("rules", "status"), [(RULES, 408), (HELD, 503)])
def test_in_the_end_there_is_no_way_on(rules: WaitingRules, status: int) -> None:
    assert answer_to("/v2/git/manifests/latest?wait=9", "GET", rules) == waiting.Overdue(status)
