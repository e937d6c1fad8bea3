"""The configuration: the sample is the defaults, and whatever is wrong is refused with the path of its key."""

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from proxy.core.errors import SettingsInvalid
from proxy.settings import Settings, load
from proxy.settings.sections import PresetSection
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


# --- the sample -------------------------------------------------------------------------------------------


def test_the_sample_is_the_defaults() -> None:
    assert load(SAMPLE, {}) == Settings() == load(None, {})


def test_the_sample_mentions_every_key() -> None:
    sample = yaml.safe_load(SAMPLE.read_text())

    assert sample.pop("sets") == {}
    assert {(section, key) for section, values in sample.items() for key in values} == set(KEYS)


def test_every_section_has_keys() -> None:
    assert {section for section, _ in KEYS} | {"sets"} == Settings.model_fields.keys()


# --- the file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("# nothing but this\n", id="a comment"),
        pytest.param("http:\n", id="an empty section"),
        pytest.param("http: {}\n", id="a section of nothing"),
    ],
)
def test_a_file_that_says_nothing_means_the_defaults(file: Path, text: str) -> None:
    file.write_text(text)

    assert load(file, {}) == Settings()


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
        pytest.param("htpp: {addr: 'a:1'}", "htpp: Extra inputs", id="an unknown section"),
        pytest.param("http: {address: 'a:1'}", "http.address: Extra inputs", id="an unknown key"),
        pytest.param(
            "http: 8080", "http: Input should be a valid dictionary", id="a section that is a number"
        ),
        pytest.param(
            "http: [addr]", "http: Input should be a valid dictionary", id="a section that is a list"
        ),
        pytest.param("8080: x", "8080: Keys should be strings", id="a section without a name"),
        pytest.param("http: {8080: x}", "http.8080: Keys should be strings", id="a key without a name"),
        pytest.param("layers: {most: '50'}", "layers.most: Input should be a valid integer", id="text"),
        pytest.param("layers: {most: true}", "layers.most: Input should be a valid integer", id="a truth"),
        pytest.param("layers: {most: 1.5}", "layers.most: Input should be a valid integer", id="a fraction"),
        pytest.param("layers: {most:}", "layers.most: Input should be a valid integer", id="nothing"),
        pytest.param("packages: {ref: 24.05}", "packages.ref: Input should be a valid string", id="a number"),
        pytest.param(
            "packages: {always: git}", "packages.always: Input should be a valid tuple", id="one word"
        ),
        pytest.param(
            "packages: {always: [1]}", "packages.always.0: Input should be", id="a number in a list"
        ),
        pytest.param("packages: {kind: channel}", "packages.kind: Input should be 'nixpkgs'", id="a kind"),
        pytest.param(
            "image: {format: OCI}", "image.format: Input should be 'docker' or 'oci'", id="a format"
        ),
        pytest.param("layers: {compression: lz4}", "layers.compression: Input should be", id="a compression"),
        pytest.param("log: {level: loud}", "log.level: Input should be", id="a level"),
        pytest.param("layers: {most: 1}", "layers.most: Input should be greater", id="too few layers"),
        pytest.param("layers: {most: 126}", "layers.most: Input should be less", id="too many layers"),
        pytest.param("layers: {uploads: -1}", "layers.uploads: Input should be greater", id="no uploads"),
        pytest.param("nix: {build_deadline: 0}", "nix.build_deadline: Input should be greater", id="no time"),
        pytest.param("nix: {build_deadline: .nan}", "nix.build_deadline: Input should be", id="no number"),
        pytest.param("answers: {seconds: -1}", "answers.seconds: Input", id="a negative memory"),
        pytest.param("builds: {failure_seconds: -1}", "builds.failure_seconds: Input", id="a negative time"),
        pytest.param("mirror: {addr: x}", "mirror.addr: Value error, an address is", id="no address"),
        pytest.param("mirror: {prefix: nix}", "mirror.prefix: Value error, a prefix is", id="no slash"),
        pytest.param("builds: {hops: 10}", "builds.hops: Input should be less", id="too many hops"),
        pytest.param("packages: {kind: git}", "packages: Value error, kind git needs a url", id="git"),
        pytest.param(
            "packages: {kind: tarball}", "packages: Value error, kind tarball needs a", id="tarball"
        ),
        pytest.param("packages: {kind: path}", "packages: Value error, kind path needs an abs", id="path"),
        pytest.param(
            "packages: {kind: path, path: set}",
            "packages: Value error, kind path needs an abs",
            id="relative",
        ),
        pytest.param("packages: {kind: flake}", "packages: Value error, kind flake needs a url", id="flake"),
        pytest.param("sets: {mine: {kind: git}}", "sets.mine: Value error, kind git needs a url", id="a set"),
        pytest.param("sets: {mine: {always: [x]}}", "sets.mine.always: Extra inputs", id="a key of no set"),
        pytest.param("names: {presets: {x: {usr: a}}}", "names.presets.x.usr: Extra", id="a preset's key"),
        pytest.param(
            "names: {presets: {x: {user: me}}}",
            "names.presets.x.user: Value error, a user",
            id="a user's name",
        ),
        pytest.param("policy: {most_bytes: -1}", "policy.most_bytes: Input should be greater", id="a size"),
        pytest.param("packages: {date: yesterday}", "packages.date: Value error, time data", id="a date"),
        pytest.param(
            "packages: {date: '2026-01-31'}", "packages.date: Value error", id="a date without a time"
        ),
        pytest.param(
            "packages: {date: '2026-01-31T00:00:00'}",
            "packages.date: Value error",
            id="a time without a zone",
        ),
    ],
)
def test_what_is_wrong_in_the_file_is_refused_with_its_path(file: Path, text: str, where: str) -> None:
    file.write_text(text + "\n")

    with pytest.raises(SettingsInvalid) as caught:
        load(file, {})

    assert str(caught.value).startswith(where)


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_key_refuses_a_value_of_the_wrong_type(file: Path, section: str, key: str) -> None:
    wrong = "1" if isinstance(default(section, key), dict) else "{a: 1}"
    file.write_text(f"{section}: {{{key}: {wrong}}}\n")

    with pytest.raises(SettingsInvalid) as caught:
        load(file, {})

    assert str(caught.value).startswith(f"{section}.{key}: ")


