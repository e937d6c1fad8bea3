"""The files of deploy/: each is checked by a schema of its kind, and by what they say of each other."""

import configparser
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose
from dockerfile_parse import DockerfileParser
from prometheus_client.parser import text_string_to_metric_families

import proxy
from proxy import cli, settings
from proxy.core import errors
from proxy.core.events import BuildEnded
from proxy.telemetry.metrics import Metrics
from proxy.web import public_key
from tests.support import chart

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
    said = dict(re.findall(r"-e '(NIXFRONT_\w+)=(.+)'", (DEPLOY / "Containerfile").read_text()))
    opened = settings.load(None, said)
    assert said.keys() == {
        f"NIXFRONT_{key}" for key in ("PAGE_NETWORKS", "STATUS_NETWORKS", "ACCESS_PUSH", "HTTP_HOSTS")
    }
    assert (opened.push, settings.Settings().push) == ("all", "users"), "its registry is embedded"


# --- Kubernetes ------------------------------------------------------------------------------------------------


def check_resource(document: dict[str, Any]) -> None:
    """Raises `kubernetes_validate.ValidationError`."""
    # It takes a second to load, which every worker of the tests would pay.
    import kubernetes_validate

    kubernetes_validate.validate(document, "1.30", strict=True)


@pytest.mark.parametrize(
    ("file", "document"), resources(), ids=lambda value: value if isinstance(value, str) else value["kind"]
)
def test_resources_fit_the_schema_of_kubernetes(file: str, document: dict[str, Any]) -> None:
    check_resource(document)


def test_everything_beside_the_kustomization_is_in_it() -> None:
    (whole,) = documents(KUBERNETES / "kustomization.yaml")

    listed = {*whole["resources"], *(name for each in whole["configMapGenerator"] for name in each["files"])}
    assert listed == {file.name for file in KUBERNETES.iterdir() if file.is_file()} - {
        "kustomization.yaml",
        "README.md",
    }


def workloads() -> dict[str, dict[str, Any]]:
    return {**kind("Deployment"), **kind("StatefulSet")}


