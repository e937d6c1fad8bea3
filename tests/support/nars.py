"""NARs and binary caches made by hand, honest ones and others."""

import base64
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

#: A directory by names, the bytes of a file, or a file that runs, or a link.
Tree = dict[str, "Tree"] | bytes | tuple[str, bytes] | str
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = "test-1:" + base64.b64encode(KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
_DIGITS = "0123456789abcdfghijklmnpqrsvwxyz"


def text(data: bytes) -> bytes:
    """A string in a NAR."""
    return struct.pack("<Q", len(data)) + data + bytes(-len(data) % 8)


def texts(*data: bytes) -> bytes:
    return b"".join(map(text, data))


def node(tree: Tree) -> bytes:
    """A member of a NAR. A text is a link, a pair has the text `x` and the bytes of a program."""
    if isinstance(tree, dict):
        inner = b"".join(
            texts(b"entry", b"(", b"name", name.encode("utf-8", "surrogateescape"), b"node")
            + node(tree[name])
            + text(b")")
            for name in sorted(tree, key=lambda name: name.encode("utf-8", "surrogateescape"))
        )
        return texts(b"(", b"type", b"directory") + inner + text(b")")
    if isinstance(tree, str):
        return texts(b"(", b"type", b"symlink", b"target", tree.encode(), b")")
    mark, content = (texts(b"executable", b""), tree[1]) if isinstance(tree, tuple) else (b"", tree)
    return texts(b"(", b"type", b"regular") + mark + texts(b"contents", content) + text(b")")


def nar(tree: Tree) -> bytes:
    """The NAR of a tree."""
    return text(b"nix-archive-1") + node(tree)


def write(tree: Tree, place: Path) -> None:
    """The same tree on disk."""
    if isinstance(tree, dict):
        place.mkdir(parents=True)
        for name, inner in tree.items():
            write(inner, place / name)
    elif isinstance(tree, str):
        place.symlink_to(tree)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(tree[1] if isinstance(tree, tuple) else tree)
        place.chmod(0o555 if isinstance(tree, tuple) else 0o444)


def listing(tree: Tree) -> dict[str, object]:
    """What a cache lists of a tree."""
    if isinstance(tree, dict):
        return {"type": "directory", "entries": {name: listing(inner) for name, inner in tree.items()}}
    if isinstance(tree, str):
        return {"type": "symlink", "target": tree}
    return {"type": "regular", "executable": isinstance(tree, tuple)}


def base32(value: bytes) -> str:
    """A hash as Nix writes it."""
    number = int.from_bytes(value, "little")
    return "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(52)))


def store_path(name: str) -> str:
    """A store path of this name, always the same."""
    return f"/nix/store/{base32(hashlib.sha256(name.encode()).digest())[:32]}-{name}"


@dataclass(slots=True)
class HandmadeCache:
    """A binary cache in a folder."""

    folder: Path
    priority: int = 40
    listings: bool = False
    trees: dict[str, Tree] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "nar").mkdir(parents=True)
        info = f"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: {self.priority}\n"
        (self.folder / "nix-cache-info").write_text(info)

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    def add(self, name: str, tree: Tree, needs: tuple[str, ...] = (), **changes: str) -> str:
        """Add a package and return its store path. `changes` are fields of the narinfo, made after it was signed."""
        path, data = store_path(name), nar(tree)
        self.trees[path] = tree
        packed = zstandard.compress(data)
        self.file_of(path).write_bytes(packed)
        references = [store_path(need) for need in needs]
        nar_hash = f"sha256:{base32(hashlib.sha256(data).digest())}"
        signed = f"1;{path};{nar_hash};{len(data)};{','.join(sorted(references))}"
        fields: Mapping[str, str] = {
            "StorePath": path,
            "URL": f"nar/{name}.nar.zst",
            "Compression": "zstd",
            "FileHash": f"sha256:{base32(hashlib.sha256(packed).digest())}",
            "FileSize": str(len(packed)),
            "NarHash": nar_hash,
            "NarSize": str(len(data)),
            "References": " ".join(reference.rpartition("/")[2] for reference in references),
            "Sig": "test-1:" + base64.b64encode(KEY.sign(signed.encode())).decode(),
            **changes,
        }
        hash_part = path.rpartition("/")[2].partition("-")[0]
        lines = "".join(f"{key}: {value}\n" for key, value in fields.items())
        (self.folder / f"{hash_part}.narinfo").write_text(lines)
        if self.listings:
            (self.folder / f"{hash_part}.ls").write_text(json.dumps({"version": 1, "root": listing(tree)}))
        return path

    def file_of(self, path: str) -> Path:
        """The file of the NAR of this store path."""
        return self.folder / "nar" / f"{path.partition('-')[2]}.nar.zst"
