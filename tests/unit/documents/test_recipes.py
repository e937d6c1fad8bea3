"""The recipes are whole, and their images have names that nixfront builds: of meta-packages and of the demo set."""

import io
import json
import re
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from proxy import settings
from proxy.core import names
from proxy.core.model import ImageRequest

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "deploy/recipes"
IMAGE = re.compile(r"pull\.example\.net/([a-z0-9./_-]+[a-z0-9])(?::([\w.-]+))?")
DEMO = json.loads((ROOT / "nix/debian/packages.json").read_text())["attributes"]
FILES = sorted(path for path in RECIPES.iterdir() if path.name != "README.md")


def image(text: str) -> ImageRequest:
    match = IMAGE.fullmatch(text)
    assert match, text
    request = names.parse(match[1], match[2] or "latest", settings.load(None, {}).vocabulary)
    assert request is not None, text
    return request


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_image_is_one_of_the_demo_set(file: Path) -> None:
    spelled = {names.spelled(attribute) for attribute in DEMO}
    images = [match[0] for match in IMAGE.finditer(file.read_text())]

    assert images or file.name == "renovate.json"
    for name in images:
        packages = [each.removesuffix(".out") for each in image(name).attributes]
        assert {names.spelled(each) for each in packages} <= spelled, name


def test_each_recipe_is_in_the_list() -> None:
    listed = set(re.findall(r"\]\(([^)/]+)\)", (RECIPES / "README.md").read_text()))

    assert listed == {file.name for file in FILES}


def test_jobs_of_ci_have_what_runners_need() -> None:
    gitlab = yaml.safe_load((RECIPES / "gitlab-ci.yml").read_text())
    github = yaml.safe_load((RECIPES / "github-actions.yml").read_text())
    editor = json.loads((RECIPES / "devcontainer.json").read_text())
    jobs = [gitlab["test"]["image"], github["jobs"]["test"]["container"]["image"], editor["image"]]

    for job in jobs:
        assert {"bash", "coreutils", "gnutar", "glibc.out"} <= set(image(job).attributes), job
    called = {line.split()[0] for line in gitlab["test"]["script"]}
    assert called <= set(image(gitlab["test"]["image"]).attributes)


def test_a_program_is_copied_with_its_closure_and_nothing_over_the_root() -> None:
    steps = DockerfileParser(fileobj=io.BytesIO((RECIPES / "Containerfile").read_bytes())).structure
    copies = [step["value"].split() for step in steps if step["instruction"] == "COPY"]

    assert [words[1:] for words in copies] == [["/nix/store", "/nix/store"], ["/bin/jq", "/usr/local/bin/jq"]]
    assert len({words[0] for words in copies}) == 1
