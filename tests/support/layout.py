"""An OCI image layout on disk, as the validator takes an image."""

import hashlib
import json
from pathlib import Path
from typing import Any

from proxy.core.model import OCI_INDEX
from tests.support.image import FetchedImage

REF_NAME = "org.opencontainers.image.ref.name"


def named_in(folder: Path, reference: str) -> dict[str, Any]:
    """The descriptor of this name. Raises `AssertionError` if the layout is none, or has none or several of the name."""
    assert json.loads((folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((folder / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    assert index["mediaType"] == OCI_INDEX
    for blob in (folder / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    (named,) = [item for item in index["manifests"] if item["annotations"][REF_NAME] == reference]
    return dict(named)


def read_layout(folder: Path, reference: str) -> FetchedImage:
    """The image of this name, which may be the only one of an index. Raises `AssertionError` as `named_in` does."""
    named = named_in(folder, reference)
    if named["mediaType"] == OCI_INDEX:
        (named,) = json.loads(_blob(folder, named).read_bytes())["manifests"]
    manifest = _blob(folder, named).read_bytes()
    assert len(manifest) == named["size"]
    value = json.loads(manifest)
    layers = tuple(_blob(folder, layer) for layer in value["layers"])
    config = _blob(folder, value["config"]).read_bytes()
    return FetchedImage(manifest, named["mediaType"], named["digest"], config, layers)


def _blob(folder: Path, descriptor: dict[str, Any]) -> Path:
    return folder.joinpath("blobs", *descriptor["digest"].split(":"))
