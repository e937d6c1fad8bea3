"""What Nix found for a named image becomes its definition; what is wrong in it is told with image and key."""

from typing import Any

import pytest

from proxy.core.errors import ImageInvalid, ImageUnknown, PackageRefused, PackageUnknown
from proxy.core.model import Package
from proxy.image import recipe as image_recipe
from proxy.image.recipe import Recipe, TextPaths
from proxy.nix import image_results

HASH = "0123456789abcdfghijklmnpqrsvwxyz"
STORE = f"/nix/store/{HASH}"


def package(attribute: str, *, typed: str = "") -> dict[str, Any]:
    return {
        "kind": "package",
        "typed": typed or attribute,
        "attribute": attribute,
        "name": f"{attribute}-1",
        "drvPath": f"{STORE}-{attribute}.drv",
        "outputs": [{"name": "out", "path": f"{STORE}-{attribute}"}],
        "mainProgram": "",
        "description": "",
        "license": "",
        "version": "",
        "licenses": [],
        "homepage": "",
        "vulnerabilities": [],
    }


def missing(name: str) -> dict[str, Any]:
    return {"kind": "missing", "typed": name, "at": "", "part": name, "names": ["hello"]}


NOTHING: dict[str, Any] = {"texts": [], "plain": [], "derivations": []}


def found(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "image",
        "image": "web",
        "packages": [],
        "contents": [],
        "optional": [],
        "tools": [],
        "runs": NOTHING,
        "commands": NOTHING,
        "extraCommands": "",
        "uid": 0,
        "gid": 0,
        "user": "",
        "cmd": [],
        "entrypoint": [],
        "env": [],
        "labels": [],
        "workdir": "",
        "exposedPorts": [],
        "maxLayers": 0,
        **fields,
    }


def read(**fields: Any) -> image_recipe.Definition:
    return image_results.read_image(found(**fields), "web", "demo")


def test_an_image_of_nothing() -> None:
    assert read() == image_recipe.Definition(Recipe((), image="web"), TextPaths())


def test_packages_then_contents_then_those_of_every_image_none_twice() -> None:
    contents = [{"kind": "path", "path": f"{STORE}-files", "drvPath": "", "output": ""}, package("a")]

    recipe = read(
        packages=[package("b"), package("a"), package("a", typed="A")],
        contents=contents,
        optional=[package("cacert"), package("b")],
    ).recipe

    assert [item.name for item in recipe.packages] == ["b-1", "a-1", "files", "cacert-1"]
    assert recipe.packages[2] == Package(f"{STORE}-files", "files", "", (("out", f"{STORE}-files"),), "")


def test_a_content_that_a_derivation_makes_is_built_by_it() -> None:
    path = {"kind": "path", "path": f"{STORE}-x-doc", "drvPath": f"{STORE}-x.drv", "output": "doc"}

    (package,) = read(contents=[path]).recipe.packages

    assert (package.drv_path, package.outputs) == (f"{STORE}-x.drv", (("doc", f"{STORE}-x-doc"),))


def test_how_it_runs() -> None:
    recipe = read(
        cmd=["a"],
        entrypoint=["b", "c"],
        env=[{"name": "X", "value": "1"}],
        labels=[{"name": "L", "value": "2"}],
        exposedPorts=[80, "53/udp", "80/tcp"],
        uid=7,
        gid=8,
        extraCommands="true",
    ).recipe

    assert recipe == Recipe(
        (),
        image="web",
        command=("a",),
        entrypoint=("b", "c"),
        environment=(("X", "1"),),
        labels=(("L", "2"),),
        ports=("80/tcp", "53/udp"),
        owner=(7, 8),
        script=True,
    )


@pytest.mark.parametrize(
    ("user", "workdir", "home", "directory"),
    [
        ("", "", "", ""),
        ("1000:100", "", "1000:100", "/home/user"),
        ("1000:100", "/srv", "1000:100", "/srv"),
        ("0:0", "", "", ""),
        ("1000", "", "", ""),
        ("www-data:_www", "/srv", "", "/srv"),
    ],
)
def test_a_user_by_numbers_gets_a_home(user: str, workdir: str, home: str, directory: str) -> None:
    recipe = read(user=user, workdir=workdir).recipe

    assert (recipe.user, recipe.home, recipe.directory) == (user, home, directory)


def test_texts_bring_the_store_paths_that_they_name() -> None:
    made, plain = f"{STORE}-made-1.0", f"{STORE}-plain"
    texts = {
        "texts": [f"{made}/bin/x", f"a:{made}:b {plain}"],
        "plain": [f"{plain}/bin/y", "/bin/z", f"{made}"],
        "derivations": [{"drvPath": f"{STORE}-made.drv", "outputs": ["doc", "out"]}],
    }

    assert read(runs=texts).runs == TextPaths((made, plain), (f"{STORE}-made.drv!doc,out",))
    only_plain = {**NOTHING, "plain": [f"{plain}/bin/y"]}
    assert read(commands=only_plain).commands == TextPaths((plain,), (plain,))