@pytest.mark.parametrize("section", [name for name in Settings.model_fields if name != "sets"])
def test_every_section_refuses_an_unknown_key(file: Path, section: str) -> None:
    file.write_text(f"{section}: {{unknown: 1}}\n")

    with pytest.raises(SettingsInvalid, match=rf"^{section}\.unknown: Extra inputs are not permitted$"):
        load(file, {})


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("layers", "most", 2),
        ("layers", "most", 125),
        ("layers", "packers", 0),
        ("layers", "uploads", 1),
        ("nix", "evaluation_deadline", 0.01),
        ("nix", "build_deadline", 0.01),
        ("answers", "seconds", 0),
        ("answers", "most_bytes", 0),
        ("builds", "failure_seconds", 0),
    ],
)
def test_the_outermost_values_are_fine(file: Path, section: str, key: str, value: float) -> None:
    file.write_text(f"{section}: {{{key}: {value}}}\n")

    assert getattr(getattr(load(file, {}), section), key) == value


def test_everything_that_is_wrong_is_told_at_once(file: Path) -> None:
    file.write_text("unknown: {}\nlayers: {most: 1, more: 2}\nhttp: {addr: here}\n")

    with pytest.raises(SettingsInvalid) as caught:
        load(file, {})

    told = sorted(problem.split(":")[0] for problem in str(caught.value).split("; "))
    assert told == ["http.addr", "layers.more", "layers.most", "unknown"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"http: {", id="no YAML"),
        pytest.param(b"a: 1\n---\nb: 1\n", id="two documents"),
        pytest.param(b"\xff\xfe\x00", id="no text"),
        pytest.param(b"!!python/object/apply:os.getpid []", id="no plain YAML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(file: Path, content: bytes) -> None:
    file.write_bytes(content)

    with pytest.raises(SettingsInvalid, match=f"^cannot read {file}: "):
        load(file, {})


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(SettingsInvalid, match=f"^cannot read {file}: .*No such file"):
        load(file, {})


@pytest.mark.parametrize(("text", "kind"), [("[]", "list"), ("text", "str"), ("5", "int")])
def test_settings_are_sections(file: Path, text: str, kind: str) -> None:
    file.write_text(text)

    with pytest.raises(SettingsInvalid, match=f"{file}: the settings are sections with keys, not a {kind}"):
        load(file, {})


@pytest.mark.parametrize(
    ("value", "fine"),
    [
        ("127.0.0.1:8080", True),
        ("0.0.0.0:0", True),
        ("[::1]:65535", True),
        ("localhost:80", True),
        (":8080", False),
        ("127.0.0.1", False),
        ("127.0.0.1:", False),
        ("127.0.0.1:65536", False),
        ("127.0.0.1:-1", False),
        ("127.0.0.1:http", False),
        ("", False),
    ],
)
def test_an_address_is_host_and_port(value: str, fine: bool) -> None:
    if fine:
        assert load(None, {"NIXFRONT_HTTP_ADDR": value}).http.addr == value
    else:
        with pytest.raises(SettingsInvalid, match=r"^http\.addr: .*HOST:PORT"):
            load(None, {"NIXFRONT_HTTP_ADDR": value})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ""),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://registry.example/", "https://registry.example"),
    ],
)
def test_a_registry_is_an_origin(value: str, expected: str) -> None:
    assert load(None, {"NIXFRONT_REGISTRY_URL": value}).registry.url == expected


