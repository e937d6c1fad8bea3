"""Why an image has its variables, as far as its own label says it."""

import json

import pytest

from proxy.core.model import PackageSet
from proxy.image import environment
from proxy.image import recipe as image_recipe
from proxy.image.environment import Environment
from proxy.image.environment.libraries import Variable
from proxy.image.recipe import Recipe
from proxy.upkeep import explain

SET = PackageSet("nixpkgs", "/nix/store/source", "0123", "", "2026-01-31T00:00:00Z")
LINES = ["PATH=/mine", "LANG=C.UTF-8", "USER=user", "HOME=/root", "PERL5LIB=/a=b"]


def test_the_reasons_are_those_of_the_label() -> None:
    around = Environment((Variable("PERL5LIB", "/a", "perl-5 finds JSON-4"),), ("old-1 is for Perl 5.38.0",))
    labels = image_recipe.facts(Recipe(()), SET, "x86_64-linux", (), around).labels

    reasons, notes = explain._reasons(labels[environment.REASONS])

    assert notes == around.notes
    assert [(v.name, v.value, v.reason) for v in explain._variables(LINES, reasons)] == [
        ("PATH", "/mine", "a meta-package or the definition of the image sets it"),
        ("LANG", "C.UTF-8", "every image has it"),
        ("USER", "user", "the image has this user"),
        ("HOME", "/root", "every user may write there"),
        ("PERL5LIB", "/a=b", "perl-5 finds JSON-4"),
    ]


@pytest.mark.parametrize(
    "label", ["", "x", "[]", json.dumps({"reasons": [], "notes": []}), json.dumps({"notes": 1})]
)
def test_a_label_of_a_stranger_explains_nothing(label: str) -> None:
    assert explain._reasons(label) == ({}, ())


def test_a_configuration_without_variables_has_none_to_explain() -> None:
    assert list(explain._variables(None, {})) == []
