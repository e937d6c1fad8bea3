"""Repository paths and tags: what they ask for, and what is none of our business."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.core import names
from proxy.core.errors import NameInvalid
from proxy.core.model import ImageRequest, Preset
from proxy.core.names import LONGEST_REPOSITORY, Vocabulary, is_repository

HEX = "0123456789abcdef" * 4
PARTS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
COMPONENTS = st.lists(st.tuples(st.sampled_from([".", "_", "__", "-"]), PARTS), min_size=1, max_size=7).map(
    lambda pieces: "".join(separator + part for separator, part in pieces).lstrip("._-")
)


SHELL = Preset(packages=("bash", "nano"), command=("/bin/bash",))
WORDS = Vocabulary(
    presets={
        "shell": SHELL,
        "user": Preset(user="1000:1000", environment=(("A", "1"), ("B", "1"))),
        "tools": Preset(packages=("nano", "jq"), command=("/bin/jq",), environment=(("A", "2"),)),
        "arm64": Preset(system="aarch64-linux"),
    },
    aliases={"gtk-plus": "gtk+", "curly": "python3Packages.curl"},
    package_sets=frozenset({"mine", "shell-set"}),
)


def parse(repository: str, reference: str = "latest") -> ImageRequest | None:
    return names.parse(repository, reference, WORDS)


@pytest.mark.parametrize(
    ("repository", "attributes"),
    [
        pytest.param("git", ("git",), id="one package"),
        pytest.param("git/htop", ("git", "htop"), id="two, first-named first"),
        pytest.param("htop/git", ("htop", "git"), id="the other order"),
        pytest.param("git/htop/git", ("git", "htop"), id="nothing twice"),
        pytest.param("python3packages.numpy", ("python3packages.numpy",), id="an attribute path"),
        pytest.param("g__plus/a-b/a--b", ("g__plus", "a-b", "a--b"), id="every separator"),
        pytest.param("shell", ("bash", "nano"), id="the shell alone"),
        pytest.param("shell/git", ("bash", "nano", "git"), id="the shell comes first"),
        pytest.param("shell/nano/git", ("bash", "nano", "git"), id="a part of the shell named again"),
        pytest.param("git/shell", ("git", "shell"), id="shell in another place is a package"),
        pytest.param("shell/tools/git", ("bash", "nano", "jq", "git"), id="two meta-packages"),
        pytest.param("shell/git/tools", ("bash", "nano", "git", "tools"), id="only those in front"),
        pytest.param("shellcheck", ("shellcheck",), id="a longer word is no shell"),
        pytest.param("gtk-plus/curly", ("gtk+", "python3Packages.curl"), id="other names"),
        pytest.param("git/mine", ("git", "mine"), id="a set in another place is a package"),
    ],
)
def test_a_path_names_its_packages_in_order(repository: str, attributes: tuple[str, ...]) -> None:
    request = parse(repository)

    assert request is not None
    assert request.attributes == attributes


@pytest.mark.parametrize(
    ("repository", "package_set", "presets", "command", "user", "system"),
    [
        pytest.param("git", "", (), (), "", "", id="nothing"),
        pytest.param("shell/git", "", ("shell",), ("/bin/bash",), "", "", id="shell"),
        pytest.param("shell/tools/git", "", ("shell", "tools"), ("/bin/jq",), "", "", id="the last command"),
        pytest.param("tools/shell/git", "", ("tools", "shell"), ("/bin/bash",), "", "", id="the other order"),
        pytest.param("shell/user/git", "", ("shell", "user"), ("/bin/bash",), "1000:1000", "", id="a user"),
        pytest.param("arm64/git", "", ("arm64",), (), "", "aarch64-linux", id="a system"),
        pytest.param("mine/git", "mine", (), (), "", "", id="a set"),
        pytest.param("mine/shell/git", "mine", ("shell",), ("/bin/bash",), "", "", id="a set and a shell"),
        pytest.param("shell-set/git", "shell-set", (), (), "", "", id="a set with a dash"),
    ],
)
def test_what_stands_in_front_says_how(
    repository: str,
    package_set: str,
    presets: tuple[str, ...],
    command: tuple[str, ...],
    user: str,
    system: str,
) -> None:
    request = parse(repository)

    assert request is not None
    assert (request.package_set, request.presets) == (package_set, presets)
    assert (request.preset.command, request.preset.user, request.preset.system) == (command, user, system)


def test_environments_are_laid_over_each_other() -> None:
    request = parse("user/tools/git")

    assert request is not None
    assert request.preset.environment == (("A", "2"), ("B", "1"))


@pytest.mark.parametrize("repository", ["user", "arm64", "mine", "mine/user", "user/arm64"])
def test_a_name_without_a_package_is_refused(repository: str) -> None:
    with pytest.raises(NameInvalid, match=f"'{repository}' names no package; put one after it"):
        parse(repository)


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("git", ("git",)),
        ("python3packages.numpy", ("python3packages", "numpy")),
        ("gtk--2b", ("gtk+",)),
        ("libstdc--2b--2b", ("libstdc++",)),
        ("a--5f--5f--5fb", ("a___b",)),
        ("lua5--2e4", ("lua5.4",)),
        ("lua5--2e4.x", ("lua5.4", "x")),
        ("a--b", ("a--b",)),
        ("a--zz", ("a--zz",)),
        ("a---2b", ("a-+",)),
        ("--2d--2d61", ("--61",)),
        ("perl5.36", ("perl5", "36")),
    ],
)
def test_an_attribute_path_has_its_parts(typed: str, path: tuple[str, ...]) -> None:
    assert names.attribute_path(typed) == path


@pytest.mark.parametrize("escape", ["--00", "--0a", "--20", "--7f", "--80", "--ff"])
def test_an_escape_is_a_visible_character(escape: str) -> None:
    with pytest.raises(NameInvalid, match="stands for no visible character of ASCII"):
        parse(f"git{escape}")


def test_a_path_without_end_is_refused() -> None:
    assert parse(".".join(["pkgs"] * 8)) is not None
    with pytest.raises(NameInvalid, match="more than 8 parts"):
        parse(".".join(["pkgs"] * 9))


@given(
    st.lists(st.text("abyzAZ019_+-. '@!~", min_size=1).filter(lambda t: t[0] not in "_.-+ '@!~"), min_size=1)
)
def test_what_is_spelled_is_read_back(parts: list[str]) -> None:
    """Every attribute that starts with a letter or digit can be asked for, but for its case and spaces, if it is not too long."""
    attribute = ".".join(part.replace(".", "").replace(" ", "") for part in parts[:8])

    spelled = names.spelled(attribute)

    assert spelled is not None
    assume(len(f"x/{spelled}") <= names.LONGEST_REPOSITORY)
    request = parse(f"x/{spelled}")
    assert request is not None, spelled
    assert ".".join(names.attribute_path(request.attributes[-1])) == attribute.lower()


@pytest.mark.parametrize(
    ("attribute", "spelled"),
    [
        ("git", "git"),
        ("python3Packages.numpy", "python3packages.numpy"),
        ("_7zz", "7zz"),
        ("gtk+", "gtk--2b"),
        ("a___b", "a--5f--5f--5fb"),
        ("a_b", "a_b"),
        ("bash-completion", "bash-completion"),
        ("_type", None),
        ("nodePackages.@angular/cli", None),
    ],
)
def test_an_attribute_is_spelled_as_a_person_would(attribute: str, spelled: str | None) -> None:
    assert names.spelled(attribute) == spelled


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param("latest", id="latest"),
        pytest.param("0c19708cf035f50d28eb4b2b8e7a79d4dc52f6bb", id="a revision"),
        pytest.param("_", id="an underscore"),
        pytest.param("A.b-C_1", id="every sign that a tag may hold"),
        pytest.param("x" * 128, id="the longest"),
        pytest.param(f"sha256-{HEX[:63]}", id="a hash one digit too short"),
    ],
)
def test_a_tag_is_kept_as_it_is(reference: str) -> None:
    request = parse("git", reference)

    assert request is not None
    assert request.tag == reference


@pytest.mark.parametrize(
    ("repository", "reference"),
    [
        pytest.param("git", f"sha256:{HEX}", id="a digest"),
        pytest.param("git", f"sha256-{HEX}", id="a referrers tag"),
        pytest.param("git", f"sha512-{HEX}{HEX}", id="a referrers tag of a longer hash"),
        pytest.param("git", f"sha256-{HEX}.sig", id="a signature"),
        pytest.param("git", f"sha256-{HEX}.att", id="an attestation"),
        pytest.param("git", f"sha256-{HEX}.sbom", id="a bill of materials"),
        pytest.param("git", "x" * 129, id="a tag that is too long"),
        pytest.param("git", ".x", id="a tag that starts with a dot"),
        pytest.param("git", "-x", id="a tag that starts with a dash"),
        pytest.param("git", "", id="no tag"),
        pytest.param("git", "latest\n", id="a line end after the tag"),
        pytest.param("git\n", "latest", id="a line end after the name"),
        pytest.param("Git", "latest", id="an upper-case letter"),
        pytest.param("git/", "latest", id="an empty component"),
        pytest.param("", "latest", id="no name"),
        pytest.param("git..lfs", "latest", id="two dots"),
        pytest.param("git___lfs", "latest", id="three underscores"),
        pytest.param("-git", "latest", id="a component that starts with a dash"),
        pytest.param("git/../x", "latest", id="a way up"),
        pytest.param("a%2Fb", "latest", id="an escaped slash"),
        pytest.param("g\N{LATIN SMALL LETTER I WITH DIAERESIS}t", "latest", id="a letter outside ASCII"),
        pytest.param("git\N{ARABIC-INDIC DIGIT ONE}", "latest", id="a digit outside ASCII"),
    ],
)
def test_what_can_never_be_ours_is_left_to_the_registry(repository: str, reference: str) -> None:
    assert parse(repository, reference) is None


def test_sixty_four_packages_are_allowed() -> None:
    repository = "/".join(f"p{number}" for number in range(64))

    request = parse(repository)

    assert request is not None
    assert len(request.attributes) == 64


@pytest.mark.parametrize(
    ("repository", "count"),
    [
        pytest.param("/".join(f"p{number}" for number in range(65)), 65, id="packages"),
        pytest.param("shell/" + "/".join(f"p{number}" for number in range(63)), 65, id="the shell counts"),
    ],
)
def test_one_package_too_many_is_refused_with_the_count(repository: str, count: int) -> None:
    with pytest.raises(
        NameInvalid, match=f"names {count} packages; policy.most_packages of this host allows 64"
    ):
        parse(repository)


def test_repeating_a_name_is_not_asking_for_more() -> None:
    request = parse("/".join(["git"] * 60))

    assert request is not None
    assert request.attributes == ("git",)


# --- named images -----------------------------------------------------------------------------------------

IMAGES = Vocabulary(presets={"web": SHELL}, package_sets=frozenset({"mine"}), images="images")


@pytest.mark.parametrize(
    ("repository", "image"),
    [
        ("images/web", "web"),
        ("images/team/web", "team/web"),
        ("images/a--2bb", "a+b"),
        ("images/python3.11", "python3.11"),
        ("images/images", "images"),
        ("images/mine/x", "mine/x"),
    ],
)
def test_what_follows_the_prefix_is_the_name_of_an_image(repository: str, image: str) -> None:
    request = names.parse(repository, "v1", IMAGES)

    assert request == ImageRequest(repository, "v1", (), image=image)
    assert request is not None
    assert request.names == (f"image {image}",)


@pytest.mark.parametrize("repository", ["web/images", "mine/images", "imagesx/web"])
def test_the_prefix_counts_in_front_alone(repository: str) -> None:
    request = names.parse(repository, "latest", IMAGES)

    assert request is not None
    assert request.image == ""


def test_without_a_file_the_prefix_is_a_package() -> None:
    request = names.parse("images/web", "latest", Vocabulary(images="images", has_images=False))

    assert request is not None
    assert (request.image, request.attributes) == ("", ("images", "web"))
    assert request.hints == (
        ("images", "this host has no named images, as its setting images.file is empty"),
    )


@pytest.mark.parametrize(
    ("repository", "hints"),
    [
        ("git/shell", {"shell": "shell/git"}),
        ("user/git/shell/jq", {"shell": "user/shell/git/jq"}),
        ("mine/git/shell/user", {"shell": "mine/shell/user/git", "user": "mine/shell/user/git"}),
        ("shell/git", {}),
        ("shell", {}),
        ("git/shell.x", {}),
    ],
)
def test_a_meta_package_behind_a_package_has_a_hint(repository: str, hints: dict[str, str]) -> None:
    request = parse(repository)

    assert request is not None
    expected = [(name, f"{name} is a meta-package and comes first: {path}") for name, path in hints.items()]
    assert list(request.hints) == expected


@pytest.mark.parametrize(
    ("repository", "name", "hint"),
    [
        ("shell/mine/git", "mine", "mine is a package set and comes first: mine/shell/git"),
        ("shell/mine", "mine", "mine is a package set and comes first: mine/shell"),
        (
            "mine/git/shell-set",
            "shell-set",
            "shell-set is a package set, and an image has packages of one set alone, here of mine",
        ),
        ("shell/nixpkgs/git", "nixpkgs", "nixpkgs is the package set of names without one: shell/git"),
        ("nixpkgs", "nixpkgs", "nixpkgs is the package set of names without one"),
    ],
)
def test_a_package_set_in_the_place_of_a_package_has_a_hint(repository: str, name: str, hint: str) -> None:
    request = names.parse(repository, "latest", replace(WORDS, default_set="nixpkgs"))

    assert request is not None
    assert request.hints == ((name, hint),)


@pytest.mark.parametrize(
    ("repository", "message"),
    [("images", "'images' names no image; put one after it"), ("images/a--00", "--00 in 'images/a--00'")],
)
def test_a_prefix_needs_a_name_that_can_be(repository: str, message: str) -> None:
    with pytest.raises(NameInvalid, match=message):
        names.parse(repository, "latest", IMAGES)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("main", "main"),
        ("2.39.5", "2.39.5"),
        ("release/24.05", "release--2f24.05"),
        ("1.0+git", "1.0--2bgit"),
        ("a--2fb", "a--2d--2d2fb"),
        (".hidden", None),
        ("x" * 129, None),
        ("é", None),
        ("", None),
    ],
)
def test_a_tag_spells_branches_and_versions(text: str, tag: str | None) -> None:
    assert names.spelled_tag(text) == tag
    assert tag is None or names.unspelled_tag(tag) == text


@given(st.text())
def test_what_a_tag_spells_is_read_again(text: str) -> None:
    tag = names.spelled_tag(text)

    assert tag is None or (names.is_tag(tag) and names.unspelled_tag(tag) == text)


@pytest.mark.parametrize(
    "version",
    [
        "",
        "unstable",
        "latest",
        "0" * 32,
        "0" * 40,
        "1" * 64,
        "sha256-" + "0" * 64,
        "revision-" + "0" * 12,
        "contents-" + "0" * 12,
    ],
)
def test_a_version_without_a_tag(version: str) -> None:
    assert names.version_tag(version) is None


@pytest.mark.parametrize(
    ("repository", "first"),
    [
        ("git/jq", "git"),
        ("shell/jq/git", "jq"),
        ("shell/nano", "nano"),
        ("shell", "bash"),
        ("gtk-plus/x", "gtk+"),
    ],
)
def test_the_first_package_is_the_one_that_the_client_named_first(repository: str, first: str) -> None:
    request = parse(repository)

    assert request is not None
    assert request.first == first


@given(st.text(), st.text())
def test_no_text_raises_anything_but_name_invalid(repository: str, reference: str) -> None:
    with suppress(NameInvalid):  # a meta-package alone
        request = parse(repository, reference)

        assert request is None or request.repository == repository


def test_a_name_that_is_too_long_for_a_registry_is_never_built() -> None:
    assert parse("x" * LONGEST_REPOSITORY) is not None
    assert parse("x" * (LONGEST_REPOSITORY + 1)) is None
    assert not is_repository("/".join(["x"] * LONGEST_REPOSITORY))


@given(st.lists(COMPONENTS, max_size=8))
def test_every_well_formed_path_is_read(components: list[str]) -> None:
    components = ["x", *components]  # not the shell
    assume(len("/".join(components)) <= LONGEST_REPOSITORY)

    request = parse("/".join(components))

    assert request is not None
    assert request.attributes == tuple(dict.fromkeys(components))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["a", "a-", "a--", "a_a__", "a.", "a/", "0-a/"])
def test_a_hostile_name_is_read_in_no_time(piece: str) -> None:
    repository = piece * 20_000 + "!"  # it never matches, so every way to match is tried

    assert parse(repository) is None
