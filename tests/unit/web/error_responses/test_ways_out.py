"""What each client reads about the way out of an error."""

import pytest
from aiohttp.test_utils import make_mocked_request

from proxy.core import errors
from proxy.core.model import ImageRequest
from proxy.web.error_responses.ways_out import WaysOut

DOCKER = "docker/26.1.5 go/go1.21 UpstreamClient(Docker-Client/26.1.5)"
HELO = ImageRequest("helo", "latest", ("helo",))
TEAM = ImageRequest("team/helo", "latest", ("helo",), "team")
SHELL = ImageRequest("shell/helo/gti", "latest", ("bash", "helo", "gti"))


def add(
    error: errors.NixfrontError, image: ImageRequest, agent: str = DOCKER, *, sees_page: bool = True
) -> str:
    ways = WaysOut(
        lambda _, image: f"its log: {image.repository}", lambda _: ("https://nix.example", sees_page)
    )
    request = make_mocked_request("GET", "/v2/x/manifests/latest", headers={"User-Agent": agent})
    added = ways.add(error, request, image)
    assert type(added) is type(error)
    return str(added)


@pytest.mark.parametrize(
    ("image", "ways"),
    [
        pytest.param(
            HELO,
            "look for names at https://nix.example/compose?names=helo; docker search nix.example/helo",
            id="one",
        ),
        pytest.param(
            TEAM,
            "look for names at https://nix.example/compose?names=helo&set=team; docker search nix.example/team/helo",
            id="of a set",
        ),
        pytest.param(
            SHELL,
            "look for names at https://nix.example/compose?names=shell+helo+gti; docker search nix.example/helo",
            id="several",
        ),
    ],
)
def test_an_unknown_package_says_where_to_look(image: ImageRequest, ways: str) -> None:
    assert add(errors.PackageUnknown("no package helo"), image) == f"no package helo; {ways}"


@pytest.mark.parametrize(
    ("agent", "command"),
    [
        pytest.param(DOCKER, "; docker search nix.example/helo", id="docker"),
        pytest.param("libpod/5.4.2", "; podman search nix.example/helo", id="podman"),
        pytest.param("skopeo/1.18.0", "", id="skopeo cannot search"),
        pytest.param("containerd/v2.1.0", "", id="containerd neither"),
        pytest.param("", "", id="nobody"),
    ],
)
def test_the_command_is_the_clients_own_and_the_page_is_for_its_visitors(agent: str, command: str) -> None:
    text = add(errors.PackageUnknown("no package helo"), HELO, agent, sees_page=False)

    assert text == f"no package helo{command}"


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("no package gti, did you mean git?", "gti"),
        ("no package helo; no package gti", "helo"),
        ("no package gti-more", "NAME"),
        ("git could be git and Git, which differ only in case", "NAME"),
    ],
)
def test_of_several_names_the_command_has_the_first_that_is_missing(message: str, name: str) -> None:
    text = add(errors.PackageUnknown(message), SHELL, sees_page=False)

    assert text == f"{message}; docker search nix.example/{name}"


def test_a_failed_build_says_where_its_log_is() -> None:
    failed = errors.BuildTimedOut("it took longer; its log ends:\nx")

    assert add(failed, HELO) == "it took longer; its log ends:\nx\nits log: helo"


@pytest.mark.parametrize("error", [errors.TagUnknown("no tag"), errors.Busy("later", 3)])
def test_other_errors_stay_as_they_are(error: errors.NixfrontError) -> None:
    assert add(error, HELO) == str(error)


def test_a_named_image_has_no_package_to_look_for() -> None:
    image = ImageRequest("images/web", "latest", (), image="web")

    assert add(errors.PackageUnknown("image web: no package a"), image) == "image web: no package a"