def test_names_and_ports_fit_each_other() -> None:
    services, claims, policies = kind("Service"), kind("PersistentVolumeClaim"), kind("NetworkPolicy")
    for name, service in services.items():
        pod = workloads()[name.removesuffix("-pods")]["spec"]["template"]
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for name, workload in workloads().items():
        pod = workload["spec"]["template"]["spec"]
        templates = workload["spec"].get("volumeClaimTemplates", [])
        volumes = {each["name"] for each in pod.get("volumes", [])}
        volumes |= {each["metadata"]["name"] for each in templates}
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        for volume in pod.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
        assert name in policies
        assert workload["spec"].get("serviceName", name) in services
    for name, policy in policies.items():
        for rule in policy["spec"].get("ingress", []):
            ports = {
                p["name"]
                for c in workloads()[name]["spec"]["template"]["spec"]["containers"]
                for p in c["ports"]
            }
            assert {port["port"] for port in rule["ports"]} <= ports
    backend = kind("Ingress")["nixfront"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["port"]["name"] in {port["name"] for port in services[backend["name"]]["spec"]["ports"]}


@pytest.mark.parametrize("name", ["nixfront", "registry", "redis"])
def test_a_pod_has_no_root_and_writes_to_volumes_only(name: str) -> None:
    pod = workloads()[name]["spec"]["template"]["spec"]

    assert (
        kind("Namespace")["nixfront"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    for container in pod["containers"]:
        assert {"readinessProbe", "livenessProbe", "resources"} <= set(container)


def test_nobody_talks_to_anybody_but_as_a_policy_says() -> None:
    policies = kind("NetworkPolicy")
    shut = [each for each in policies.values() if each["spec"]["podSelector"] == {}]

    assert [each["spec"] for each in shut] == [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]
    ours = {"key": "app.kubernetes.io/name", "operator": "In", "values": ["nixfront", "nixfront-prune"]}
    for name in ("registry", "redis"):
        (rule,) = policies[name]["spec"]["ingress"]
        assert rule["from"] == [{"podSelector": {"matchExpressions": [ours]}}]
        assert "egress" not in policies[name]["spec"]
    (world,) = (rule for rule in policies["nixfront"]["spec"]["egress"] if "ipBlock" in rule["to"][0])
    assert world["ports"] == [{"port": 443}]
    assert "169.254.0.0/16" in world["to"][0]["ipBlock"]["except"]
    paths = [path for rule in kind("Ingress")["nixfront"]["spec"]["rules"] for path in rule["http"]["paths"]]
    assert {path["path"]: path["pathType"] for path in paths} == {
        "/v2": "Prefix",
        "/v1/search": "Exact",
        public_key.PATH: "Exact",
    }, "neither the page nor the counts"


def test_the_job_that_deletes_images_sleeps_and_gets_no_pulls() -> None:
    job = kind("CronJob")["nixfront-prune"]["spec"]
    template = job["jobTemplate"]["spec"]["template"]
    container, nixfront = template["spec"]["containers"][0], workloads()["nixfront"]["spec"]["template"]
    arguments = cli.parser().parse_args(container["command"][1:])

    assert job["suspend"] is True, "an operator wakes it"
    assert (arguments.subcommand, arguments.yes, arguments.days) == ("prune", True, 30.0)
    assert template["metadata"]["labels"] != kind("Service")["nixfront"]["spec"]["selector"]
    assert template["spec"]["imagePullSecrets"] == nixfront["spec"]["imagePullSecrets"]
    volumes = {each["name"]: each for each in nixfront["spec"]["volumes"]}
    for volume in template["spec"]["volumes"]:
        if volume["name"] != "temporary":
            assert volume == volumes[volume["name"]]


def test_the_registry_has_a_login_and_nixfront_has_its_password() -> None:
    chosen = settings.load(
        KUBERNETES / "nixfront.yml", {"NIXFRONT_STATE_URL": "redis://:secret@redis:6379/0"}
    )
    registry = workloads()["registry"]["spec"]["template"]["spec"]
    nixfront = workloads()["nixfront"]["spec"]["template"]["spec"]
    variables = {each["name"]: each["value"] for each in registry["containers"][0]["env"]}
    mounts = {each["name"]: each["mountPath"] for each in registry["containers"][0]["volumeMounts"]}
    (login,) = (each["secret"] for each in registry["volumes"] if each["name"] == "login")
    (password,) = (each["secret"] for each in nixfront["volumes"] if each["name"] == "login")
    ours = {each["name"]: each["mountPath"] for each in nixfront["containers"][0]["volumeMounts"]}

    assert variables["REGISTRY_AUTH_HTPASSWD_PATH"] == f"{mounts['login']}/{login['items'][0]['path']}"
    assert login["secretName"] == password["secretName"]
    assert chosen.registry.username == "nixfront"
    assert chosen.access.push == "none", "deletes are for nixfront alone"
    assert chosen.registry.password_file == f"{ours['login']}/{password['items'][0]['path']}"
    assert chosen.page.networks == settings.Settings().page.networks, "the page is for loopback"
    for text in (file.read_text() for file in KUBERNETES.glob("*.yaml")):
        assert "kind: Secret" not in text, "a sample has no password that somebody could leave as it is"


def test_two_of_them_share_their_state_and_stop_one_after_another() -> None:
    whole = kind("StatefulSet")["nixfront"]["spec"]
    (container,) = whole["template"]["spec"]["containers"]
    (variable,) = (each for each in container["env"] if each["name"] == "NIXFRONT_STATE_URL")
    (budget,) = kind("PodDisruptionBudget").values()

    assert whole["replicas"] == 2
    assert whole["updateStrategy"] == {"type": "RollingUpdate"}
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "redis", "key": "url"}
    assert budget["spec"]["maxUnavailable"] < whole["replicas"]
    assert budget["spec"]["selector"] == whole["selector"]


def test_the_settings_on_kubernetes_are_accepted_and_its_ports_are_theirs() -> None:
    chosen = settings.load(KUBERNETES / "nixfront.yml", {})
    container = workloads()["nixfront"]["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    variables = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    mounts = [each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")]

    assert chosen.http.addr.endswith(f":{ports['images']}")
    assert chosen.status.addr.endswith(f":{ports['status']}")
    assert chosen.registry.url == "http://registry:5000"
    for folder in (variables["HOME"], variables["NIXFRONT_DATA_DIR"], "/nix"):
        assert any(Path(folder).is_relative_to(mount) for mount in mounts), f"{folder} is written to"


def test_the_evaluations_of_a_pod_fit_its_memory() -> None:
    nix = settings.load(KUBERNETES / "nixfront.yml", {}).nix
    pod = workloads()["nixfront"]["spec"]["template"]["spec"]
    amount = re.fullmatch(r"(\d+)Gi", pod["containers"][0]["resources"]["limits"]["memory"])
    (temporary,) = (each["emptyDir"] for each in pod["volumes"] if "emptyDir" in each)

    assert amount is not None
    assert nix.evaluations > 0, "not one for each processor of the node"
    assert 0 < nix.evaluations * nix.evaluation_memory < int(amount[1]) << 30
    assert temporary["sizeLimit"], "builds do not fill the disk of the node"


def test_redis_has_room_for_its_file() -> None:
    (container,) = workloads()["redis"]["spec"]["template"]["spec"]["containers"]
    holds = re.search(r"maxmemory (\d+)gb", container["command"][2])
    limit = re.fullmatch(r"(\d+)Gi", container["resources"]["limits"]["memory"])

    assert holds is not None
    assert limit is not None
    assert int(limit[1]) >= 2 * int(holds[1])


def test_every_secret_of_the_pods_has_its_command() -> None:
    page = (KUBERNETES / "README.md").read_text()
    pods = [workload["spec"]["template"]["spec"] for workload in workloads().values()]
    volumes = [
        volume["secret"]["secretName"]
        for pod in pods
        for volume in pod.get("volumes", ())
        if "secret" in volume
    ]
    variables = [
        variable["valueFrom"]["secretKeyRef"]["name"]
        for pod in pods
        for container in pod["containers"]
        for variable in container.get("env", ())
        if "valueFrom" in variable
    ]
    pulls = [each["name"] for pod in pods for each in pod.get("imagePullSecrets", ())]
    certificates = [each["secretName"] for each in kind("Ingress")["nixfront"]["spec"]["tls"]]

    wanted = {*volumes, *variables, *pulls, *certificates}
    assert wanted == set(re.findall(r"create secret (?:generic|tls|docker-registry) (\S+)", page))
    assert page.index("namespace.yaml") < page.index("create secret"), "a secret needs its namespace first"


def test_the_signing_key_of_the_sample_is_where_the_pod_has_it(tmp_path: Path) -> None:
    (line,) = re.findall(r"^# (trust: .+)$", (KUBERNETES / "nixfront.yml").read_text(), re.MULTILINE)
    file = tmp_path / "nixfront.yml"
    file.write_text(line)
    chosen = settings.load(file, {})
    (container,) = workloads()["nixfront"]["spec"]["template"]["spec"]["containers"]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}

    assert chosen.trust.key == f"{mounts['signing']}/key"
    assert chosen.trust.identity == kind("Ingress")["nixfront"]["spec"]["rules"][0]["host"]


