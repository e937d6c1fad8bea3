"""Platforms and systems, and messages of several platforms."""

import pytest

from proxy.core.platforms import Platform, client_first, joint_message, of_system, system_of


@pytest.mark.parametrize(
    ("system", "platform", "name"),
    [
        ("x86_64-linux", Platform("linux", "amd64"), "linux/amd64"),
        ("aarch64-linux", Platform("linux", "arm64", "v8"), "linux/arm64"),
        ("armv7l-linux", Platform("linux", "arm", "v7"), "linux/arm"),
        ("armv6l-linux", Platform("linux", "arm", "v6"), "linux/arm/v6"),
        ("riscv64-linux", Platform("linux", "riscv64"), "linux/riscv64"),
    ],
)
def test_a_system_and_its_platform_name_each_other(system: str, platform: Platform, name: str) -> None:
    assert of_system(system) == platform
    assert platform.name == name
    assert system_of(name) == system


def test_a_variant_that_engines_assume_may_be_there() -> None:
    assert system_of("linux/arm64/v8") == "aarch64-linux"
    assert system_of("linux/arm/v7") == "armv7l-linux"


@pytest.mark.parametrize("text", ["", "linux", "amd64", "darwin/arm64", "linux/arm64/v9", "x86_64-linux"])
def test_any_other_text_is_refused_with_the_platforms_that_there_are(text: str) -> None:
    with pytest.raises(
        ValueError, match="there are linux/amd64, linux/386, linux/arm64, linux/arm, linux/arm/v6"
    ):
        system_of(text)


def test_the_platform_of_the_client_comes_first() -> None:
    message = joint_message({"linux/amd64": "no; and why", "linux/arm64": "not for us", "linux/arm": "never"})

    assert message == "for linux/amd64: no; and why; for linux/arm64: not for us; for linux/arm: never"
    assert client_first(message, "arm64") == (
        "for linux/arm64: not for us; for linux/amd64: no; and why; for linux/arm: never"
    )
    assert client_first(f"a hint ({message}", "amd64") == f"a hint ({message}"
    assert client_first(message, "s390x") == message


@pytest.mark.parametrize("text", ["", "no package helo", "made for linux/arm64: it is so"])
def test_the_message_of_one_platform_stays_as_it_is(text: str) -> None:
    assert client_first(text, "arm64") == text
