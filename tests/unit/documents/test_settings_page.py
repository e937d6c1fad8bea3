"""The page of settings is the program's own."""

from proxy.settings import Settings
from tests.support import settings_page


def test_the_page_is_current() -> None:
    written = (settings_page.ROOT / "config/README.md").read_text(encoding="utf-8")

    assert written == settings_page.page(), f"a key or a comment has changed: run `{settings_page.HOW}`"


def test_every_key_is_there_with_what_it_is_for() -> None:
    text = settings_page.page()

    for section, field in Settings.model_fields.items():
        assert f"## {section}\n" in text
        for key in getattr(field.annotation, "model_fields", {}):
            assert f"`NIXFRONT_{section.upper()}_{key.upper()}`" in text
    assert "a value, default" not in text


def test_examples_and_tables_of_comments_stay_as_they_are() -> None:
    text = settings_page.page()

    assert "```\n  presets:\n" in text
    assert "nixpkgs  nixpkgs; tags are its channels and commits" in text
