"""A narinfo: what a binary cache says about a store path, and whether a key that we trust has signed it.

The signature covers path, NAR hash, NAR size and references. The rest (where the file is, how it is compressed, its own hash) may
be wrong, and costs no more than a download: the NAR hash decides.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from proxy.core.errors import CacheUnusable
from proxy.core.model import PathInfo
from proxy.core.names import is_store_path

_FOLDER = "/nix/store/"
#: Bytes of the largest NAR that we take, and references of a path.
_MOST_NAR = 1 << 38
_MOST_REFERENCES = 20_000
#: Signatures of one narinfo that we look at. Each costs a hash of all that is signed.
_MOST_SIGNATURES = 16
# The alphabet of Nix's own base 32, which has no e, o, t and u.
_DIGITS = "0123456789abcdfghijklmnpqrsvwxyz"
_FILE = re.compile(r"[\w.+=?&%~,@-]+(?:/[\w.+=?&%~,@-]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class NarInfo:
    """A store path of a cache. `file` is relative to the cache; `file_hash` is empty and `file_size` 0 where it says none.

    `references` has the path itself too, where it refers to itself.
    """

    path: str
    nar_hash: bytes
    nar_size: int
    references: tuple[str, ...]
    file: str
    compression: str
    file_hash: bytes = b""
    file_size: int = 0
    signatures: tuple[str, ...] = ()

    @property
    def info(self) -> PathInfo:
        """The same facts as Nix says them of a path in a store."""
        return PathInfo(self.path, self.nar_size, tuple(sorted(set(self.references) - {self.path})))

    @property
    def fingerprint(self) -> bytes:
        """What a signature signs."""
        references = ",".join(sorted(set(self.references)))
        return f"1;{self.path};sha256:{_to_base32(self.nar_hash)};{self.nar_size};{references}".encode()


def read_fields(text: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The fields of a narinfo by name, and its signatures. Raises `ValueError` for a field that is there twice."""
    fields: dict[str, str] = {}
    signatures: list[str] = []
    for line in text.splitlines():
        name, separator, value = line.partition(": ")
        if name == "Sig" and separator:
            signatures.append(value)
        elif separator and fields.setdefault(name, value) is not value:
            raise ValueError(f"it says {name} twice"[:200])
    return fields, tuple(signatures)


def parse(text: str, path: str) -> NarInfo:
    """The narinfo of this store path. Raises `CacheUnusable` for a text that is something else."""
    try:
        fields, signatures = read_fields(text)
        info = NarInfo(
            path=fields["StorePath"],
            nar_hash=_hash(fields["NarHash"]),
            nar_size=_size(fields["NarSize"]),
            references=tuple(_FOLDER + name for name in fields.get("References", "").split()),
            file=fields["URL"],
            compression=fields.get("Compression") or "bzip2",  # as Nix reads it
            file_hash=_hash(fields["FileHash"]) if "FileHash" in fields else b"",
            file_size=_size(fields["FileSize"]) if "FileSize" in fields else 0,
            signatures=signatures,
        )
    except (KeyError, ValueError) as error:
        raise CacheUnusable(f"its narinfo of {path} is none: {error}") from error
    _check(info, path)
    return info


def _check(info: NarInfo, path: str) -> None:
    if info.path != path:
        raise CacheUnusable(f"it answers with {info.path[:200]} where we want {path}")
    if len(info.references) > _MOST_REFERENCES or not all(map(is_store_path, info.references)):
        raise CacheUnusable(f"its narinfo of {path} has references that are no store paths")
    # An absolute address would let the cache choose a host for us, and `..` a file. An address means the same with `%2e` in it.
    if not _FILE.fullmatch(info.file) or ".." in unquote(info.file).split("/"):
        raise CacheUnusable(f"its narinfo of {path} names no file of the cache: {info.file[:200]}")


class Keys:
    """The public keys that we trust, as `trusted-public-keys` of Nix has them: `NAME:BASE64`."""

    def __init__(self, keys: Iterable[str]) -> None:
        """A key that is none counts as absent; Nix itself ends with an error for it."""
        self._keys: Mapping[str, Ed25519PublicKey] = dict(filter(None, map(_key, keys)))

    def trust(self, info: NarInfo) -> bool:
        """Whether one of these keys has signed the narinfo. Of signatures by these keys only the first few count."""
        signatures = (signature.partition(":") for signature in info.signatures)
        candidates = [
            (key, text) for name, _, text in signatures if (key := self._keys.get(name)) is not None
        ][:_MOST_SIGNATURES]
        fingerprint = info.fingerprint if candidates else b""
        return any(_has_signed(key, text, fingerprint) for key, text in candidates)


def _has_signed(key: Ed25519PublicKey, signature: str, fingerprint: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), fingerprint)
    except (InvalidSignature, binascii.Error):
        return False
    return True


def _key(text: str) -> tuple[str, Ed25519PublicKey] | None:
    name, _, data = text.partition(":")
    try:
        return name, Ed25519PublicKey.from_public_bytes(base64.b64decode(data, validate=True))
    except ValueError:
        return None


def hash_of(path: str) -> str:
    """The part of a store path by which a cache files it."""
    return path.rpartition("/")[2].partition("-")[0]


def _hash(text: str) -> bytes:
    """The bytes of a SHA-256 in any of Nix's forms: `sha256:` with base 16, 32 or 64, or SRI. Raises `ValueError`."""
    kind, separator, digits = text.partition("-" if text.startswith("sha256-") else ":")
    if kind != "sha256" or not separator:
        raise ValueError(f"no SHA-256: {text[:100]}")
    if len(digits) == 64:
        return bytes.fromhex(digits)
    value = _from_base32(digits) if len(digits) == 52 else base64.b64decode(digits, validate=True)
    if len(value) != 32:
        raise ValueError(f"no SHA-256: {text[:100]}")
    return value


def _from_base32(text: str) -> bytes:
    number = 0
    for digit in text:
        number = number << 5 | _DIGITS.index(digit)
    if number >> 256:
        raise ValueError(f"no SHA-256: {text}")
    return number.to_bytes(32, "little")


def _to_base32(value: bytes) -> str:
    number = int.from_bytes(value, "little")
    return "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(52)))


def _size(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _MOST_NAR):
        raise ValueError(f"no size that we take: {text[:100]}")
    return int(text)
