"""What a narinfo says, and who signed it."""

import base64
import hashlib

import pytest

from proxy.core.errors import CacheUnusable
from proxy.core.model import PathInfo
from proxy.nix.cache import narinfo
from proxy.nix.cache.narinfo import Keys, parse
from tests.support.nars import PUBLIC

# A real path of cache.nixos.org, signed there.
PATH = "/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-net-tools-1.60_p20170221182432"
TEXT = f"""StorePath: {PATH}
URL: nar/1094wph9z4nwlgvsd53abfz8i117ykiv5dwnq9nnhz846s7xqd7d.nar.xz
Compression: xz
FileHash: sha256:1094wph9z4nwlgvsd53abfz8i117ykiv5dwnq9nnhz846s7xqd7d
FileSize: 114980
NarHash: sha256:0lxjvvpr59c2mdram7ympy5ay741f180kv3349hvfc3f8nrmbqf6
NarSize: 464152
References: 7gx4kiv5m0i7d7qkixq2cwzbr10lvxwc-glibc-2.27
Deriver: 10dx1q4ivjb115y3h90mipaaz533nr0d-net-tools-1.60_p20170221182432.drv
Sig: cache.nixos.org-1:sn5s/RrqEI+YG6/PjwdbPjcAC7rcta7sJU4mFOawGvJBLsWkyLtBrT2EuFt/LJjWkTZ+ZWOI9NTtjo/woMdvAg==
Sig: hydra.other.net-1:JXQ3Z/PXf0EZSFkFioa4FbyYpbbTbHlFBtZf4VqU0tuMTWzhMD7p9Q7acJjLn3jofOtilAAwRILKIfVuyrbjAA==
"""
NIXOS = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="


def test_it_says_what_nix_would_say_of_the_path() -> None:
    info = parse(TEXT, PATH)

    assert info.info == PathInfo(PATH, 464152, ("/nix/store/7gx4kiv5m0i7d7qkixq2cwzbr10lvxwc-glibc-2.27",))
    assert (info.compression, info.file_size) == ("xz", 114980)
    assert b"sha256:0lxjvvpr59c2mdram7ympy5ay741f180kv3349hvfc3f8nrmbqf6;464152;" in info.fingerprint


def test_a_signature_of_cache_nixos_org_counts_with_its_key() -> None:
    info = parse(TEXT, PATH)

    assert Keys([PUBLIC, "nonsense", "short:AAAA", NIXOS]).trust(info)
    assert not Keys([PUBLIC]).trust(info)
    assert not Keys(["cache.nixos.org-1:" + PUBLIC.partition(":")[2]]).trust(info)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("NarSize: 464152", "NarSize: 464153"),
        ("NarHash: sha256:0lxj", "NarHash: sha256:0lxk"),
        ("-glibc-2.27", "-glibc-2.28"),
        ("sn5s/", "sn5t/"),
        ("cache.nixos.org-1:sn5s", "cache.nixos.org-1:!"),
    ],
)
def test_what_is_signed_cannot_change(old: str, new: str) -> None:
    assert not Keys([NIXOS]).trust(parse(TEXT.replace(old, new), PATH))


def test_signatures_cost_no_more_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A narinfo may be large, and each signature signs all of it."""
    fingerprints: list[bytes] = []
    to_base32 = narinfo._to_base32

    def count(value: bytes) -> str:
        fingerprints.append(value)
        return to_base32(value)

    monkeypatch.setattr(narinfo, "_to_base32", count)
    wrong = f"Sig: {NIXOS.partition(':')[0]}:{base64.b64encode(bytes(64)).decode()}\n"
    unknown = f"Sig: other-1:{base64.b64encode(bytes(64)).decode()}\n"
    head, _, tail = TEXT.partition("Sig: ")

    assert Keys([NIXOS]).trust(parse(f"{head}{unknown * 500}{wrong * 15}Sig: {tail}", PATH))
    assert not Keys([NIXOS]).trust(parse(f"{head}{wrong * 16}Sig: {tail}", PATH)), "the first 16 count"
    assert not Keys([NIXOS]).trust(parse(head + unknown * 500, PATH))
    assert len(fingerprints) == 2


def test_a_hash_has_four_forms() -> None:
    value = hashlib.sha256(b"x").digest()
    hashes = {
        parse(
            TEXT.replace("sha256:0lxjvvpr59c2mdram7ympy5ay741f180kv3349hvfc3f8nrmbqf6", form), PATH
        ).nar_hash
        for form in (
            f"sha256:{value.hex()}",
            f"sha256:{base64.b64encode(value).decode()}",
            f"sha256-{base64.b64encode(value).decode()}",
        )
    }
    assert hashes == {value}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f"StorePath: {PATH}", f"StorePath: {PATH}x"),
        ("StorePath", "Store"),
        ("URL: nar/", "URL: http://10.0.0.1/nar/"),
        ("URL: nar/", "URL: /etc/"),
        ("URL: nar/", "URL: ../"),
        ("URL: nar/", "URL: nar/../../"),
        ("URL: nar/", "URL: nar/%2e%2E/"),
        ("URL: nar/", "URL: nar/.%2e%2f"),
        ("URL: nar/", "URL: nar/%0d%0aX: y\x00"),
        ("NarSize: 464152", "NarSize: -1"),
        ("NarSize: 464152", "NarSize: 99999999999999999999"),
        ("NarSize: 464152", "NarSize: 464152\nNarSize: 1"),
        ("NarHash: sha256:0lxj", "NarHash: sha256:0lx"),
        ("NarHash: sha256:0lxj", "NarHash: sha256:zlxj"),
        ("NarHash: sha256:0lxj", "NarHash: md5:0lxj"),
        ("References: 7gx", "References: ../"),
        ("StorePath: ", "<html>"),
    ],
)
def test_what_is_no_narinfo_is_refused(old: str, new: str) -> None:
    with pytest.raises(CacheUnusable):
        parse(TEXT.replace(old, new), PATH)
