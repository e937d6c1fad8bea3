"""Repository paths and tags: what they ask for, and what is none of our business."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import names
from proxy.errors import NameInvalid
from proxy.model import ImageRequest

HEX = "0123456789abcdef" * 4
COMPONENTS = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", fullmatch=True)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/v2/git/manifests/latest", ("git", "latest"), id="one component"),
        pytest.param("/v2/shell/git/manifests/latest", ("shell/git", "latest"), id="two components"),
        pytest.param(
            "/v2/a/manifests/b/manifests/c", ("a/manifests/b", "c"), id="a component named manifests"
        ),
        pytest.param(f"/v2/a/manifests/sha256:{HEX}", ("a", f"sha256:{HEX}"), id="a digest"),
        pytest.param("/v2/a%2Fb/manifests/latest", ("a%2Fb", "latest"), id="kept as it came over the wire"),
        pytest.param("/v2/", None, id="the version check"),
        pytest.param("/v2/_catalog", None, id="the catalog"),
        pytest.param("/v2/git/blobs/sha256:00", None, id="a blob"),
        pytest.param("/v2/git/tags/list", None, id="tags"),
        pytest.param("/v2/manifests/latest", None, id="no repository"),
        pytest.param("/v2/git/manifests/", None, id="no reference"),
        pytest.param("/v2/git/manifests/latest/", None, id="a slash at the end"),
        pytest.param("/v1/git/manifests/latest", None, id="another version"),
        pytest.param("/x/v2/git/manifests/latest", None, id="something before"),
    ],
)
def test_manifest_paths_are_told_from_all_others(path: str, expected: tuple[str, str] | None) -> None:
    assert names.manifest_route(path) == expected


@pytest.mark.parametrize(
    ("repository", "attributes", "shell"),
    [
        pytest.param("git", ("git",), False, id="one package"),
        pytest.param("git/htop", ("git", "htop"), False, id="two, first-named first"),
        pytest.param("htop/git", ("htop", "git"), False, id="the other order"),
        pytest.param("git/htop/git", ("git", "htop"), False, id="nothing twice"),
        pytest.param("python3packages.numpy", ("python3packages.numpy",), False, id="an attribute path"),
        pytest.param("g__plus/a-b/a--b", ("g__plus", "a-b", "a--b"), False, id="every separator"),
        pytest.param("shell", names.SHELL, True, id="the shell alone"),
        pytest.param("shell/git", (*names.SHELL, "git"), True, id="the shell comes first"),
        pytest.param("shell/nano/git", (*names.SHELL, "git"), True, id="a part of the shell named again"),
        pytest.param("git/shell", ("git", "shell"), False, id="shell in another place is a package"),
        pytest.param("shell/shell", (*names.SHELL, "shell"), True, id="so is a second one"),
        pytest.param("shellcheck", ("shellcheck",), False, id="a longer word is no shell"),
    ],
)
def test_a_path_names_its_packages_in_order(
    repository: str, attributes: tuple[str, ...], shell: bool
) -> None:
    assert names.parse(repository, "latest") == ImageRequest(repository, "latest", attributes, shell)


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
    request = names.parse("git", reference)

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
    assert names.parse(repository, reference) is None


def test_sixty_four_packages_are_allowed() -> None:
    repository = "/".join(f"p{number}" for number in range(64))

    request = names.parse(repository, "latest")

    assert request is not None
    assert len(request.attributes) == 64


@pytest.mark.parametrize(
    ("repository", "count"),
    [
        pytest.param("/".join(f"p{number}" for number in range(65)), 65, id="packages"),
        pytest.param("shell/" + "/".join(f"p{number}" for number in range(61)), 65, id="the shell counts"),
    ],
)
def test_one_package_too_many_is_refused_with_the_count(repository: str, count: int) -> None:
    with pytest.raises(NameInvalid, match=f"names {count} packages; one image may name at most 64"):
        names.parse(repository, "latest")


def test_repeating_a_name_is_not_asking_for_more() -> None:
    request = names.parse("/".join(["git"] * 100), "latest")

    assert request is not None
    assert request.attributes == ("git",)


@given(st.text(), st.text())
def test_no_text_raises_anything_but_name_invalid(repository: str, reference: str) -> None:
    request = names.parse(repository, reference)

    assert request is None or request.repository == repository


@given(st.text(alphabet="/v2manifests.:-"))
def test_no_path_raises(path: str) -> None:
    found = names.manifest_route(path)

    assert found is None or f"/v2/{found[0]}/manifests/{found[1]}" == path


@given(st.lists(COMPONENTS, max_size=8))
def test_every_well_formed_path_is_read(components: list[str]) -> None:
    components = ["x", *components]  # not the shell

    request = names.parse("/".join(components), "latest")

    assert request is not None
    assert request.attributes == tuple(dict.fromkeys(components))


@pytest.mark.timeout(5)
@pytest.mark.parametrize("piece", ["a", "a-", "a--", "a_a__", "a.", "a/", "0-a/"])
def test_a_hostile_name_is_read_in_no_time(piece: str) -> None:
    repository = piece * 20_000 + "!"  # it never matches, so every way to match is tried

    assert names.parse(repository, "latest") is None
