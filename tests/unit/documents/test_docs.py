"""What the pages say of the program is so: links, settings, variables, commands, messages."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from proxy import cli, settings
from proxy.core import names
from tests.support import settings_page

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
PAGES = sorted(
    [
        README,
        *(
            page
            for folder in ("config", "deploy", "proxy", "tests")
            for page in (ROOT / folder).rglob("*.md")
        ),
    ]
)
#: How many promises name the test that holds them, at the least.
NAMED = 66
KEYS = {
    f"{section}.{key}"
    for section, field in settings.Settings.model_fields.items()
    for key in getattr(field.annotation, "model_fields", {})
}


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_settings_and_variables_are_known(page: Path) -> None:
    text = page.read_text()
    sections = "|".join(name for name in settings.Settings.model_fields if name not in ("sets",))

    for key in re.findall(rf"`(({'' or sections})\.[a-z_]+)[`:]", text):
        assert key[0] in KEYS or key[0].split(".")[1] in ("kind",), key[0]
    for variable in re.findall(r"\b(NIXFRONT_[A-Z_]+[A-Z])\b", text):
        if variable in ("NIXFRONT_SECTION_KEY", "NIXFRONT_BENCH_DIR") or variable.startswith("NIXFRONT_TEST"):
            continue
        section, _, key = variable.removeprefix("NIXFRONT_").lower().partition("_")
        assert f"{section}.{key}" in KEYS or any(known.startswith(f"{section}.{key}") for known in KEYS), (
            variable
        )


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_of_nixfront_are_understood(page: Path) -> None:
    """Each `$ nixfront ...` of a console block, and those in backticks too, is parsed by the program itself."""
    text = page.read_text()
    typed = re.findall(r"^\$ (?:[A-Z_]+=\S+ )*(nixfront .+?)(?: +#.*)?$", text, re.MULTILINE)
    inline = re.findall(r"`(nixfront [a-z-]+[^`]*)`", text)
    names = [line.split()[1] for line in inline if len(line.split()) == 2]  # a subcommand as such
    inline = [line for line in inline if len(line.split()) > 2 and not re.search(r"[A-Z]{3,}|\|", line)]
    parser = cli.parser()

    assert set(names) <= {"--version", *(command.name for command in cli.COMMANDS)}
    for line in (*typed, *inline):
        words = shlex.split(line.partition("|")[0], comments=True)[1:]
        _, unknown = parser.parse_known_args(words)
        assert unknown == [], line


def test_examples_of_settings_are_accepted(tmp_path: Path) -> None:
    for page in PAGES:
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)):
            file = tmp_path / f"{number}.yml"
            file.write_text(block)
            settings.load(file, {})
            assert yaml.safe_load(block)


def test_examples_of_json_are_whole() -> None:
    blocks = [
        block for page in PAGES for block in re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL)
    ]

    assert blocks
    for block in blocks:
        assert json.loads(block)


#: An image in a page, by one of the names that pages have for a nixfront. No name of a person's goes on with a capital or a `{`.
IMAGE = re.compile(
    r"(?:HOST|127\.0\.0\.1:8080|pull\.example\.net)/([a-z0-9][a-z0-9._/-]*[a-z0-9])(?::([\w.-]+))?(?![\w/{<])"
)
#: Beside those of the settings' defaults, what the pages have for examples.
WORDS = replace(settings.load(None, {}).vocabulary, package_sets=frozenset(("team", "apps")), has_images=True)
#: Pages of our own page for people, which are no images.
PLACES = ("compose", "builds", "images")


def test_images_of_the_pages_are_ones_that_nixfront_makes() -> None:
    shown = {match.groups("latest") for page in PAGES for match in IMAGE.finditer(page.read_text())}
    images = {(name, tag) for name, tag in shown if name not in PLACES}

    assert len(images) > 15
    for name, tag in images:
        assert names.parse(name, tag, WORDS) is not None, f"{name}:{tag}"


def test_messages_of_the_troubleshooting_page_are_the_programs() -> None:
    """A word of each quoted message stands in the source: a message that changed is found here."""
    files = (file for kind in ("py", "html") for file in sorted((ROOT / "proxy").rglob(f"*.{kind}")))
    source = "\n".join(file.read_text() for file in files)
    source = re.sub(r"\"\s*\n\s*f?\"", "", source)  # strings over several lines
    page = (ROOT / "deploy/troubleshooting.md").read_text().partition("## What clients print")[0]
    rows = re.findall(r"^\| (`.+?`) \|", page, re.MULTILINE)
    foreign = (
        "http: server gave",
        "504",
        "429",
        "pull access denied",
        "executing '/bin/sh'",
        "user namespaces",
        "NAME fits",
    )

    assert len(rows) > 12
    for row in rows:
        for message in re.findall(r"`([^`]+)`", row):
            words = max(
                re.split(r"\.\.\.|NAME|SECTION\.KEY|503|received unexpected HTTP status:", message), key=len
            )
            if not message.startswith(foreign):
                assert words.strip(" :;,") in source, message


def links(page: Path) -> set[Path]:
    """The pages that a page leads to."""
    targets = re.findall(r"\]\(([^)#]+\.md)[)#]", page.read_text())
    return {(page.parent / target).resolve() for target in targets if "://" not in target}


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, new = {README}, {README}
    while new:
        new = {target for page in new for target in links(page) if target in PAGES} - reached
        reached |= new

    assert reached == set(PAGES)


def test_the_page_of_settings_names_its_neighbours() -> None:
    text = settings_page.page()
    for page in PAGES:
        assert page.parent != ROOT / "config" or page.name in text or page.name == "README.md"


def test_the_readme_is_short() -> None:
    lines = README.read_text().splitlines()

    assert len(lines) <= 150
    assert max(map(len, lines)) <= 160


def test_the_readme_names_the_packages_of_the_demo_set() -> None:
    text = README.read_text()
    attributes = json.loads((ROOT / "nix/debian/packages.json").read_text())["attributes"]
    paragraph = text[text.index("packages of Debian 12") : text.index("What changes with nixpkgs")]

    named = set(re.findall(r"`([A-Za-z0-9_.-]+)`", paragraph)) - {"latest", "locale", "arm64"}
    assert named == set(attributes)


def test_the_tests_that_are_named_are_there() -> None:
    """Each promise of a page that names its test as `file::test`."""
    named = [pair for page in PAGES for pair in re.findall(r"`(test_\w+)::(test_\w+)`", page.read_text())]
    texts: dict[str, str] = {}
    for file in sorted((ROOT / "tests").glob("**/test_*.py")):
        texts[file.stem] = texts.get(file.stem, "") + file.read_text()

    assert len(named) >= NAMED
    for file, test in named:
        assert f"def {test}(" in texts[file], f"{file} has no {test}"


#: The commands of the pages that are not nixfront's: where each is run, or why it cannot be here.
ELSEWHERE = {
    "deploy/quickstart": "it serves until somebody stops it; its parts are in tests/support/setup.bash",
    "docker run --rm 127.0.0.1:8080/hello": "tests/e2e/test_clients.py",
    "docker run --rm 127.0.0.1:8080/shell/git git --version": "tests/e2e/test_clients.py",
    "docker pull 127.0.0.1:8080/helo": "tests/e2e/test_clients.py",
    "python3 -m venv venv && . venv/bin/activate && pip install .": "tests/support/setup.bash",
    "tests/bench/run --json FILE": "some ten minutes, on a machine that does nothing else",
}


def test_commands_of_others_are_run_somewhere_or_it_is_said_why_not() -> None:
    shown = {
        line
        for page in PAGES
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
        for line in re.findall(r"^\$ (.+?)(?: +#.*)?$", block, re.MULTILINE)
        if not re.match(r"(?:[A-Z_]+=\S+ )*nixfront ", line)
    }

    assert shown == set(ELSEWHERE)
    for where in ELSEWHERE.values():
        assert not where.startswith("tests/") or (ROOT / where).exists(), where


def test_each_promise_is_a_row_that_names_its_test() -> None:
    promises = (ROOT / "deploy/security.md").read_text().partition("## Promises")[2].partition("\n## ")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ") and "| test |" not in line]

    assert len(rows) >= 20
    for row in rows:
        assert row.count(" | ") == 1, row
        assert re.search(r" \| `test_\w+::test_\w+`(, `test_\w+::test_\w+`)* \|$", row), row
        for file, name in re.findall(r"`(test_\w+)::(test_\w+)`", row):
            texts = [path.read_text() for path in (ROOT / "tests").rglob(f"{file}.py")]
            assert any(re.search(rf"^(async )?def {name}\(", text, re.MULTILINE) for text in texts), name
