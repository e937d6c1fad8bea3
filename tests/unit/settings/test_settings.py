"""The configuration: the sample is the defaults, every message names its key, and what follows from the keys."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from proxy.core.errors import SettingsInvalid
from proxy.settings import Settings, load
from proxy.settings.packages import PresetSection
from proxy.wiring import files

SAMPLE = files.SAMPLES / "nixfront.yml"
KEYS = tuple(
    (section, key)
    for section, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    for key in field.annotation.model_fields
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.yml"


def default(section: str, key: str) -> Any:
    return getattr(getattr(Settings(), section), key)


# --- the sample and the keys ------------------------------------------------------------------------------


def test_the_sample_is_the_defaults() -> None:
    assert load(SAMPLE, {}) == Settings() == load(None, {})


def test_the_sample_mentions_every_key() -> None:
    sample = yaml.safe_load(SAMPLE.read_text())

    assert sample.pop("sets") == {}
    assert {(section, key) for section, values in sample.items() for key in values} == set(KEYS)


def test_every_section_has_keys() -> None:
    assert {section for section, _ in KEYS} | {"sets"} == Settings.model_fields.keys()


def test_every_key_and_section_refuses_what_it_does_not_take_and_names_it(file: Path) -> None:
    for section, key in KEYS:
        wrong = "1" if isinstance(default(section, key), dict) else "{a: 1}"
        file.write_text(f"{section}: {{{key}: {wrong}, unknown: 1}}\n")

        with pytest.raises(SettingsInvalid) as caught:
            load(file, {})

        problems = str(caught.value).split("; ")
        assert problems[0].startswith(f"{section}.{key}"), problems
        assert problems[-1] == f"{section}.unknown: no such setting"


# --- file, environment, overrides -------------------------------------------------------------------------


def test_what_the_file_says_is_taken_and_the_rest_stays(file: Path) -> None:
    file.write_text("packages:\n  kind: demo\n  always: [jq]\nlayers: {most: 50}\nnix: {build_deadline: 7}\n")

    settings = load(file, {})

    assert settings.packages.kind == "demo"
    assert settings.packages.always == ("jq",)
    assert settings.packages.time_to_live == 3600
    assert settings.layers.most == 50
    assert settings.nix.build_deadline == 7
    assert settings.http == Settings().http


@pytest.mark.parametrize(
    ("text", "where"),
    [
        pytest.param(
            "htpp: {addr: 'a:1'}", "htpp: no such section, did you mean http?", id="an unknown section"
        ),
        pytest.param(
            "http: 8080", "http: it must be a section of keys with values, and is a number", id="no section"
        ),
        pytest.param("http: {8080: x}", "http.8080: Keys should be strings", id="a key that is a number"),
        pytest.param(
            "layers: {most: '50'}", "layers.most: it must be a whole number, and is a text", id="strict"
        ),
        pytest.param(
            "layers: {most:}", "layers.most: it must be a whole number, and is empty", id="no value"
        ),
        pytest.param(
            "packages: {ref: 24.05}", "packages.ref: it must be a text, and is a number", id="a number"
        ),
        pytest.param("packages: {always: [1]}", "packages.always.0: it must be a text", id="in a list"),
        pytest.param(
            "layers: {most: 126}", "layers.most: it must be at most 125, and is 126", id="what engines bear"
        ),
        pytest.param(
            "builds: {hops: 10}", "builds.hops: it must be at most 9, and is 10", id="what docker follows"
        ),
        pytest.param(
            "sets: {mine: {always: [x]}}", "sets.mine.always: no such setting", id="a key of no set"
        ),
        pytest.param(
            "http: {adress: 'a:1'}", "http.adress: no such setting, did you mean addr?", id="a longer word"
        ),
        pytest.param(
            "nix: {keep_free_bytes: 1.5 GiB}",
            "nix.keep_free_bytes: it must be a whole number, and is a text with a unit; without one, in bytes, it is 1610612736",
            id="a size with a unit",
        ),
        pytest.param("trust: {key: here}", "trust.key: a file", id="a file without its path"),
        pytest.param("trust: {identity: hello}", "trust.identity: an identity", id="no host"),
        pytest.param(
            "names: {presets: {x: {usr: a}}}",
            "names.presets.x.usr: no such setting, did you mean user?",
            id="a preset's key",
        ),
    ],
)
def test_what_is_wrong_in_the_file_is_refused_with_its_path(file: Path, text: str, where: str) -> None:
    file.write_text(text + "\n")

    with pytest.raises(SettingsInvalid) as caught:
        load(file, {})

    assert str(caught.value).startswith(where)


def test_one_message_names_everything_that_is_wrong(file: Path) -> None:
    file.write_text("unknown: {}\nlayers: {most: 1, more: 2}\nhttp: {addr: here}\n")

    with pytest.raises(SettingsInvalid) as caught:
        load(file, {})

    keys = sorted(problem.split(":")[0] for problem in str(caught.value).split("; "))
    assert keys == ["http.addr", "layers.more", "layers.most", "unknown"]


@pytest.mark.parametrize(
    ("variable", "value", "where"),
    [
        ("NIXFRONT_LAYERS_MOST", "many", "layers.most: it must be a whole number"),
        ("NIXFRONT_LAYERS_MOST", "", "layers.most: it must be a whole number"),
        ("NIXFRONT_PACKAGES_ALWAYS", "git", "packages.always: it must be a list"),
        ("NIXFRONT_PACKAGES_KIND", "path", "packages: kind path needs an absolute path"),
    ],
)
def test_what_is_wrong_in_the_environment_is_refused_with_its_path(
    variable: str, value: str, where: str
) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load(None, {variable: value})

    assert str(caught.value).startswith(where)


def test_the_environment_goes_before_the_file_and_overrides_before_both(file: Path) -> None:
    file.write_text("packages: {kind: path, path: /x, ref: of-file}\nlog: {level: error}\n")
    environment = {"NIXFRONT_PACKAGES_REF": "of-environment", "NIXFRONT_PACKAGES_KIND": "nixpkgs"}

    settings = load(file, environment, packages={"kind": "demo"})

    assert settings.packages.kind == "demo"
    assert settings.packages.ref == "of-environment"
    assert settings.packages.path == "/x"
    assert settings.log.level == "error"


def test_variables_of_other_programs_are_not_read() -> None:
    assert load(None, {"OTHER_LOG_LEVEL": "x", "NIXFRONTLOG_LEVEL": "x"}) == Settings()


def test_an_override_fills_an_empty_section(file: Path) -> None:
    file.write_text("packages:\n")

    assert load(file, {}, packages={"kind": "demo"}).packages.kind == "demo"


@pytest.mark.parametrize("text", ["packages: demo\n", "packages: [a]\n"])
def test_what_is_no_section_is_refused_whatever_lies_over_it(file: Path, text: str) -> None:
    file.write_text(text)

    for environment, overrides in (
        ({}, {"packages": {"kind": "demo"}}),
        ({"NIXFRONT_PACKAGES_KIND": "demo"}, {}),
    ):
        with pytest.raises(SettingsInvalid, match=r"^packages: it must be a section"):
            load(file, environment, **overrides)


def test_settings_cannot_be_changed() -> None:
    settings = Settings()

    with pytest.raises(ValueError, match="frozen"):
        settings.http = settings.http  # type: ignore[misc]


# --- what follows from them -------------------------------------------------------------------------------


def test_the_data_folder_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert load(None, {"NIXFRONT_DATA_DIR": "/data"}).data_dir == Path("/data")
    assert load(None, {"NIXFRONT_DATA_DIR": "~/data"}).data_dir == tmp_path / "data"
    assert load(None, {"NIXFRONT_DATA_DIR": "data"}).data_dir == tmp_path / "data"


@pytest.mark.parametrize(("state", "expected"), [("/state", "/state"), ("", "/home/x/.local/state")])
def test_the_data_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, state: str, expected: str) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.setenv("XDG_STATE_HOME", state)

    folder = Settings().data_dir

    assert folder == (Path("/var/lib") if os.geteuid() == 0 else Path(expected)) / "nixfront"


@pytest.mark.parametrize(("store", "expected"), [("", ""), ("/x", "/x"), ("~/x", "/home/x/x")])
def test_the_store_is_absolute_or_the_systems(
    monkeypatch: pytest.MonkeyPatch, store: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/x")

    assert load(None, {"NIXFRONT_NIX_STORE": store}).nix_store == expected


def test_the_system_is_this_hosts_unless_said() -> None:
    assert Settings().system == f"{os.uname().machine}-linux"
    assert load(None, {"NIXFRONT_PACKAGES_SYSTEM": "riscv64-linux"}).system == "riscv64-linux"


def test_nixpkgs_is_its_channel_at_its_commit() -> None:
    chosen = Settings().package_sources[""]

    assert chosen.pointer.replace("{ref}", chosen.ref).endswith("/nixpkgs-unstable/git-revision")
    assert chosen.url.endswith("/{revision}.tar.gz")
    assert chosen.listing == chosen.pointer.replace("git-revision", "packages.json.br")


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/{ref}/list",
        "https://{ref}.example.org/list",
        "file:///list",
        "list",
        "ftp://127.0.0.1/x",
    ],
)
def test_a_list_has_an_https_address_that_no_client_chooses(file: Path, address: str) -> None:
    file.write_text(f"packages: {{listing: '{address}'}}\n")

    with pytest.raises(SettingsInvalid, match=r"packages\.listing: .*https address"):
        load(file, {})


@pytest.mark.parametrize(
    ("text", "url", "pointer", "ref"),
    [
        pytest.param(
            "kind: nixpkgs, url: 'http://x/{ref}'", "http://x/{ref}", "", "nixpkgs-unstable", id="mirror"
        ),
        pytest.param("kind: tarball, url: 'http://x/t.tar'", "http://x/t.tar", "", "", id="tarball"),
        pytest.param("kind: demo", "", "", "", id="demo"),
    ],
)
def test_only_nixpkgs_has_addresses_of_its_own(
    file: Path, text: str, url: str, pointer: str, ref: str
) -> None:
    file.write_text(f"sets: {{mine: {{{text}}}}}\n")

    chosen = load(file, {}).package_sources["mine"]

    assert (chosen.url, chosen.pointer, chosen.ref) == (url, pointer, ref)


def test_as_many_work_at_once_as_there_are_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    for processors, packers, uploads in ((1, 1, 4), (2, 2, 4), (16, 16, 32)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, many=processors: set(range(many)))
        settings = Settings()
        assert (settings.packers, settings.uploads) == (packers, uploads)

    chosen = load(None, {"NIXFRONT_LAYERS_PACKERS": "3", "NIXFRONT_LAYERS_UPLOADS": "5"})
    assert (chosen.packers, chosen.uploads) == (3, 5)


def test_presets_of_the_operator_are_laid_over_ours(file: Path) -> None:
    file.write_text(
        "names: {presets: {shell: {packages: [zsh], command: [/bin/zsh]}, mine: {user: '5:6'}}}\n"
    )

    presets = load(file, {}).presets

    assert presets["shell"] == PresetSection(packages=("zsh",), command=("/bin/zsh",))
    assert presets["mine"].user == "5:6"
    assert presets.keys() - {"mine"} == Settings().presets.keys()


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("", "127.0.0.1:8080"),
        ("http: {addr: '0.0.0.0:80', names: [images.example.org, other.example.org]}", "images.example.org"),
        ("http: {names: [images.example.org]}\ntrust: {identity: 'registry:5000/nix'}", "registry:5000/nix"),
        ("http: {addr: '0.0.0.0:80'}", ""),
    ],
)
def test_signatures_hold_the_name_by_which_clients_call_this_host(
    file: Path, text: str, identity: str
) -> None:
    file.write_text(text + "\n")

    assert load(file, {}).identity == identity
    if not identity:
        with pytest.raises(SettingsInvalid, match=r"trust\.identity: say by which name"):
            load(file, {"NIXFRONT_TRUST_KEY": "/etc/key.pem"})
