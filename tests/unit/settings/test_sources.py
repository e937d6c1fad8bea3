"""What stands in a file and in the environment, before its check."""

from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

from proxy.core.errors import SettingsInvalid
from proxy.settings import Settings, load, sources


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.yml"


@pytest.mark.parametrize("text", ["", "# nothing but this\n", "http:\n", "http: {}\n"])
def test_a_file_that_says_nothing_means_the_defaults(file: Path, text: str) -> None:
    file.write_text(text)

    assert load(file, {}) == Settings()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"http: {", id="no YAML"),
        pytest.param(b"a: 1\n---\nb: 1\n", id="two documents"),
        pytest.param(b"\xff\xfe\x00", id="no text"),
        pytest.param(b"!!python/object/apply:os.getpid []", id="no plain YAML"),
        pytest.param(b"packages: {date: 2026-99-31}", id="no date"),
        pytest.param(None, id="no file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(file: Path, content: bytes | None) -> None:
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(SettingsInvalid, match=f"^cannot read {file}: "):
        sources.read_file(file)


@pytest.mark.parametrize(("text", "kind"), [("[]", "a list"), ("text", "a text")])
def test_settings_are_sections(file: Path, text: str, kind: str) -> None:
    file.write_text(text)

    with pytest.raises(SettingsInvalid, match=f"{file}: the settings are sections with keys, and not {kind}"):
        sources.read_file(file)


def test_every_key_has_a_variable_that_is_yaml_unless_the_key_is_a_text() -> None:
    for section, field in Settings.model_fields.items():
        model = field.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        for key, setting in model.model_fields.items():
            tree: dict[str, object] = {section: {"other": 1}}

            sources.set_variable(tree, Settings, f"NIXFRONT_{section}_{key}".upper(), "[12, a]")

            is_text = isinstance(setting.default, (str, SecretStr))
            assert tree == {section: {"other": 1, key: "[12, a]" if is_text else (12, "a")}}


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("NIXFRONT_LOG_LEVELS", "log.levels"),
        ("NIXFRONT_LOGS_LEVEL", "logs.level"),
        ("NIXFRONT_LOG", "log.?"),
        ("NIXFRONT_", ".?"),
        ("NIXFRONT_DATA_DIR_X", "data.dir_x"),
        ("NIXFRONT_SETS_TEAM", "sets.team"),
    ],
)
def test_an_unknown_variable_is_refused_with_its_name(variable: str, key: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load(None, {variable: "x"})

    assert str(caught.value).startswith(f"{variable} names no setting ({key})")


@pytest.mark.parametrize("value", ["[", "2026-99-31", "&x *y"])
def test_a_variable_that_cannot_be_read_is_named(value: str) -> None:
    with pytest.raises(
        SettingsInvalid, match=r"^layers\.most: cannot read the value of NIXFRONT_LAYERS_MOST"
    ):
        load(None, {"NIXFRONT_LAYERS_MOST": value})