@pytest.mark.parametrize(
    "value",
    [
        "registry.example:5000",
        "ftp://x",
        "http://",
        "http://x/v2",
        "http://[",
        "/",
        "http://x:99999",
        "http://x?y=1",
        "http://x#y",
        "http://me:secret@x",
        "http://me@x:5000",
        "http://x?",
    ],
)
def test_what_is_no_origin_is_refused(value: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"^registry\.url: "):
        load(None, {"NIXFRONT_REGISTRY_URL": value})


@pytest.mark.parametrize(
    ("recipe", "fine"),
    [("", True), ("big", True), ("/srv/recipe.json", True), ("recipe.json", False), ("bigger", False)],
)
def test_a_recipe_is_big_or_an_absolute_path(recipe: str, fine: bool) -> None:
    if fine:
        assert load(None, {"NIXFRONT_PACKAGES_RECIPE": recipe}).packages.recipe == recipe
    else:
        with pytest.raises(SettingsInvalid, match=r"^packages: .*a recipe is big"):
            load(None, {"NIXFRONT_PACKAGES_RECIPE": recipe})


@pytest.mark.parametrize(
    ("networks", "fine"),
    [
        ("[]", True),
        ("['*']", True),
        ("[10.0.0.0/8, 'fd00::/8', 192.0.2.7]", True),
        ("[10.0.0.0/33]", False),
        ("[office]", False),
    ],
)
def test_networks_are_networks(networks: str, fine: bool) -> None:
    if fine:
        load(None, {"NIXFRONT_STATUS_NETWORKS": networks})
    else:
        with pytest.raises(SettingsInvalid, match=r"^status\.networks\.0: .*(office|10\.0\.0\.0/33)"):
            load(None, {"NIXFRONT_STATUS_NETWORKS": networks})


@pytest.mark.parametrize("network", ["10.0.0.0/33", "front", "", "*"])
def test_a_trusted_proxy_is_an_address_or_a_network(file: Path, network: str) -> None:
    file.write_text(f"http: {{trusted_proxies: [10.0.0.1, '{network}']}}")

    with pytest.raises(SettingsInvalid, match=r"^http\.trusted_proxies\.1: .*(network|named by)"):
        load(file, {})


# Keys that mean nothing alone.
_URL = {"NIXFRONT_REGISTRY_URL": "https://registry.example"}
GO_TOGETHER = {
    "NIXFRONT_HTTP_CERTIFICATE": {"NIXFRONT_HTTP_KEY": "/y"},
    "NIXFRONT_HTTP_KEY": {"NIXFRONT_HTTP_CERTIFICATE": "/y"},
    "NIXFRONT_REGISTRY_USERNAME": {**_URL, "NIXFRONT_REGISTRY_PASSWORD": "y"},
    "NIXFRONT_REGISTRY_PASSWORD": {**_URL, "NIXFRONT_REGISTRY_USERNAME": "y"},
    "NIXFRONT_REGISTRY_PASSWORD_FILE": {**_URL, "NIXFRONT_REGISTRY_USERNAME": "y"},
    "NIXFRONT_REGISTRY_CA": _URL,
    "NIXFRONT_REGISTRY_CLIENT_CERTIFICATE": {**_URL, "NIXFRONT_REGISTRY_CLIENT_KEY": "/y"},
    "NIXFRONT_REGISTRY_CLIENT_KEY": {**_URL, "NIXFRONT_REGISTRY_CLIENT_CERTIFICATE": "/y"},
}


