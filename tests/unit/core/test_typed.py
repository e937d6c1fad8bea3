"""What people write or paste as an image becomes a repository and a reference."""

import pytest

from proxy.core import typed

HOSTS = ("Images.example.org", "nix.local:8443", "nix")
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("hello", ("hello", "latest")),
        ("hello:v1", ("hello", "v1")),
        ("shell/git", ("shell/git", "latest")),
        ("127.0.0.1:8080/hello", ("hello", "latest")),
        ("127.0.0.1:8080/shell/git:v1", ("shell/git", "v1")),
        ("localhost/hello", ("hello", "latest")),
        ("localhost:8080/hello", ("hello", "latest")),
        ("10.0.0.5/hello", ("hello", "latest")),
        ("[::1]:8080/hello:v1", ("hello", "v1")),
        ("images.example.org/hello", ("hello", "latest")),
        ("NIX.local:8443/hello", ("hello", "latest")),
        ("nix/hello", ("nix/hello", "latest")),
        ("http://other.example/hello", ("hello", "latest")),
        ("docker://other.example:5000/a/b:c", ("a/b", "c")),
        (f"127.0.0.1:8080/hello@{DIGEST}", ("hello", DIGEST)),
        (f"hello:v1@{DIGEST}", ("hello", DIGEST)),
        ("python3packages.numpy/git", ("python3packages.numpy/git", "latest")),
        ("docker.io/library/hello", ("docker.io/library/hello", "latest")),
        ("7/hello", ("7/hello", "latest")),
        ("localhost", ("localhost", "latest")),
        ("images.example.org", ("images.example.org", "latest")),
        ("", ("", "latest")),
    ],
)
def test_what_is_written(text: str, image: tuple[str, str]) -> None:
    assert typed.read(text, HOSTS) == image


def test_a_digest_stands_behind_an_at() -> None:
    assert typed.write("shell/git", "v1") == "shell/git:v1"
    assert typed.write("shell/git", "sha256:aa") == "shell/git@sha256:aa"