def test_the_policies_for_admission_name_the_host_of_the_sample_and_no_transparency_log() -> None:
    host = kind("Ingress")["nixfront"]["spec"]["rules"][0]["host"]
    (kyverno,) = documents(KUBERNETES / "admission/kyverno.yaml")
    (sigstore,) = documents(KUBERNETES / "admission/policy-controller.yaml")
    (rule,) = kyverno["spec"]["rules"]
    (image,) = rule["verifyImages"]
    (entry,) = image["attestors"][0]["entries"]
    (authority,) = sigstore["spec"]["authorities"]

    assert (kyverno["apiVersion"], kyverno["kind"]) == ("kyverno.io/v1", "ClusterPolicy")
    assert (sigstore["apiVersion"], sigstore["kind"]) == ("policy.sigstore.dev/v1beta1", "ClusterImagePolicy")
    assert image["imageReferences"] == [f"{host}/*"]
    assert [each["glob"] for each in sigstore["spec"]["images"]] == [f"{host}/**"]
    assert entry["keys"]["rekor"] == {"ignoreTlog": True}
    assert entry["keys"]["ctlog"] == {"ignoreSCT": True}
    assert "ctlog" not in authority
    assert kyverno["spec"]["webhookConfiguration"]["timeoutSeconds"] <= 30, "the most that Kubernetes takes"
    for key in (entry["keys"]["publicKeys"], authority["key"]["data"]):
        assert key.startswith("-----BEGIN PUBLIC KEY-----\n")
        assert f"https://{host}{public_key.PATH}" in key


