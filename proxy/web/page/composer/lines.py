"""What a person types for an image: docker, podman, Kubernetes, a Dockerfile. Pure.

An image of another platform than this host's has its platform in each line, and a note: an engine needs an emulator for it.
A pod has to stay up until somebody works in it. So it sleeps, and its image has the meta-package that brings `sleep`.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from proxy.core.model import ImageRequest, Package
from proxy.core.platforms import of_system

_SHELL = "shell"
#: The program of a pod, and the package that has it.
_SLEEP, _SLEEPER = ["sleep", "infinity"], "coreutils"
_LONGEST_LABEL = 63  # characters of a name in Kubernetes


@dataclass(frozen=True, slots=True)
class Line:
    """A text to copy, of one line or several, and what it is for. `note` says what a person has to know of it."""

    label: str
    text: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """How the visitor calls this host: `HOST:PORT`, and whether by TLS. `presets`: the meta-packages that it has.

    `platform`: what its processor runs; empty where nobody knows.
    """

    host: str
    is_secure: bool
    presets: Collection[str] = ()
    platform: str = ""


def lines(
    place: Place,
    name: str,
    request: ImageRequest | None = None,
    packages: Sequence[Package] = (),
    platforms: Collection[str] = (),
) -> list[Line]:
    """The lines for the image of this name, with its tag if that is not `latest`.

    `request`: what the name means here; None for an image that somebody pushed. `packages`: what nixfront knows to be in it.
    `platforms`: those of an image that is there.
    """
    if request is not None and request.preset.system:
        platforms = (of_system(request.preset.system).name,)
    other = next(iter(platforms), "") if place.platform and place.platform not in platforms else ""
    option, base = (f" --platform {other}", f" --platform={other}") if other else ("", "")
    note = f"It is for {other}. Elsewhere it needs an emulator (binfmt)." if other else ""
    image = f"{place.host}/{name}"
    insecure = "" if place.is_secure else " --tls-verify=false"
    folders = [package.outputs[0][1] for package in packages if package.outputs]
    return [
        Line("Docker", f"docker run --rm -it{option} {image}", note),
        Line("Docker, pull alone", f"docker pull{option} {image}"),
        Line("Podman", f"podman run --rm -it{insecure}{option} {image}", note),
        _pod(place, name, request, other),
        Line("Dockerfile, as the base", f"FROM{base} {image}"),
        *([_copy(image, folders)] if folders else []),
    ]


def _pod(place: Place, name: str, request: ImageRequest | None, other: str) -> Line:
    """A whole pod, for `kubectl apply -f -`. It goes to nodes of the `other` platform, if there is one."""
    stays = request is not None and _SLEEPER in request.attributes
    if request is not None and not stays and _may_have_shell(place, request):
        name, stays = f"{_SHELL}/{name}", True
    # A tag is no part of the pod's name, and a digest neither.
    last = re.split("[:@]", name)[0].rpartition("/")[2]
    pod = re.sub(r"[^a-z0-9]+", "-", last)[:_LONGEST_LABEL].strip("-")
    text = "\n".join(
        [
            "apiVersion: v1",
            "kind: Pod",
            "metadata:",
            f"  name: {pod}",
            "spec:",
            *([f"  nodeSelector: {{kubernetes.io/arch: {other.split('/')[1]}}}"] if other else []),
            "  containers:",
            f"    - name: {pod}",
            f"      image: {json.dumps(f'{place.host}/{name}')}",
            *([f"      command: {json.dumps(_SLEEP)}"] if stays else []),
        ]
    )
    note = f"It stays up: kubectl exec -it {pod} -- sh" if stays else "It ends when its program ends."
    return Line("Kubernetes, a pod", text, note)


def _may_have_shell(place: Place, request: ImageRequest) -> bool:
    """Whether the name may begin with the meta-package: another set may have no such packages."""
    return _SHELL in place.presets and not request.package_set and not request.image


def _copy(image: str, folders: Sequence[str]) -> Line:
    """The packages and all that they need, in an image of another base. `folders`: their store paths.

    The links of the root stay where they are: they would replace files of the base.
    """
    path = ":".join(f"{folder}/bin" for folder in folders)
    text = f"COPY --from={image} /nix/store /nix/store\nENV PATH={path}:$PATH"
    return Line("Dockerfile, beside another base", text)
