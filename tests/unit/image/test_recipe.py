"""What a request or a named image says about its image: order, command, owner, environment, labels and history."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from typing_extensions import override

from proxy.core.errors import PackageUnusable
from proxy.core.model import ImageRequest, LayerPlan, Package, PackageSet, Preset
from proxy.image import recipe as image_recipe
from proxy.image import root_tree
from proxy.image.recipe import Recipe
from proxy.image.tar import directory, file

SET = PackageSet(
    name="nixpkgs",
    expression="/nix/store/source",
    revision="0123",
    source="https://example.org",
    created="2026-01-31T00:00:00Z",
)


class OneProgram:
    """A store in which every package holds one program, named like it."""

    def kind(self, path: str) -> root_tree.Kind | None:
        parts = path.split("/")
        if len(parts) == 4:
            return "directory"
        return {5: "directory", 6: "executable"}.get(len(parts)) if parts[4] == "bin" else None  # type: ignore[return-value]

    def children(self, path: str) -> Mapping[str, root_tree.Kind]:
        parts = path.split("/")
        return {"bin": "directory"} if len(parts) == 4 else {parts[3]: "executable"}

    def read(self, path: str) -> str:
        raise AssertionError(f"{path} is no text")

    def real(self, path: str) -> str:
        return path


def package(attribute: str) -> Package:
    return Package(
        attribute, f"{attribute}-1", f"/{attribute}.drv", (("out", f"/nix/store/{attribute}"),), ""
    )


def asked(*attributes: str) -> ImageRequest:
    return ImageRequest("any", "latest", attributes)


def test_packages_come_as_typed_and_those_of_every_image_last() -> None:
    found = {name: package(name) for name in ("a", "b", "cacert", "z")}

    recipe = image_recipe.from_request(asked("z", "a", "b"), found)

    assert [item.attribute for item in recipe.packages] == ["z", "a", "b", "cacert"]


def test_a_package_under_two_names_is_taken_once() -> None:
    git = package("git")

    assert image_recipe.from_request(asked("git", "Git"), {"git": git, "Git": git}).packages == (git,)


def test_the_first_packages_program_is_the_command() -> None:
    recipe = Recipe((package("a"), package("b")))

    assert image_recipe.command(recipe, OneProgram()) == ("/bin/a",)


def test_a_package_of_a_meta_package_is_not_the_command_of_the_one_behind_it() -> None:
    found = {name: package(name) for name in ("fontconfig", "hello", "git")}
    request = replace(asked("fontconfig", "hello", "git"), first="hello")

    assert image_recipe.command(image_recipe.from_request(request, found), OneProgram()) == ("/bin/hello",)


def test_a_command_of_its_own_comes_before_the_packages() -> None:
    assert image_recipe.command(Recipe((package("a"),), command=("x", "y")), OneProgram()) == ("x", "y")


def test_an_entrypoint_gets_no_argument_that_nobody_wrote() -> None:
    assert image_recipe.command(Recipe((package("a"),), entrypoint=("x",)), OneProgram()) == ()


def test_nothing_starts_where_there_is_no_package() -> None:
    assert image_recipe.command(Recipe(()), OneProgram()) == ()


def test_the_root_has_the_owner_that_is_said_and_the_home_its_user() -> None:
    recipe = Recipe((package("a"),), home="1000:100", owner=(7, 8))

    root = image_recipe.root(recipe, SET, OneProgram(), set())
    owners = {entry.path: entry.owner for entry in root.entries}

    assert owners.pop("home/user") == (1000, 0)
    assert set(owners.values()) == {(7, 8)}
    assert {"etc/passwd", "tmp", "home"} <= owners.keys()


def test_what_lies_in_a_home_is_its_users() -> None:
    entries = (directory("home/user"), file("home/user/.rc", b""), directory("home/users"))

    owned = image_recipe.owned(Recipe((), home="5:6"), entries)

    assert [entry.owner for entry in owned] == [(5, 0), (5, 6), (0, 0)]


def test_the_environment_is_laid_over_that_of_every_image() -> None:
    recipe = Recipe((), home="1:1", environment=(("LANG", "C"), ("X", "y")))

    environment = image_recipe.facts(recipe, SET, "x86_64-linux", ()).environment

    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in environment
    assert {"LANG=C", "X=y", "HOME=/home/user", "USER=user"} <= {*environment}
    assert "LANG=C.UTF-8" not in environment


@pytest.mark.parametrize(
    ("recipe", "home"),
    [
        pytest.param(Recipe(()), ["HOME=/root"], id="any user: eclipse-che/che#13454"),
        pytest.param(Recipe((), user="1:1", home="1:1"), ["HOME=/home/user"], id="a user with a home"),
        pytest.param(Recipe((), user="postgres"), [], id="a user whose home is in passwd"),
        pytest.param(Recipe((), environment=(("HOME", "/srv"),)), ["HOME=/srv"], id="what the file says"),
    ],
)
def test_home_is_where_the_user_may_write(recipe: Recipe, home: list[str]) -> None:
    environment = image_recipe.facts(recipe, SET, "x86_64-linux", ()).environment

    assert [line for line in environment if line.startswith("HOME=")] == home


def test_labels_say_the_origin_and_what_the_operator_says() -> None:
    recipe = Recipe(
        (package("b"), package("a")), image="web", labels=(("org.opencontainers.image.source", "mine"),)
    )

    labels = image_recipe.facts(recipe, SET, "x86_64-linux", ()).labels

    assert labels == {
        "nixfront.image": "web",
        "nixfront.package-set": "nixpkgs",
        "nixfront.packages": "a-1 b-1",
        "nixfront.revision": "0123",
        "nixfront.source": "https://example.org",
        "org.opencontainers.image.created": "2026-01-31T00:00:00Z",
        "org.opencontainers.image.revision": "0123",
        "org.opencontainers.image.source": "mine",
    }


def test_history_names_the_store_paths_of_each_layer() -> None:
    plans = (LayerPlan(("/nix/store/a",)), LayerPlan(("/nix/store/b", "/nix/store/c")))
    packages = (package("b"), package("a"))

    assert image_recipe.comments(Recipe(packages), plans) == [
        "/nix/store/a",
        "/nix/store/b /nix/store/c",
        "root of a-1 b-1",
    ]
    named = image_recipe.comments(Recipe(packages, image="web", script=True), plans)
    assert named[-1] == "root of image web, as its extraCommands left it"


def test_a_preset_says_user_command_and_environment() -> None:
    preset = Preset(command=("/bin/sh",), user="1000:1000", environment=(("A", "b"),))

    recipe = image_recipe.from_request(replace(asked("a"), preset=preset), {"a": package("a")})

    assert recipe == Recipe(
        (package("a"),),
        command=("/bin/sh",),
        user="1000:1000",
        home="1000:1000",
        directory="/home/user",
        environment=(("A", "b"),),
        main=package("a"),
    )


def test_the_version_is_that_of_the_first_package_that_the_client_named() -> None:
    found = {name: replace(package(name), version=f"1.{name}") for name in ("bash", "git", "jq")}
    request = ImageRequest("shell/git/jq", "latest", ("bash", "git", "jq"), first="git")

    labels = image_recipe.facts(image_recipe.from_request(request, found), SET, "x86_64-linux", ()).labels

    assert labels["org.opencontainers.image.version"] == "1.git"


def test_without_a_version_there_is_no_label_of_one() -> None:
    recipe = image_recipe.from_request(asked("a"), {"a": package("a")})

    assert image_recipe.VERSION not in image_recipe.facts(recipe, SET, "x86_64-linux", ()).labels


def test_nix_is_no_package_of_an_image_but_of_a_named_one() -> None:
    class Store(OneProgram):
        @override
        def children(self, path: str) -> Mapping[str, root_tree.Kind]:
            return {"bin": "directory"} if len(path.split("/")) == 4 else {"nix-store": "executable"}

    with pytest.raises(PackageUnusable, match="nix cannot be a package of an image: it has no database"):
        image_recipe.root(Recipe((package("lix"),)), SET, Store(), ())
    entries = image_recipe.root(Recipe((package("lix"),), image="nixfront"), SET, Store(), ()).entries
    assert "bin/nix-store" in {entry.path for entry in entries}
