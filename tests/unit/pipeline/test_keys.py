"""The pure parts of the pipeline: what the key of a content depends on."""

from dataclasses import fields, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import names as core_names
from proxy.core.errors import ImageTooLarge
from proxy.core.model import ImageRequest, Package, PackageSet, Policy, Preset, canonical_json
from proxy.image import recipe as image_recipe
from proxy.image.layer_table import LayerTable
from proxy.image.recipe import Definition, Recipe, TextPaths
from proxy.pipeline import keys
from proxy.pipeline.contents import limits
from proxy.pipeline.keys import ImageOptions, content_key
from proxy.pipeline.named import NamedImage

SET = PackageSet(
    name="nixpkgs",
    expression="/nix/store/source",
    revision="0123",
    source="https://example.org",
    created="2026-01-31T00:00:00Z",
    arguments={"lock": "/lock"},
)
OPTIONS = ImageOptions(
    system="x86_64-linux",
    policy=Policy(),
    always=("cacert", "iana-etc"),
    most_layers=100,
    form="docker",
    compression="gzip",
)
NAMES = ("git", "htop")


def request(*attributes: str, system: str = "") -> ImageRequest:
    return ImageRequest("any", "latest", attributes, preset=Preset(system=system))


@pytest.mark.parametrize(
    ("names", "package_set", "options"),
    [
        pytest.param(("git",), SET, OPTIONS, id="a name less"),
        pytest.param((*NAMES, "jq"), SET, OPTIONS, id="a name more"),
        pytest.param(("git htop",), SET, OPTIONS, id="names run together"),
        pytest.param(NAMES, replace(SET, name="demo"), OPTIONS, id="the set"),
        pytest.param(NAMES, replace(SET, revision="4567"), OPTIONS, id="its revision"),
        pytest.param(NAMES, replace(SET, arguments={}), OPTIONS, id="no arguments"),
        pytest.param(NAMES, replace(SET, arguments={"lock": "/other"}), OPTIONS, id="other arguments"),
        pytest.param(NAMES, SET, replace(OPTIONS, system="aarch64-linux"), id="the system"),
        pytest.param(NAMES, SET, replace(OPTIONS, always=("cacert",)), id="what every image has"),
        pytest.param(NAMES, SET, replace(OPTIONS, policy=Policy(("x",))), id="the policy"),
        pytest.param(NAMES, SET, replace(OPTIONS, most_layers=99), id="the number of layers"),
        pytest.param(NAMES, SET, replace(OPTIONS, form="oci"), id="the format"),
        pytest.param(NAMES, SET, replace(OPTIONS, compression="none"), id="the compression"),
        pytest.param(
            NAMES, SET, replace(OPTIONS, tables={"": LayerTable({"git": 0})}), id="the table of layers"
        ),
    ],
)
def test_whatever_a_content_depends_on_changes_its_key(
    names: tuple[str, ...], package_set: PackageSet, options: ImageOptions
) -> None:
    assert content_key(request(*names), package_set, options) != content_key(request(*NAMES), SET, OPTIONS)


def test_the_system_of_a_meta_package_changes_the_key() -> None:
    other = content_key(request(*NAMES, system="aarch64-linux"), SET, OPTIONS)

    assert other != content_key(request(*NAMES), SET, OPTIONS)
    assert other == content_key(request(*NAMES), SET, replace(OPTIONS, system="aarch64-linux"))


@pytest.mark.parametrize(
    "package_set",
    [
        pytest.param(replace(SET, source="https://mirror.example"), id="where it came from"),
        pytest.param(replace(SET, created="1980-01-01T00:00:00Z"), id="its date"),
        pytest.param(replace(SET, expression="/elsewhere"), id="where it lies"),
        pytest.param(replace(SET, substitutes=False), id="whether a cache has it"),
    ],
)
def test_what_makes_no_other_layers_leaves_the_key(package_set: PackageSet) -> None:
    assert content_key(request(*NAMES), package_set, OPTIONS) == content_key(request(*NAMES), SET, OPTIONS)


