"""Names and mistakes, a row each, against one running nixfront and a real Nix: the request, the outcome, the text."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.front import PACKAGES, Front, front
from tests.support.servers import stock_registry

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Requests that become an image, and a member that shows which packages are in it.
IMAGES = [
    # as they are
    ("hello", "bin/hello"),
    ("alpha", "bin/alpha"),
    ("twice", "bin/twice"),
    ("hello/alpha", "bin/alpha"),
    ("hello/hello", "bin/hello"),
    # case, at every level
    ("camelcase.innerpackage", "bin/inner"),
    ("haskellpackages.shellcheck", "bin/shellcheck"),
    ("python3packages.numpy", "lib/libnumpy.so"),
    ("python3packages.numeric_py", "lib/libnumericpy.so"),
    ("deep.er.and.deeper", "bin/deeper"),
    ("singleprogram", "bin/single-program"),
    # digits in front
    ("7zz", "bin/7zz"),
    # what the grammar cannot spell
    ("gtk--2b", "bin/gtk"),
    ("libstdc--2b--2b", "lib/liblibstdc.so"),
    ("a--5f--5f--5fb", "bin/ab"),
    ("lua5--2e4", "bin/lua"),
    # the operator's own words
    ("gtk-plus", "bin/gtk"),
    ("shellcheck", "bin/shellcheck"),
    # meta-packages
    ("shell", "bin/sponge"),
    ("shell/git", "bin/git"),
    ("shell/hello", "bin/hello"),
    ("ci", "bin/grep"),
    ("ci/hello", "usr/bin/env"),
    ("ci", "bin/awk"),
    ("ci", "lib64/ld-linux-x86-64.so.2"),
    ("debug", "bin/strace"),
    ("foreign/hello", "lib64/ld-linux-x86-64.so.2"),
    ("foreign/hello", "lib/libc.so.6"),
    ("foreign/hello", "lib/libssl.so"),
    ("user/hello", "home/user"),
    ("shell/user/hello", "home/user"),
    ("user/shell/hello", "home/user"),
    ("tz/hello", "share/zoneinfo"),
    ("locale/hello", "lib/locale"),
    ("amd64/hello", "bin/hello"),
    ("tools", "bin/alpha"),
    # package sets
    ("other/hello", "bin/hello"),
    ("other/shell/hello", "bin/bash"),
    ("other/7zz", "bin/7zz"),
    # outputs
    ("several", "bin/several"),
    ("several.dev", "include"),
    ("propagating", "bin/alpha"),
    # allowed by this operator
    ("insecure", "bin/insecure"),
]

# Requests that do not, and what the person reads.
MISTAKES = [
    # one name
    ("hello/shell", "no package shell"),
    ("deep--2eer", "no package deep--2eer"),
    ("helo", "no package helo, did you mean hello?"),
    ("qqqqqqqqqq", "no package qqqqqqqqqq (package set path of "),
    ("7z", "no package 7z, did you mean _7zz?"),
    ("numpy", "no package numpy, did you mean python3Packages.numpy?"),
    ("shell/numeric_py", "did you mean python3Packages.Numeric_Py?"),
    # several at once
    ("helo/alpah", "no package alpah, did you mean alpha?"),
    ("helo/alpah", "no package helo, did you mean hello?"),
    ("hello/nosuch", "no package nosuch"),
    ("helo/alpah/nosuchthing", "no package nosuchthing"),
    ("shell/nosuch", "shell in front stands for bashInteractive, coreutils, moreutils, nano"),
    # at a level
    ("camelcase.innerpakage", "(camelCase has no innerpakage), did you mean camelCase.innerPackage?"),
    ("camelcas.innerpackage", "no package camelcas.innerpackage, did you mean camelCase?"),
    ("haskellpackages.shelcheck", "did you mean haskellPackages.ShellCheck?"),
    ("python3packages", "python3Packages is no package but a set"),
    ("deep.er.and", "deep.er.and is no package but a set"),
    ("deep.er.nothing.more", "(deep.er has no nothing)"),
    ("hello.meta", "hello.meta is no package but a set"),
    ("hello.meta.description", "hello.meta.description is no package but a string"),
    ("hello.nosuch.deeper", "(hello has no nosuch)"),
    ("hello.name.deeper", "(hello.name has no deeper)"),
    # two that fit
    ("samename", "samename could be sameName and samenamE, which differ only in case"),
    # not packages
    ("notapackage", "notAPackage is no package but a set"),
    ("afunction", "aFunction is no package but a lambda"),
    ("anull", "aNull is no package but a null"),
    ("circle.circle.circle", "circle.circle.circle is no package but a set"),
    ("circle.circle.circle.circle.circle.circle.circle.circle.hello", "has more than 8 parts"),
    # refused
    ("unfree", "unfree-1.0 has the unfree licence unfreeRedistributable; policy.allow_unfree would allow it"),
    ("halffree", "half-free-1.0 has the unfree licence Secret Licence; policy.allow_unfree would allow it"),
    (
        "hello/unfree/markedbroken",
        "marked-broken-1.0 is marked as broken; policy.allow_broken would allow it",
    ),
    ("markedbroken", "marked-broken-1.0 is marked as broken; policy.allow_broken would allow it"),
    ("othersystem", "other-system-1.0 is not made for this system, but for riscv64-linux, x86_64-darwin"),
    (
        "copyleft",
        "copyleft-1.0 has the licence GPL-3.0-or-later, which policy.deny_licenses of this host names",
    ),
    ("beta", "beta-1.0 is named by policy.deny_packages of this host"),
    ("thrownunfree", "has an unfree license"),
    ("thrownunfree", "policy.allow_unfree"),
    # evaluation that fails
    ("refused", "refused has been removed, use hello"),
    ("asserting", "assertion"),
    ("aborting", "this is how it aborts"),
    ("loop", "infinite recursion"),
    ("nosystem", "system"),
    # restricted evaluation
    ("importing", "(import from derivation), which is not allowed here"),
    ("reading", "forbidden in restricted mode"),
    ("fetching", "forbidden in restricted mode"),
    # builds that fail
    ("broken", "building broken failed: builder for"),
    ("broken", "this is how it failed"),
    ("needsbroken", "this is how it failed"),
    ("singlefile", "single-file is a single file"),
    # names that engines take for orders
    ("hello/whiteout", "-whiteout-1.0/.wh.nix: engines read a name that begins with .wh."),
    (
        "whiteoutinside",
        "-whiteout-inside-1.0/share/deep/.wh..wh..opq: engines read a name that begins with .wh.",
    ),
    # names in the wrong place
    ("hello/shell", "shell is a meta-package and comes first: shell/hello (no package shell"),
    ("images/x", "this host has no named images, as its setting images.file is empty (no package images"),
    # a store in the image
    ("hello/nix", "nix cannot be a package of an image: it has no database of the image's store paths"),
    # too much
    ("large", "policy.most_bytes of this host allows 4 MB"),
    # nothing at all
    ("user", "'user' names no package"),
    ("amd64", "'amd64' names no package"),
    ("other", "'other' names no package"),
    # escapes
    ("hello--00", "--00 in 'hello--00' stands for no visible character"),
    ("hello--ff", "--ff in 'hello--ff' stands for no visible character"),
    # injection: all of it is data
    ("hello--22--3bbuiltins", "no package hello--22--3bbuiltins"),
    ("a--24--7bthrow--7d", "no package a--24--7bthrow--7d"),
]

TAGS = [
    ("v1.2", "tag 'v1.2' names no revision of package set path: a path has no revisions"),
    ("2026-01-31", "tag '2026-01-31' names no revision"),
    ("0" * 40, f"tag '{'0' * 40}' names no revision"),
    ("nixos-unstable", "tag 'nixos-unstable' names no revision"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Front]:
    folder = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(
            "NIX_CONFIG", "substituters =\nsandbox = true\nextra-sandbox-paths = /bin /usr /lib /lib64\n"
        )
        (folder / "registry").mkdir()
        async with (
            stock_registry(folder / "registry") as registry,
            front(
                folder,
                folder / "count",
                registry.url,
                sets={"other": {"kind": "path", "path": str(PACKAGES)}},
                names={
                    "aliases": {"gtk-plus": "gtk+", "shellcheck": "haskellPackages.ShellCheck"},
                    "presets": {"tools": {"packages": ("alpha", "hello")}},
                },
                policy={
                    "allow_insecure": ("insecure-1.0",),
                    "deny_licenses": ("GPL-3.0-or-later",),
                    "deny_packages": ("beta",),
                    "most_bytes": 4_000_000,
                },
            ) as started,
        ):
            yield started


@pytest.mark.parametrize(("repository", "member"), IMAGES)
async def test_it_becomes_an_image(running: Front, repository: str, member: str) -> None:
    image = await running.pull(repository)

    assert member in image.files


@pytest.mark.parametrize(("repository", "message"), MISTAKES)
async def test_the_mistake_is_said(running: Front, repository: str, message: str) -> None:
    status, headers, body = await running.get(f"/v2/{repository}/manifests/latest")

    (error,) = json.loads(body)["errors"]
    assert status == 404
    assert message in error["message"]
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(("tag", "message"), TAGS)
async def test_the_tag_that_is_none_is_said(running: Front, tag: str, message: str) -> None:
    status, _, body = await running.get(f"/v2/hello/manifests/{tag}")

    assert status == 404
    assert message in json.loads(body)["errors"][0]["message"]