# --- the Helm chart --------------------------------------------------------------------------------------------

CHART = DEPLOY / "helm/nixfront"


def test_the_chart_is_what_its_program_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, DEPLOY / "helm/make", tmp_path / "chart"], check=True)

    made = {
        file.relative_to(tmp_path / "chart"): file.read_text()
        for file in (tmp_path / "chart").rglob("*.yaml")
    }
    there = {file.relative_to(CHART): file.read_text() for file in CHART.rglob("*") if file.is_file()}
    assert there == made, "run deploy/helm/make"
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["version"] == proxy.__version__


def test_the_chart_has_the_resources_of_the_kustomization() -> None:
    (whole,) = documents(KUBERNETES / "kustomization.yaml")
    (image,) = whole["images"]
    files = chart.render(CHART)
    (settings_map,) = files.pop("settings.yaml")
    for document in files["nixfront.yaml"]:
        if document["kind"] == "StatefulSet":
            annotations = document["spec"]["template"]["metadata"]["annotations"]
            assert re.fullmatch(r"[0-9a-f]{64}", annotations.pop("checksum/settings"))
    rendered = json.dumps(files).replace(f"{image['newName']}:{image['newTag']}", "nixfront")

    assert json.loads(rendered) == {
        name: documents(KUBERNETES / name) for name in whole["resources"] if name != "namespace.yaml"
    }
    assert yaml.safe_load(settings_map["data"]["nixfront.yml"]) == yaml.safe_load(
        (KUBERNETES / "nixfront.yml").read_text()
    )


def test_the_chart_takes_what_one_cluster_alone_needs() -> None:
    rule = {"to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}], "ports": [{"port": 6379}]}
    files = chart.render(
        CHART,
        image={"pullSecret": "ours"},
        pod={"nodeSelector": {"disk": "fast"}, "tolerations": [{"key": "builds", "operator": "Exists"}]},
        storage={"claim": {"accessModes": ["ReadWriteOncePod"], "storageClassName": "fast"}},
        extra={
            "env": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.net"}],
            "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "volumeMounts": [{"name": "ca", "mountPath": "/ca"}],
        },
        networkPolicy={"outside": [rule]},
    )
    documents = [document for found in files.values() for document in found]
    for document in documents:
        check_resource(document)
    pods = [each["spec"]["template"]["spec"] for each in documents if "template" in each.get("spec", {})]
    claims = [each["spec"] for each in documents if each["kind"] == "PersistentVolumeClaim"]
    claims += [
        claim["spec"] for each in documents for claim in each.get("spec", {}).get("volumeClaimTemplates", ())
    ]
    (nixfront,) = (pod for pod in pods if pod["containers"][0]["name"] == "nixfront")
    (policy,) = (each for each in files["network-policy.yaml"] if each["metadata"]["name"] == "nixfront")

    assert [pod["nodeSelector"] for pod in pods] == [{"disk": "fast"}] * 3
    assert {pod["enableServiceLinks"] for pod in pods} == {False}, "values that a user leaves out stay"
    assert [claim["storageClassName"] for claim in claims] == ["fast"] * 4
    assert nixfront["imagePullSecrets"] == [{"name": "ours"}]
    assert nixfront["volumes"][-1]["name"] == nixfront["containers"][0]["volumeMounts"][-1]["name"] == "ca"
    assert "HTTPS_PROXY" in {each["name"] for each in nixfront["containers"][0]["env"]}
    assert policy["spec"]["egress"][-1] == rule


def test_the_chart_with_other_values() -> None:
    files = chart.render(
        CHART,
        "images",
        image={"repository": "example.net/n", "tag": "7"},
        registry={"enabled": False, "secret": "ours"},
        redis={"enabled": False},
        ingress={"host": "pull.example.net"},
        networkPolicy={"enabled": False},
        settings={"registry": {"url": "https://registry.example.net"}},
    )

    assert {name for name, found in files.items() if not found} == {
        "registry.yaml",
        "redis.yaml",
        "network-policy.yaml",
    }
    for document in (document for found in files.values() for document in found):
        check_resource(document)
    text = json.dumps(files)
    assert "example.net/n:7" in text
    assert "example.org" not in text
    assert '"secretName": "ours"' in text
    for word in re.findall(
        r"\.Values((?:\.[A-Za-z]+)+)", "".join(f.read_text() for f in CHART.rglob("templates/*"))
    ):
        section = word.split(".")[1]
        assert section in (CHART / "values.yaml").read_text()


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl of Debian 12 does not know the labels of this folder"
)
def test_kustomize_reads_the_folder() -> None:
    told = subprocess.run(["kubectl", "kustomize", KUBERNETES], check=True, capture_output=True, text=True)

    built = [document for document in yaml.safe_load_all(told.stdout) if document]
    assert len(built) == len(resources()) + 1
    assert {each["metadata"].get("namespace") for each in built if each["kind"] != "Namespace"} == {
        "nixfront"
    }
    assert "image: registry.example.org/nixfront:" in told.stdout
    for document in built:
        check_resource(document)