@given(st.lists(st.text("abc.-", min_size=1), unique=True, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_names_leaves_the_key(names: list[str], random: Random) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)

    assert content_key(request(*shuffled), SET, OPTIONS) == content_key(request(*names), SET, OPTIONS)


def test_a_key_can_be_a_file_name() -> None:
    assert len(content_key(request(*NAMES), SET, OPTIONS)) == 64


@pytest.mark.parametrize(("most", "fine"), [(0, True), (30, True), (29, False)])
def test_a_closure_is_within_its_limit(most: int, fine: bool) -> None:
    if fine:
        limits.bytes_within(most, 30, 2, NAMES)
    else:
        with pytest.raises(ImageTooLarge, match=r"git htop .* in 2 store paths"):
            limits.bytes_within(most, 30, 2, NAMES)
        with pytest.raises(ImageTooLarge, match=r"git htop .* that would have to be fetched"):
            limits.bytes_within(most, 30, 0, NAMES)


IMAGE = NamedImage(
    Definition(
        Recipe((Package("a", "a-1", "/a.drv", (("out", "/nix/store/a"),), ""),), image="web"),
        runs=TextPaths(("/nix/store/r",), ("/r.drv!out",)),
    ),
    SET,
)
PACKAGE = Package("b", "b-1", "/b.drv", (("out", "/nix/store/b"),), "")
OTHER: dict[str, object] = {
    "recipe.packages": (PACKAGE,),
    "recipe.image": "other",
    "recipe.command": ("x",),
    "recipe.entrypoint": ("x",),
    "recipe.user": "1:1",
    "recipe.home": "1:1",
    "recipe.directory": "/x",
    "recipe.environment": (("A", "b"),),
    "recipe.labels": (("A", "b"),),
    "recipe.ports": ("80/tcp",),
    "recipe.owner": (1, 1),
    "recipe.script": True,
    "recipe.version": "2",
    "recipe.main": PACKAGE,
    "runs": TextPaths(),
    "most_layers": 7,
    "script": "true",
    "commands": TextPaths(("/nix/store/c",)),
    "tools": (PACKAGE,),
}


def changed(key: str) -> NamedImage:
    """The definition with another value for this key."""
    part, _, field = key.partition(".")
    old: Any = IMAGE.definition
    value: Any = replace(old.recipe, **{field: OTHER[key]}) if field else OTHER[key]
    return replace(IMAGE, definition=replace(old, **{part: value}))


def test_every_field_of_a_definition_is_tried() -> None:
    recipe = {f"recipe.{field.name}" for field in fields(Recipe)}
    rest = {field.name for field in fields(Definition)} - {"recipe"}

    assert recipe | rest == OTHER.keys()


@pytest.mark.parametrize("key", OTHER)
def test_every_field_of_a_definition_changes_its_key(key: str) -> None:
    one = keys.definition_key(IMAGE, OPTIONS)

    assert keys.definition_key(changed(key), OPTIONS) != one
    assert keys.definition_key(replace(IMAGE, package_set=replace(SET, revision="4567")), OPTIONS) != one
    assert keys.definition_key(replace(IMAGE, system="aarch64-linux"), OPTIONS) != one


@pytest.mark.parametrize(
    "key",
    # The version of a named image is one of its labels, and its first package has its command.
    [
        key
        for key in OTHER
        if key not in ("recipe.version", "recipe.main")
        and (key.startswith("recipe.") or key in ("most_layers", "script", "tools"))
    ],
)
def test_whatever_a_named_image_says_of_itself_changes_its_tag(key: str) -> None:
    one = image_recipe.tag(IMAGE.definition)

    assert image_recipe.tag(changed(key).definition) != one
    assert core_names.parse("git", one, core_names.Vocabulary()) is not None


def test_the_tag_of_outputs_is_a_tag() -> None:
    one, other = (
        image_recipe.output_tag(["/nix/store/a"]),
        image_recipe.output_tag(["/nix/store/a", "/nix/store/b"]),
    )

    assert one != other
    assert core_names.parse("git", one, core_names.Vocabulary()) is not None


def test_a_record_says_which_settings_have_changed() -> None:
    then = canonical_json(keys.byte_settings(OPTIONS, "")).decode()

    def now(**fields: Any) -> list[str]:
        return keys.changed(then, keys.byte_settings(replace(OPTIONS, **fields), ""))

    assert now() == []
    assert now(policy=Policy(allow_unfree=("*",))) == [], "no byte depends on what is allowed"
    assert now(form="oci", always=()) == [
        "image.format was docker and is oci",
        "packages.always was cacert iana-etc and is empty",
    ]
    assert keys.changed("", keys.byte_settings(OPTIONS, "")) == []
    older = then.replace(f'"builder":{keys.BUILDER_VERSION}', '"builder":1')
    assert keys.changed(older, keys.byte_settings(OPTIONS, "")) == ["another version of nixfront made it"]


@pytest.mark.parametrize("record", ["no JSON", "[]", "7", "[" * 100_000, '{"image.format": {}}'])
def test_a_damaged_record_of_settings_is_no_error(record: str) -> None:
    assert len(keys.changed(record, keys.byte_settings(OPTIONS, ""))) <= 1


def test_one_image_for_each_package_that_the_client_named_first() -> None:
    """The version and the command are its own: `fonts/hello` and `fonts/dejavu_fonts/hello` have the same packages."""
    names = request("dejavu_fonts", "hello")

    images = {keys.image_key(replace(names, first=first), "content") for first in names.attributes}

    assert len(images) == 2
