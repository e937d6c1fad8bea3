"""Keys that go together, and keys that exclude each other."""

from pathlib import Path

import pytest

from proxy.core.errors import SettingsInvalid
from proxy.settings import load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.yml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http: {certificate: /x}", "http: certificate and key go together"),
        ("http: {key: /x}", "http: certificate and key go together"),
        (
            "registry: {username: u, password: p}",
            "registry: credentials and certificates need a url",
        ),
        ("registry: {ca: /x}", "registry: credentials and certificates need a url"),
        ("packages: {kind: git}", "packages: kind git needs a url"),
        ("packages: {kind: tarball}", "packages: kind tarball needs a url"),
        ("packages: {kind: flake}", "packages: kind flake needs a url"),
        ("packages: {kind: path}", "packages: kind path needs an absolute path"),
        ("packages: {kind: path, path: set}", "packages: kind path needs an absolute path"),
        ("packages: {recipe: recipe.json}", "packages: a recipe is big, or an absolute path"),
        ("sets: {mine: {kind: git}}", "sets.mine: kind git needs a url"),
        ("images: {file: /i.nix, prefix: shell}", "images.prefix: shell is the name of a meta-package too"),
        (
            "images: {file: /i.nix, prefix: team}\nsets: {team: {kind: path, path: /p}}",
            "images.prefix: team is the name of a package set too",
        ),
        ("layers: {compression: zstd}", "layers.compression zstd needs image.format oci"),
    ],
)
def test_keys_that_cannot_be_together(file: Path, text: str, message: str) -> None:
    file.write_text(text)

    with pytest.raises(SettingsInvalid) as caught:
        load(file, {})

    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "http: {certificate: /x, key: /y}",
        "registry: {url: 'https://r', username: u, password: p, ca: /x, client_certificate: /x, client_key: /y}",
        "registry: {url: 'http://r', username: u, password_file: /x}",
        "packages: {recipe: big}",
        "packages: {recipe: /srv/recipe.json}",
        "images: {prefix: shell}",
        "layers: {compression: zstd}\nimage: {format: oci}",
    ],
)
def test_keys_that_go_together(file: Path, text: str) -> None:
    file.write_text(text)

    load(file, {})


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        pytest.param("password: p, password_file: /x", "exclude each other", id="two passwords"),
        pytest.param("password: ''", "go together", id="no password"),
        pytest.param("username: 'a:b', password: p", "has no colon", id="a colon"),
        pytest.param("password: p, url: 'http://r:1', ca: /x", "https url", id="a CA without TLS"),
        pytest.param("password: p, client_key: /x", "go together", id="a key without a certificate"),
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


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("packages: {kind: tarball, url: 'https://me:geheim@x/{ref}.tar'}", "netrc-file"),
        ("packages: {kind: nixpkgs, url: 'https://geheim@x/{revision}'}", "netrc-file"),
        ("sets: {a: {kind: flake, url: 'git+https://me:geheim@x/y'}}", "access-tokens"),
        ("nix: {copy_to: 'https://me:geheim@x'}", "netrc-file"),
        ("sets: {a: {kind: git, url: 'ssh://me:geheim@x/y'}}", "use a key"),
    ],
)
def test_a_password_that_other_users_could_read_is_refused(file: Path, text: str, way: str) -> None:
    file.write_text(text)

    with pytest.raises(SettingsInvalid) as caught:
        load(file, {})

    assert "every user of this host could read" in str(caught.value)
    assert way in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "packages: {kind: git, url: 'https://me:geheim@x/y'}",
        "packages: {kind: git, url: 'ssh://git@x/y'}",
        "packages: {kind: git, url: 'git@x:y'}",
        "packages: {kind: flake, url: 'git+ssh://git@x/y'}",
        "packages: {kind: nixpkgs, url: 'https://x/{revision}', pointer: 'https://me:geheim@x/{ref}'}",
    ],
)
def test_a_password_that_no_command_line_gets_is_accepted(file: Path, text: str) -> None:
    file.write_text(text)

    load(file, {})


@pytest.mark.parametrize("commit", ["abc", "A" * 40, "g" * 40, "1" * 41])
def test_commits_are_written_in_full(file: Path, commit: str) -> None:
    file.write_text(f"packages: {{commits: ['{commit}']}}")

    with pytest.raises(SettingsInvalid, match=r"packages\.commits\.0"):
        load(file, {})
