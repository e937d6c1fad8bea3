"""The layers of an image, and the store paths in each layer, as the registry has them.

The history in nixfront's images names the store paths of every layer, so this needs neither Nix nor a state.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from proxy.core import foreign
from proxy.core.errors import RegistryUnavailable, TagUnknown
from proxy.core.foreign import DocumentInvalid
from proxy.core.model import EVERY_MANIFEST_TYPE
from proxy.image.documents import (
    Child,
    ImageConfig,
    ImageManifest,
    Index,
    Manifest,
    read_config,
    read_manifest,
)
from proxy.image.environment import REASONS
from proxy.image.recipe import EVERYWHERE, OF_ANY_USER, OF_USER
from proxy.registry.client import LARGEST_DOCUMENT
from proxy.registry.endpoint import OpenEndpoint
from proxy.registry.login import pull_scopes
from proxy.registry.no_answer import why

_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10)  # the image may be built first


@dataclass(frozen=True, slots=True)
class LayerExplanation:
    """A layer: its blob, its DiffID, its store paths (none in the root layer), and the comment in its history."""

    digest: str
    size: int
    diff_id: str
    store_paths: tuple[str, ...]
    comment: str = ""


@dataclass(frozen=True, slots=True)
class VariableExplanation:
    """A variable of the image, and why it has it."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """An image: the digest of its manifest, its labels, its layers, lowest first, and how a container of it starts.

    `run` holds what image-spec calls the execution parameters (`Entrypoint`, `Cmd`, `User`, ...), without labels. `environment`
    explains its `Env`; `notes` names libraries that no interpreter of the image can use.

    For an image of an index, `index` is the digest of that, `platform` the image's own, and `platforms` are all. `missing`
    has the reason for each platform that the index lacks.
    """

    name: str
    digest: str
    media_type: str
    created: str
    labels: dict[str, str]
    layers: tuple[LayerExplanation, ...]
    run: dict[str, Any] = field(default_factory=dict)
    environment: tuple[VariableExplanation, ...] = ()
    notes: tuple[str, ...] = ()
    index: str = ""
    platform: str = ""
    platforms: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)


async def explain(registry: OpenEndpoint, repository: str, reference: str, platform: str = "") -> Explanation:
    """The image with this tag or digest. `registry` may be a nixfront, which then builds an image that does not exist.

    Of an index it is the image of this `platform`, or the first one. Raises `TagUnknown` with the registry's reason, and
    `RegistryUnavailable`.
    """
    name = f"{repository}:{reference}"
    path = f"/v2/{repository}"
    scopes = pull_scopes(repository)
    try:
        manifest, digest = await manifest_of(registry, repository, reference)
        of_index: dict[str, Any] = {}
        if isinstance(manifest, Index):
            child = child_of(name, manifest, platform)
            of_index = {
                "index": digest,
                "platform": child.platform,
                "platforms": tuple(each.platform for each in manifest.children),
                "missing": dict(manifest.missing),
            }
            manifest, digest = await manifest_of(registry, repository, child.digest)
        if not isinstance(manifest, ImageManifest):
            raise TagUnknown(f"{name} is not a single image but {manifest.media_type or 'something else'}")
        config_path = f"{path}/blobs/{manifest.config.digest}"
        async with registry.ask("GET", config_path, scopes, timeout=_TIMEOUT) as answer:
            if answer.status == 404:
                raise TagUnknown(f"{name} has no configuration in the registry")
            answer.raise_for_status()
            config = read_config(await _read(answer))
    except DocumentInvalid as error:
        raise TagUnknown(f"{name} is no image that nixfront can read: {error}") from error
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise RegistryUnavailable(f"cannot read {name} from {registry.url}: {why(error)}") from error
    return replace(_explanation(name, digest, manifest, config), **of_index)


async def manifest_of(registry: OpenEndpoint, repository: str, reference: str) -> tuple[Manifest, str]:
    """The manifest, and its digest. Raises `TagUnknown`, `DocumentInvalid`, and what aiohttp raises."""
    headers = {"Accept": EVERY_MANIFEST_TYPE}
    target = f"/v2/{repository}/manifests/{reference}"
    async with registry.ask("GET", target, pull_scopes(repository), headers, timeout=_TIMEOUT) as answer:
        body = await _read(answer)
        if answer.status == 404:
            raise TagUnknown(_reason(body))
        answer.raise_for_status()
        return read_manifest(body), answer.headers.get("Docker-Content-Digest", "")


def child_of(name: str, index: Index, platform: str) -> Child:
    """The image of this platform, or the first one. Raises `TagUnknown`."""
    for child in index.children:
        if platform in ("", child.platform):
            return child
    names = ", ".join(child.platform for child in index.children) or "no platform"
    missing = dict(index.missing).get(platform, "")
    reason = f": {missing}" if missing else f"; it has {names}"
    raise TagUnknown(f"{name} has no image for {platform or 'any platform'}{reason}")


def _explanation(name: str, digest: str, manifest: ImageManifest, config: ImageConfig) -> Explanation:
    comments = [step.comment for step in config.steps]
    comments += [""] * (len(manifest.layers) - len(comments))
    layers = tuple(
        LayerExplanation(
            digest=layer.digest,
            size=layer.size,
            diff_id=diff_id,
            store_paths=tuple(word for word in comment.split() if word.startswith("/nix/store/")),
            comment=comment,
        )
        for layer, diff_id, comment in zip(manifest.layers, config.diff_ids, comments, strict=False)
    )
    labels = dict(config.labels)
    reasons, notes = _reasons(labels.pop(REASONS, ""))
    return Explanation(
        name,
        digest,
        manifest.media_type,
        config.created,
        labels,
        layers,
        dict(config.run),
        environment=tuple(_variables(config.run.get("Env"), reasons)),
        notes=notes,
    )


def _variables(lines: object, reasons: Mapping[str, str]) -> Iterable[VariableExplanation]:
    """The variables of `Env`, each with its reason."""
    for line in lines if isinstance(lines, list) else ():
        name, _, value = str(line).partition("=")
        if name in reasons:
            reason = reasons[name]
        elif EVERYWHERE.get(name) == value:
            reason = "every image has it"
        elif OF_ANY_USER.get(name) == value:
            reason = "every user may write there"
        elif OF_USER.get(name) == value:
            reason = "the image has this user"
        else:
            reason = "a meta-package or the definition of the image sets it"
        yield VariableExplanation(name, value, reason)


def _reasons(label: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The reasons by variable, and the notes, of a label that a stranger may have written."""
    try:
        value = foreign.parse(label.encode())
        reasons, notes = value["reasons"], value["notes"]
        return {str(name): str(reason) for name, reason in reasons.items()}, tuple(
            str(note) for note in notes
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}, ()


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """The body of an answer. Raises `DocumentInvalid` if it is too long for a manifest or a configuration."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > LARGEST_DOCUMENT:
            raise DocumentInvalid(f"{answer.url.path} has more than {LARGEST_DOCUMENT} bytes")
    return bytes(body)


def _reason(body: bytes) -> str:
    """The message in a registry's error response, or the response itself."""
    try:
        return str(foreign.parse(body)["errors"][0]["message"])
    except (ValueError, KeyError, IndexError, TypeError):
        return body[:500].decode(errors="replace")