@pytest.mark.parametrize("variable", GO_TOGETHER)
def test_what_goes_together_is_refused_alone(variable: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"^(http|registry): "):
        load(None, {variable: "/x"})


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        pytest.param("password: p, password_file: /x", "exclude each other", id="two passwords"),
        pytest.param("password: ''", "go together", id="no password"),
        pytest.param("username: 'a:b', password: p", "has no colon", id="a colon"),
        pytest.param("password: p, url: 'http://r:1', ca: /x", "https url", id="a CA without TLS"),
        pytest.param("password_file: x", "absolute path", id="a relative file"),
    ],
)
def test_credentials_that_cannot_be(file: Path, keys: str, why: str) -> None:
    defaults = {"url": "https://r", "username": "u"}
    rest = "".join(f", {key}: '{value}'" for key, value in defaults.items() if f"{key}:" not in keys)
    file.write_text(f"registry: {{{keys}{rest}}}")

    with pytest.raises(SettingsInvalid, match=rf"^registry.*{why}"):
        load(file, {})


def test_the_password_is_in_no_message_and_no_repr(file: Path) -> None:
    file.write_text("registry: {url: 'https://r', username: u, password: tell-nobody}")
    settings = load(file, {})
    file.write_text("registry: {url: 'https://r', usernam: u, password: tell-nobody, ca: [1]}")

    with pytest.raises(SettingsInvalid) as refused:
        load(file, {})

    assert settings.registry.secret() == "tell-nobody"
    assert not any("tell-nobody" in text for text in (repr(settings), str(settings), str(refused.value)))


