"""A listing of one image remembers where paths lead, and answers as one that remembers nothing."""

import random
from pathlib import Path

import pytest

from proxy.image.store_tree import StoreListing

X, Y = "/nix/store/x-one", "/nix/store/y-two"
TARGETS = (
    "a",
    "b/c",
    "../b",
    ".",
    "..",
    "../../y-two/a",
    X,
    f"{Y}/b",
    "/etc",
    "nothing",
    "../../../../x-one/c",
)


def grow(folder: Path, dice: random.Random, depth: int) -> None:
    """Folders, files and links of few names, so that many links lead somewhere and some in a circle."""
    folder.mkdir(parents=True)
    for name in "abcd":
        match dice.randrange(4 if depth else 3):
            case 0:
                (folder / name).write_text(name)
            case 1 | 2:
                (folder / name).symlink_to(dice.choice(TARGETS))
            case _:
                grow(folder / name, dice, depth - 1)


@pytest.mark.parametrize("seed", range(40))
def test_the_answers_are_those_of_a_listing_without_memory(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    grow(tmp_path / "nix/store/x-one", dice, 2)
    grow(tmp_path / "nix/store/y-two", dice, 2)
    plain = StoreListing(str(tmp_path))
    remembers = plain.within([X, Y])

    paths = [X, Y]
    for _ in range(300):
        path = dice.choice(paths)
        kind = plain.kind(path)
        assert remembers.kind(path) == kind, path
        assert remembers.real(path) == plain.real(path), path
        if kind == "directory":
            assert remembers.children(path) == plain.children(path), path
        paths.append(f"{path}/{dice.choice(['a', 'b', 'c', 'd', '..', 'nothing'])}")