def test_time_limits_are_longer_than_what_they_limit() -> None:
    hold, grace = settings.Settings().builds.hold_seconds, settings.Settings().builds.grace_seconds
    annotations = kind("Ingress")["nixfront"]["metadata"]["annotations"]
    pod = workloads()["nixfront"]["spec"]["template"]["spec"]
    hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    unit = configparser.RawConfigParser(strict=False)
    unit.read(DEPLOY / "systemd/nixfront.service")
    nginx = (DEPLOY / "front/nginx.conf").read_text()
    caddy = (DEPLOY / "front/Caddyfile").read_text()

    assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > hold
    assert hook[0] == "sleep"
    assert pod["terminationGracePeriodSeconds"] > grace + int(hook[1])
    assert unit.getint("Service", "TimeoutStopSec") > grace
    for text, words in (
        (nginx, ("proxy_read_timeout",)),
        (caddy, ("read_timeout", "response_header_timeout")),
    ):
        for word in words:
            found = re.search(rf"\b{word} (\d+)s", text)
            assert found is not None, word
            assert int(found[1]) > hold


def test_one_number_of_the_version_everywhere() -> None:
    (whole,) = documents(KUBERNETES / "kustomization.yaml")
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert versions[:2] == ["Unreleased", proxy.__version__]
    assert [image["newTag"] for image in whole["images"]] == [proxy.__version__]


# --- Grafana ---------------------------------------------------------------------------------------------------


def counts() -> set[str]:
    """The names of all that /metrics has."""
    metrics = Metrics()
    metrics.answered("blob", "GET", 200, 0.1, 1, 1)
    metrics.see(BuildEnded("a", "b"))
    families = [*text_string_to_metric_families(metrics.text().decode())]
    suffixes = ("_bucket", "_total", "_count", "_sum")
    return {sample.name for family in families for sample in family.samples} | {
        f"{family.name}{suffix}" for family in families for suffix in suffixes
    }


def test_the_alerts_ask_for_counts_and_outcomes_that_there_are() -> None:
    (group,) = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    known = counts() | {"up"}

    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"]) > 4
    for rule in group["rules"]:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        expression = rule["expr"]
        names = re.findall(r"\b([a-z_]+)\{", expression)
        assert names, expression
        assert set(names) <= known, expression
        for left, right in ("()", "{}", "[]"):
            assert expression.count(left) == expression.count(right)
        assert expression.count('job=~"nixfront.*"') == len(names)
        for outcome in re.findall(r'outcome="(\w+)"', expression):
            assert hasattr(errors, outcome)
        for seconds in [*re.findall(r"\[(\w+)\]", expression), rule.get("for", "1m")]:
            assert re.fullmatch(r"\d+[mh]", seconds)


def test_the_pod_monitor_finds_the_counts() -> None:
    (monitor,) = documents(DEPLOY / "prometheus/podmonitor.yaml")
    pod = workloads()["nixfront"]["spec"]["template"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]

    assert monitor["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert endpoint["port"] in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}


def test_the_counts_that_the_page_names_are_there() -> None:
    page = (DEPLOY / "README.md").read_text()
    named = set(re.findall(r"`(nixfront_[a-z_]+)`", page))

    assert named
    assert named <= counts() | {name.rpartition("_")[0] for name in counts()}


def test_the_dashboard_asks_for_counts_that_there_are() -> None:
    dashboard = json.loads((DEPLOY / "grafana/nixfront.json").read_text())
    known = counts()
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