def test_a_password_file_is_read_without_its_line_end(file: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("two words \n")
    file.write_text(f"registry: {{url: 'https://r', username: u, password_file: {secret}}}")
    settings = load(file, {})

    assert settings.registry.secret() == "two words "
    secret.unlink()
    with pytest.raises(SettingsInvalid, match=r"^registry\.password_file: .*No such file"):
        settings.registry.secret()


@pytest.mark.parametrize(("form", "fine"), [("oci", True), ("docker", False)])
def test_zstd_needs_a_type_that_says_so(form: str, fine: bool) -> None:
    environment = {"NIXFRONT_LAYERS_COMPRESSION": "zstd", "NIXFRONT_IMAGE_FORMAT": form}
    if fine:
        assert load(None, environment).layers.compression == "zstd"
    else:
        with pytest.raises(SettingsInvalid, match=r"layers\.compression zstd needs image\.format oci"):
            load(None, environment)


# --- the environment --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("NIXFRONT_HTTP_ADDR", "0.0.0.0:1", "0.0.0.0:1"),
        ("NIXFRONT_REGISTRY_USERNAME", "nixfront", "nixfront"),
        ("NIXFRONT_REGISTRY_PASSWORD", "12345", SecretStr("12345")),
        ("NIXFRONT_REGISTRY_PASSWORD_FILE", "/x", "/x"),
        ("NIXFRONT_REGISTRY_CA", "/x", "/x"),
        ("NIXFRONT_REGISTRY_CLIENT_CERTIFICATE", "/x", "/x"),
        ("NIXFRONT_REGISTRY_CLIENT_KEY", "/x", "/x"),
        ("NIXFRONT_HTTP_CERTIFICATE", "/x", "/x"),
        ("NIXFRONT_HTTP_KEY", "/x", "/x"),
        ("NIXFRONT_ACCESS_REPOSITORIES", "[nix/*]", ("nix/*",)),
        ("NIXFRONT_ACCESS_USERS", "['*']", ("*",)),
        ("NIXFRONT_ACCESS_NETWORKS", "[10.0.0.0/8]", (ip_network("10.0.0.0/8"),)),
        ("NIXFRONT_ACCESS_BUILDS_PER_MINUTE", "6", 6),
        (
            "NIXFRONT_HTTP_TRUSTED_PROXIES",
            "[10.0.0.0/8, '::1']",
            (ip_network("10.0.0.0/8"), ip_network("::1")),
        ),
        ("NIXFRONT_DATA_DIR", "/x", "/x"),
        ("NIXFRONT_REGISTRY_URL", "http://x:1", "http://x:1"),
        ("NIXFRONT_REGISTRY_STORAGE", "/srv/registry", "/srv/registry"),
        ("NIXFRONT_REGISTRY_PUBLIC_URL", "https://x", "https://x"),
        ("NIXFRONT_PACKAGES_KIND", "demo", "demo"),
        ("NIXFRONT_PACKAGES_URL", "file:///x", "file:///x"),
        ("NIXFRONT_PACKAGES_REF", "24.05", "24.05"),
        ("NIXFRONT_PACKAGES_REVISION", "0123456789", "0123456789"),
        ("NIXFRONT_PACKAGES_PATH", "/x", "/x"),
        ("NIXFRONT_PACKAGES_DATE", "2026-01-31T00:00:00Z", "2026-01-31T00:00:00Z"),
        ("NIXFRONT_PACKAGES_ARCHIVE", "http://x/debian", "http://x/debian"),
        ("NIXFRONT_PACKAGES_RECIPE", "big", "big"),
        ("NIXFRONT_PACKAGES_SYSTEM", "aarch64-linux", "aarch64-linux"),
        ("NIXFRONT_PACKAGES_ALWAYS", "[a, b]", ("a", "b")),
        ("NIXFRONT_PACKAGES_POINTER", "http://x/{ref}", "http://x/{ref}"),
        ("NIXFRONT_PACKAGES_ATTRIBUTE", "legacyPackages", "legacyPackages"),
        ("NIXFRONT_PACKAGES_IMPORT_FROM_DERIVATION", "true", True),
        ("NIXFRONT_PACKAGES_TIME_TO_LIVE", "60", 60),
        ("NIXFRONT_STATE_URL", "redis://127.0.0.1/1", "redis://127.0.0.1/1"),
        ("NIXFRONT_HTTP_HEAD_BYTES", "4096", 4096),
        ("NIXFRONT_HTTP_HEAD_SECONDS", "5", 5),
        ("NIXFRONT_HTTP_CONNECTIONS", "5", 5),
        ("NIXFRONT_NIX_EVALUATION_MEMORY", "0", 0),
        ("NIXFRONT_NIX_EVALUATIONS", "3", 3),
        ("NIXFRONT_NIX_SUBSTITUTERS", "[file:///c]", ("file:///c",)),
        ("NIXFRONT_NIX_PUBLIC_KEYS", "['a:b']", ("a:b",)),
        ("NIXFRONT_NIX_BUILDERS", "ssh-ng://b", "ssh-ng://b"),
        ("NIXFRONT_NIX_COPY_TO", "file:///c", "file:///c"),
        ("NIXFRONT_NIX_LOG_BYTES", "1000", 1000),
        ("NIXFRONT_STATE_LEASE_SECONDS", "5", 5),
        ("NIXFRONT_PACKAGES_REFRESH", "wait", "wait"),
        ("NIXFRONT_BUILDS_AT_ONCE", "3", 3),
        ("NIXFRONT_BUILDS_SHARE", "3", 3),
        ("NIXFRONT_BUILDS_QUEUE", "0", 0),
        ("NIXFRONT_BUILDS_GRACE_SECONDS", "0", 0),
        ("NIXFRONT_NAMES_ALIASES", "{gtk-plus: gtk+}", {"gtk-plus": "gtk+"}),
        ("NIXFRONT_NAMES_PRESETS", "{x: {packages: [a]}}", {"x": PresetSection(packages=("a",))}),
        ("NIXFRONT_IMAGES_FILE", "/etc/images.nix", "/etc/images.nix"),
        ("NIXFRONT_IMAGES_PREFIX", "ours", "ours"),
        ("NIXFRONT_POLICY_ALLOW_UNFREE", "[x]", ("x",)),
        ("NIXFRONT_POLICY_ALLOW_INSECURE", "[x-1]", ("x-1",)),
        ("NIXFRONT_POLICY_ALLOW_BROKEN", "['*']", ("*",)),
        ("NIXFRONT_POLICY_DENY_PACKAGES", "[x]", ("x",)),
        ("NIXFRONT_POLICY_DENY_LICENSES", "[x]", ("x",)),
        ("NIXFRONT_POLICY_ONLY_PACKAGES", "[x]", ("x",)),
        ("NIXFRONT_POLICY_ONLY_LICENSES", "[MIT]", ("MIT",)),
        ("NIXFRONT_POLICY_MOST_BYTES", "1000", 1000),
        ("NIXFRONT_POLICY_MOST_LAYER_BYTES", "1000", 1000),
        ("NIXFRONT_POLICY_MOST_PACKAGES", "3", 3),
        ("NIXFRONT_NIX_STORE", "/x", "/x"),
        ("NIXFRONT_NIX_EVALUATION_DEADLINE", "1.5", 1.5),
        ("NIXFRONT_NIX_BUILD_DEADLINE", "60", 60),
        ("NIXFRONT_LAYERS_COMPRESSION", "none", "none"),
        ("NIXFRONT_LAYERS_MOST", "5", 5),
        ("NIXFRONT_LAYERS_TABLE", "/x", "/x"),
        ("NIXFRONT_LAYERS_PACKERS", "9", 9),
        ("NIXFRONT_LAYERS_UPLOADS", "9", 9),
        ("NIXFRONT_IMAGE_FORMAT", "oci", "oci"),
        ("NIXFRONT_BUILDS_PATIENCE", "1", 1),
        ("NIXFRONT_BUILDS_HOP_SECONDS", "2.5", 2.5),
        ("NIXFRONT_BUILDS_HOPS", "0", 0),
        ("NIXFRONT_BUILDS_RESTART_AGENTS", "[]", ()),
        ("NIXFRONT_BUILDS_RESTART_SECONDS", "9", 9),
        ("NIXFRONT_BUILDS_HOLD_SECONDS", "60", 60),
        ("NIXFRONT_ANSWERS_SECONDS", "0", 0),
        ("NIXFRONT_ANSWERS_MOST_BYTES", "1000", 1000),
        ("NIXFRONT_BUILDS_FAILURE_SECONDS", "0", 0),
        ("NIXFRONT_MIRROR_ADDR", "127.0.0.1:9", "127.0.0.1:9"),
        ("NIXFRONT_MIRROR_NAMESPACES", "[]", ()),
        ("NIXFRONT_MIRROR_ALLOW", "[a*]", ("a*",)),
        ("NIXFRONT_MIRROR_PREFIX", "nix/", "nix/"),
        ("NIXFRONT_STATUS_ADDR", "127.0.0.1:9", "127.0.0.1:9"),
        ("NIXFRONT_STATUS_METRICS", "false", False),
        ("NIXFRONT_STATUS_NETWORKS", "['*']", ("*",)),
        ("NIXFRONT_PAGE_ENABLED", "false", False),
        ("NIXFRONT_PAGE_NETWORKS", "['*']", ("*",)),
        ("NIXFRONT_PAGE_LOG_NETWORKS", "[10.0.0.0/8]", (ip_network("10.0.0.0/8"),)),
        ("NIXFRONT_TRACES_ENDPOINT", "http://x:4318/v1/traces", "http://x:4318/v1/traces"),
        ("NIXFRONT_TRACES_SAMPLE", "0.5", 0.5),
        ("NIXFRONT_LOG_LEVEL", "debug", "debug"),
        ("NIXFRONT_LOG_FORMAT", "json", "json"),
        ("NIXFRONT_LOG_REQUESTS", "false", False),
    ],
)
def test_every_key_can_be_set_in_the_environment(variable: str, value: str, expected: object) -> None:
    section, _, key = variable.lower().removeprefix("nixfront_").partition("_")

    others = GO_TOGETHER.get(variable, {})

    settings = load(None, {variable: value, "OTHER_LOG_LEVEL": "x", "NIXFRONTLOG_LEVEL": "x", **others})

    assert getattr(getattr(settings, section), key) == expected != default(section, key)


