"""The files of deploy/: each is checked by a schema of its kind, and by what they say of each other."""

import configparser
import io
import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose
from dockerfile_parse import DockerfileParser
from prometheus_client.parser import text_string_to_metric_families

from proxy import settings
from proxy.core.events import BuildEnded
from proxy.telemetry.metrics import Metrics

DEPLOY = Path(__file__).parents[3] / "deploy"
ROOT = DEPLOY.parent
KUBERNETES = DEPLOY / "kubernetes"


def documents(file: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def resources() -> list[tuple[str, dict[str, Any]]]:
    (whole,) = documents(KUBERNETES / "kustomization.yaml")
    return [(name, document) for name in whole["resources"] for document in documents(KUBERNETES / name)]


def kind(wanted: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for _, each in resources() if each["kind"] == wanted}


# --- Compose ---------------------------------------------------------------------------------------------------


def test_compose_is_valid_and_all_that_it_names_is_there() -> None:
    compose = PyCompose.from_yaml((DEPLOY / "compose.yaml").read_text())
    compose.validate()
    raw = yaml.safe_load((DEPLOY / "compose.yaml").read_text())

    assert set(compose.service_names()) == {"registry", "redis", "nixfront", "browse"}
    for service in raw["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in raw["volumes"] or (DEPLOY / source).exists(), source
        assert set(service.get("depends_on", ())) <= set(raw["services"])
    build = raw["services"]["nixfront"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Containerfile")
    for port in (port for service in raw["services"].values() for port in service.get("ports", ())):
        assert port.startswith("127.0.0.1:"), "nothing is open to the world unless somebody says so"


def test_the_environment_of_compose_is_accepted() -> None:
    raw = yaml.safe_load((DEPLOY / "compose.yaml").read_text())

    chosen = settings.load(None, raw["services"]["nixfront"]["environment"])

    assert chosen.registry.url == "http://registry:5000"
    assert chosen.state.url.startswith("redis://redis:")


# --- the container image ---------------------------------------------------------------------------------------


def test_the_recipe_of_the_container_image() -> None:
    recipe = DockerfileParser(fileobj=io.BytesIO((DEPLOY / "Containerfile").read_bytes()))
    steps = [(step["instruction"], step["value"]) for step in recipe.structure]

    assert recipe.baseimage == "debian:12-slim"
    for name, value in steps:
        if name == "COPY":
            for source in value.split()[:-1]:
                assert (ROOT / source).exists(), source
    copied = {source for name, value in steps if name == "COPY" for source in value.split()[:-1]}
    setup = (ROOT / "tests/support/setup.bash").read_text()
    needed = re.search(r"for file in (.+); do", setup)
    assert needed is not None
    assert copied == set(needed[1].split()), "what the tests install from is what the image is made from"
    chosen = settings.load(None, {k: v for k, v in recipe.envs.items() if k.startswith("NIXFRONT_")})
    assert chosen.http.addr == "0.0.0.0:8080"


# --- Kubernetes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "document"), resources(), ids=lambda value: value if isinstance(value, str) else value["kind"]
)
def test_resources_fit_the_schema_of_kubernetes(file: str, document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.30", strict=True)


def test_everything_beside_the_kustomization_is_in_it() -> None:
    (whole,) = documents(KUBERNETES / "kustomization.yaml")

    listed = {*whole["resources"], *(name for each in whole["configMapGenerator"] for name in each["files"])}
    assert listed == {file.name for file in KUBERNETES.iterdir() if file.is_file()} - {"kustomization.yaml"}


def test_names_and_ports_fit_each_other() -> None:
    deployments, services = kind("Deployment"), kind("Service")
    claims, policies = kind("PersistentVolumeClaim"), kind("NetworkPolicy")
    for name, service in services.items():
        pod = deployments[name]["spec"]["template"]
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for deployment in deployments.values():
        for volume in deployment["spec"]["template"]["spec"]["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
        assert deployment["metadata"]["name"] in policies
    backend = kind("Ingress")["nixfront"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["port"]["name"] in {port["name"] for port in services[backend["name"]]["spec"]["ports"]}


def test_the_settings_on_kubernetes_are_accepted_and_its_ports_are_theirs() -> None:
    chosen = settings.load(KUBERNETES / "nixfront.yml", {})
    container = kind("Deployment")["nixfront"]["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    assert chosen.http.addr.endswith(f":{ports['images']}")
    assert chosen.status.addr.endswith(f":{ports['status']}")
    assert chosen.registry.url == "http://registry:5000"


def test_time_limits_are_longer_than_what_they_limit() -> None:
    hold, grace = settings.Settings().builds.hold_seconds, settings.Settings().builds.grace_seconds
    annotations = kind("Ingress")["nixfront"]["metadata"]["annotations"]
    pod = kind("Deployment")["nixfront"]["spec"]["template"]["spec"]
    unit = configparser.RawConfigParser(strict=False)
    unit.read(DEPLOY / "systemd/nixfront.service")
    nginx = (DEPLOY / "front/nginx.conf").read_text()
    caddy = (DEPLOY / "front/Caddyfile").read_text()

    assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > hold
    assert pod["terminationGracePeriodSeconds"] > grace
    assert unit.getint("Service", "TimeoutStopSec") > grace
    for text, words in (
        (nginx, ("proxy_read_timeout",)),
        (caddy, ("read_timeout", "response_header_timeout")),
    ):
        for word in words:
            found = re.search(rf"\b{word} (\d+)s", text)
            assert found is not None, word
            assert int(found[1]) > hold


# --- Grafana ---------------------------------------------------------------------------------------------------


def test_the_dashboard_asks_for_counts_that_there_are() -> None:
    dashboard = json.loads((DEPLOY / "grafana/nixfront.json").read_text())
    metrics = Metrics()
    metrics.answered("blob", "GET", 200, 0.1, 1, 1)
    metrics.see(BuildEnded("a", "b"))
    known = {
        sample.name
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    } | {
        f"{family.name}{suffix}"
        for family in text_string_to_metric_families(metrics.text().decode())
        for suffix in ("_bucket", "_total", "_count", "_sum")
    }
    panels = dashboard["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]

    assert len({panel["id"] for panel in panels}) == len(panels) == 15
    for expression in asked:
        names = re.findall(r"\b((?:nixfront|process)_[a-z_]+)", expression)
        assert names, expression
        assert set(names) <= known, expression
        assert expression.count("(") == expression.count(")")
        assert 'job=~"$job"' in expression
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"source", "job"}


# --- NixOS -----------------------------------------------------------------------------------------------------


def test_the_package_of_nix_has_every_dependency() -> None:
    setup = configparser.RawConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = {
        re.split(r"[<>=]", line)[0].lower()
        for line in setup["options"]["install_requires"].split()
        if line[0].isalpha()
    }
    text = (DEPLOY / "nixos/package.nix").read_text()
    found = re.search(r"dependencies = with python3Packages; \[([^]]*)\]", text)
    assert found is not None

    assert {*found[1].split()} == wanted - {"docker-registry-client"}