def test_tools_are_packages_of_their_own() -> None:
    read_back = read(extraCommands="true", tools=[package("bash"), package("coreutils")])

    assert [tool.attribute for tool in read_back.tools] == ["bash", "coreutils"]
    assert read_back.recipe.packages == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"uid": 1 << 32}, "image web: uid is 4294967296, but the highest possible is 4294967294"),
        ({"gid": 1 << 32}, "gid is 4294967296, but the highest possible is 4294967294"),
        ({"maxLayers": 1}, "maxLayers has to be from 2 to 125"),
        ({"maxLayers": 126}, "maxLayers has to be from 2 to 125"),
        ({"user": "a:b:c"}, "user 'a:b:c' is no UID:GID and no name"),
        ({"user": "A b"}, "user 'A b' is no UID:GID and no name"),
        ({"workdir": "srv"}, "workdir 'srv' is no absolute path"),
        ({"exposedPorts": ["x"]}, "exposedPorts holds 'x', which is no port like 8080 or 53/udp"),
        ({"exposedPorts": [65536]}, "exposedPorts holds 65536, which is no port"),
        ({"exposedPorts": ["0/tcp"]}, "exposedPorts holds '0/tcp', which is no port"),
        ({"env": [{"name": "", "value": ""}]}, "env holds '', which is no name of a variable"),
        ({"labels": [{"name": "nixfront.revision", "value": ""}]}, "labels holds 'nixfront.revision'"),
        (
            {"contents": [{"kind": "path", "path": f"{STORE}-x/bin", "drvPath": "", "output": ""}]},
            f"contents holds '{STORE}-x/bin', which is no store path (/nix/store/HASH-NAME)",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_key(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageInvalid) as refused:
        read(**fields)

    assert message in str(refused.value)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ImageInvalid, match=r"image web: maxLayers .*; workdir "):
        read(maxLayers=1, workdir="x")


def test_wrong_keys_come_with_close_ones() -> None:
    mistakes = [
        {"key": "enviroment", "problem": "is no key of an image", "choices": ["env", "entrypoint", "user"]},
        {"key": "packges", "problem": "is no key of an image", "choices": ["packages", "cmd"]},
        {"key": "uid", "problem": "has to be a number", "choices": []},
    ]

    with pytest.raises(ImageInvalid) as refused:
        image_results.read_image({"kind": "wrong", "image": "web", "mistakes": mistakes}, "web", "demo")

    assert str(refused.value) == (
        "image web: enviroment is no key of an image; "
        "packges is no key of an image, did you mean packages?; uid has to be a number"
    )


def test_a_file_of_no_images_is_no_image() -> None:
    mistakes = [{"key": "", "problem": "images.file has to yield a set", "choices": []}]

    with pytest.raises(ImageInvalid) as refused:
        image_results.read_image({"kind": "wrong", "image": "", "mistakes": mistakes}, "web", "demo")

    assert str(refused.value) == "images.file has to yield a set"


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"kind": "missing", "part": "wob", "names": ["Web", "x"]}, "no image wob, did you mean Web?"),
        (
            {"kind": "missing", "part": "wob", "names": ["wob1", "wob2"]},
            "no image wob, did you mean wob1 or wob2?",
        ),
        ({"kind": "missing", "part": "wob", "names": []}, "no image wob"),
        (
            {"kind": "ambiguous", "names": ["wOb", "woB"]},
            "image wob could be wOb and woB, which differ only in case",
        ),
    ],
)
def test_an_unknown_image_is_told_with_close_ones(result: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageUnknown) as refused:
        image_results.read_image(result, "wob", "demo")

    assert str(refused.value) == message


def test_all_missing_packages_are_named_with_the_image() -> None:
    contents = [missing("b"), {"kind": "path", "path": f"{STORE}-x", "drvPath": "", "output": ""}]
    image = found(packages=[missing("a"), package("c")], contents=contents)

    assert image_results.lacks_package(image)
    assert not image_results.lacks_package(found(packages=[package("c")]))
    with pytest.raises(PackageUnknown, match=r"image web: no package a; no package b \(package set demo\)"):
        image_results.read_image(image, "web", "demo")


def test_what_the_commands_lack_is_told_as_theirs() -> None:
    with pytest.raises(PackageUnknown, match="image web, for its extraCommands: no package bash"):
        read(extraCommands="true", tools=[missing("bash")])


def test_the_policy_holds_for_it() -> None:
    refusal = {**package("x"), "kind": "refused", "reason": "denied", "what": ["x"]}

    with pytest.raises(PackageRefused, match=r"image web: x-1 is named by policy\.deny_packages"):
        read(packages=[package("a"), refusal])
