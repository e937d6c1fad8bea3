"""The lines to type for an image."""

import io

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from proxy.core import names
from proxy.core.model import Package, Preset
from proxy.core.names import Vocabulary
from proxy.web.page.composer.lines import Place, lines

WORDS = Vocabulary(
    presets={"shell": Preset(packages=("bashInteractive", "coreutils"))}, package_sets=frozenset({"team"})
)
PLAIN, SECURE = Place("host:8080", is_secure=False, presets=["shell"]), Place("host", is_secure=True)


def text(place: Place, name: str, label: str, *packages: Package) -> str:
    request = names.parse(name.partition(":")[0], "latest", WORDS)
    (line,) = [line for line in lines(place, name, request, packages) if line.label.startswith(label)]
    return line.text


@pytest.mark.parametrize(
    ("name", "image", "pod"),
    [
        ("git", "host:8080/shell/git", "git"),
        ("git:2.39.5", "host:8080/shell/git:2.39.5", "git"),
        ("shell/git", "host:8080/shell/git", "git"),
        ("python3packages.numpy", "host:8080/shell/python3packages.numpy", "python3packages-numpy"),
    ],
)
def test_a_pod_is_whole_and_stays_up(name: str, image: str, pod: str) -> None:
    document = yaml.safe_load(text(PLAIN, name, "Kubernetes"))

    assert (document["apiVersion"], document["kind"], document["metadata"]["name"]) == ("v1", "Pod", pod)
    (container,) = document["spec"]["containers"]
    assert container == {"name": pod, "image": image, "command": ["sleep", "infinity"]}


def test_a_pod_of_an_image_without_sleep_runs_its_own_program() -> None:
    for name in ("team/tool", "pushed/by/somebody"):
        (container,) = yaml.safe_load(text(SECURE, name, "Kubernetes"))["spec"]["containers"]
        assert "command" not in container
        assert container["image"] == f"host/{name}"


def test_podman_does_without_tls_where_there_is_none() -> None:
    assert "--tls-verify=false" in text(PLAIN, "git", "Podman")
    assert "--tls-verify" not in text(SECURE, "git", "Podman")


def test_a_dockerfile_gets_the_program_and_its_closure_and_keeps_its_own_root() -> None:
    git = Package("git", "git-2", "", (("out", "/nix/store/00000000000000000000000000000000-git-2"),), "git")
    dockerfile = "FROM debian\n" + text(PLAIN, "git", "Dockerfile, beside", git)
    parser = DockerfileParser(fileobj=io.BytesIO(dockerfile.encode()))
    copy, environment = parser.structure[1:]

    assert copy["instruction"] == "COPY"
    assert copy["value"].split() == ["--from=host:8080/git", "/nix/store", "/nix/store"]
    assert environment["value"] == "PATH=/nix/store/00000000000000000000000000000000-git-2/bin:$PATH"


def test_what_is_in_a_pushed_image_is_unknown() -> None:
    assert not [line for line in lines(PLAIN, "git") if "COPY" in line.text]


def test_the_lines_for_another_platform_have_it_and_say_what_it_takes() -> None:
    words = Vocabulary(presets={"arm64": Preset(system="aarch64-linux")})
    place = Place("host", is_secure=True, platform="linux/amd64")
    request = names.parse("arm64/git", "latest", words)
    docker, pull, podman, pod, base, *_ = lines(place, "arm64/git", request)

    assert docker.text == "docker run --rm -it --platform linux/arm64 host/arm64/git"
    assert pull.text == "docker pull --platform linux/arm64 host/arm64/git"
    assert "--platform linux/arm64" in podman.text
    assert "emulator" in docker.note
    assert yaml.safe_load(pod.text)["spec"]["nodeSelector"] == {"kubernetes.io/arch": "arm64"}
    assert base.text == "FROM --platform=linux/arm64 host/arm64/git"


def test_an_image_that_runs_here_too_has_plain_lines() -> None:
    place = Place("host", is_secure=True, platform="linux/amd64")
    for platforms in (("linux/amd64",), ("linux/arm64", "linux/amd64")):
        every = lines(place, "git", names.parse("git", "latest", WORDS), platforms=platforms)
        assert not any("platform" in line.text or "nodeSelector" in line.text for line in every)
    pushed = lines(place, "team/app", platforms=("linux/s390x",))
    assert pushed[0].text == "docker run --rm -it --platform linux/s390x host/team/app"