def test_no_key_is_left_out_above() -> None:
    (mark,) = test_every_key_can_be_set_in_the_environment.pytestmark  # type: ignore[attr-defined]

    tried = {case[0].lower().removeprefix("nixfront_").partition("_")[::2] for case in mark.args[1]}

    assert tried == set(KEYS)


@pytest.mark.parametrize(
    ("variable", "shown"),
    [
        ("NIXFRONT_LOG_LEVELS", "log.levels"),
        ("NIXFRONT_LOGS_LEVEL", "logs.level"),
        ("NIXFRONT_LOG", "log.?"),
        ("NIXFRONT_", ".?"),
        ("NIXFRONT_LOG_", "log.?"),
        ("NIXFRONT_SYSTEM", "system.?"),
        ("NIXFRONT_DATA_DIR_X", "data.dir_x"),
    ],
)
def test_an_unknown_variable_is_refused_with_its_name(variable: str, shown: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load(None, {variable: "x"})

    assert str(caught.value) == f"{variable} names no setting ({shown})"


@pytest.mark.parametrize(
    ("variable", "value", "where"),
    [
        ("NIXFRONT_LAYERS_MOST", "many", "layers.most: Input should be a valid integer"),
        ("NIXFRONT_LAYERS_MOST", "", "layers.most: Input should be a valid integer"),
        ("NIXFRONT_PACKAGES_ALWAYS", "git", "packages.always: Input should be a valid tuple"),
        ("NIXFRONT_PACKAGES_KIND", "channel", "packages.kind: Input should be"),
        ("NIXFRONT_NIX_BUILD_DEADLINE", "1h", "nix.build_deadline: Input should be a valid number"),
        ("NIXFRONT_PACKAGES_KIND", "path", "packages: Value error, kind path needs an absolute path"),
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


def test_an_override_fills_an_empty_section(file: Path) -> None:
    file.write_text("packages:\n")

    assert load(file, {}, packages={"kind": "demo"}).packages.kind == "demo"


@pytest.mark.parametrize("text", ["packages: demo\n", "packages: [a]\n", "packages: 5\n"])
def test_what_is_no_section_is_refused_whatever_lies_over_it(file: Path, text: str) -> None:
    file.write_text(text)

    for environment, overrides in (
        ({}, {"packages": {"kind": "demo"}}),
        ({"NIXFRONT_PACKAGES_KIND": "demo"}, {}),
    ):
        with pytest.raises(SettingsInvalid, match=r"^packages: Input should be a valid dictionary"):
            load(file, environment, **overrides)


@pytest.mark.parametrize("value", ["[", "{", "2026-99-31", "&x *y"])
def test_a_variable_that_cannot_be_read_is_named(value: str) -> None:
    with pytest.raises(
        SettingsInvalid, match=r"^layers\.most: cannot read the value of NIXFRONT_LAYERS_MOST"
    ):
        load(None, {"NIXFRONT_LAYERS_MOST": value})


def test_a_date_needs_no_quotes_and_has_to_be_one(file: Path) -> None:
    file.write_text("packages: {date: 2026-01-31T00:00:00Z}\n")
    assert load(file, {}).packages.date == "2026-01-31T00:00:00Z"

    file.write_text("packages: {date: 2026-99-31}\n")
    with pytest.raises(SettingsInvalid, match=r"^cannot read"):
        load(file, {})


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

    asked = load(None, {"NIXFRONT_LAYERS_PACKERS": "3", "NIXFRONT_LAYERS_UPLOADS": "5"})
    assert (asked.packers, asked.uploads) == (3, 5)


def test_presets_of_the_operator_are_laid_over_ours(file: Path) -> None:
    file.write_text(
        "names: {presets: {shell: {packages: [zsh], command: [/bin/zsh]}, mine: {user: '5:6'}}}\n"
    )

    presets = load(file, {}).presets

    assert presets["shell"] == PresetSection(packages=("zsh",), command=("/bin/zsh",))
    assert presets["mine"].user == "5:6"
    assert presets.keys() - {"mine"} == Settings().presets.keys()


def test_settings_cannot_be_changed() -> None:
    settings = Settings()

    with pytest.raises(ValueError, match="frozen"):
        settings.http = settings.http  # type: ignore[misc]


# --- named images -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images: {file: images.nix}", "images.file: .*absolute path"),
        ("registry: {storage: data}", "registry.storage: .*absolute path"),
        ("registry: {public_url: 'registry:5000'}", "registry.public_url: .*scheme, host and port"),
        ("images: {prefix: a/b}", "images.prefix: .*one component"),
        ("images: {prefix: Images}", "images.prefix: .*one component"),
        ("images: {file: /i.nix, prefix: shell}", "images.prefix: shell is the name of a meta-package too"),
        (
            "images: {file: /i.nix, prefix: team}\nsets: {team: {kind: path, path: /p}}",
            "images.prefix: team is the name of a package set too",
        ),
    ],
)
def test_images_need_a_file_and_a_prefix_of_their_own(file: Path, text: str, message: str) -> None:
    file.write_text(text)

    with pytest.raises(SettingsInvalid, match=message):
        load(file, {})


def test_without_a_file_the_prefix_is_free(file: Path) -> None:
    file.write_text("images: {prefix: shell}")

    assert load(file, {}).images.prefix == "shell"
