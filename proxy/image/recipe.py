"""What an image is laid out of and how it runs, as far as that is decided before anything is packed.

Pure. A recipe comes from a request's packages or from a named image (`definition`); from here on there is no
difference between the two. Wherever an image is made (in a registry, as a folder, inside a Nix build), its config says
what these functions say, so that the digests agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from proxy.core.model import ImageRequest, LayerPlan, Package, PackageSet, canonical_json, sha256_hex
from proxy.image import root_tree
from proxy.image.manifest import ConfigFacts
from proxy.image.tar import Entry

_ROOT = (0, 0)


@dataclass(frozen=True, slots=True)
class Recipe:
    """`packages` are what is linked into the root, first-named first. `image`: the name of a named image, or empty.

    `command`, where it is empty and there is no `entrypoint`, is the first package's program. `home`: the `UID:GID` that
    gets a name and a home, or empty. `environment` is laid over what every image has, `labels` over ours. `owner`
    (UID, GID) is that of the root layer's members; `script` says that commands of the operator's change them.
    """

    packages: tuple[Package, ...]
    image: str = ""
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    home: str = ""
    directory: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[str, ...] = ()
    owner: tuple[int, int] = _ROOT
    script: bool = False


def from_request(request: ImageRequest, packages: Mapping[str, Package]) -> Recipe:
    """The recipe of packages, by their names as typed: as the request names them, then those of every image, none twice."""
    ordered = {packages[name].attribute: packages[name] for name in request.attributes}
    for package in packages.values():
        ordered.setdefault(package.attribute, package)
    preset = request.preset
    return Recipe(
        packages=tuple(ordered.values()),
        command=preset.command,
        user=preset.user,
        home=preset.user,
        directory=root_tree.HOME if preset.user else "",
        environment=preset.environment,
    )


def root(recipe: Recipe, listing: root_tree.Listing) -> root_tree.Root:
    """The root tree. Raises `PackageUnusable`."""
    merged = root_tree.merge(recipe.packages, listing, user=recipe.home)
    return replace(merged, entries=owned(recipe, merged.entries))


def owned(recipe: Recipe, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The members of the root layer with the owner that the recipe says; a user's home stays the user's."""
    home, uid_gid = root_tree.HOME.lstrip("/"), _owner(recipe.home)
    inside = f"{home}/"

    def mine(entry: Entry) -> bool:
        return bool(recipe.home) and (entry.path == home or entry.path.startswith(inside))

    return tuple(replace(entry, owner=uid_gid if mine(entry) else recipe.owner) for entry in entries)


def command(recipe: Recipe, listing: root_tree.Listing) -> tuple[str, ...]:
    """What `docker run` starts, or hands to the entrypoint."""
    if recipe.command or recipe.entrypoint or not recipe.packages:
        return recipe.command
    program = root_tree.main_program(recipe.packages[0], listing)
    return (program,) if program else ()


def facts(recipe: Recipe, package_set: PackageSet, system: str, started: tuple[str, ...]) -> ConfigFacts:
    """What the config says; `started` is what `command` found."""
    return ConfigFacts(
        system=system,
        created=package_set.created,
        command=started,
        entrypoint=recipe.entrypoint,
        user=recipe.user,
        directory=recipe.directory,
        environment=_environment(recipe),
        labels={**_labels(package_set, recipe), **dict(recipe.labels)},
        ports=recipe.ports,
    )


def comments(recipe: Recipe, plans: Sequence[LayerPlan]) -> list[str]:
    """A line of history for each layer: its store paths; then one for the root layer."""
    top = f"root of image {recipe.image}" if recipe.image else f"root of {_names(recipe)}"
    changed = ", as its extraCommands left it" if recipe.script else ""
    return [*(" ".join(plan.paths) for plan in plans), top + changed]


def output_tag(outputs: Sequence[str]) -> str:
    """The tag that says which outputs an image holds, whatever they are called: 32 digits of a hash of the paths."""
    return sha256_hex(canonical_json(list(outputs)))[:32]


def _names(recipe: Recipe) -> str:
    return " ".join(sorted(package.name for package in recipe.packages))


def _environment(recipe: Recipe) -> tuple[str, ...]:
    variables = {
        "PATH": root_tree.PATH,
        "SSL_CERT_FILE": root_tree.CA_BUNDLE,
        "NIX_SSL_CERT_FILE": root_tree.CA_BUNDLE,
        "LANG": "C.UTF-8",
    }
    if recipe.home:
        variables |= {"HOME": root_tree.HOME, "USER": root_tree.USER}
    variables |= dict(recipe.environment)
    return tuple(f"{name}={value}" for name, value in variables.items())


def _labels(package_set: PackageSet, recipe: Recipe) -> dict[str, str]:
    """What an image says of its origin: in our words, and in those that registry pages and scanners read.

    Every name by which it may be asked for is among them, so that one that stands under another is seen to be a copy.
    image-spec, "Pre-Defined Annotation Keys": `created`, `revision` and `source` of `org.opencontainers.image`.
    """
    labels = {
        "nixfront.image": recipe.image,
        "nixfront.package-set": package_set.name,
        "nixfront.packages": _names(recipe),
        "nixfront.attributes": _attributes(recipe),
        "nixfront.outputs": _outputs(recipe),
        "nixfront.revision": package_set.revision,
        "nixfront.nar-hash": package_set.nar_hash,
        "nixfront.source": package_set.source,
        "org.opencontainers.image.created": package_set.created,
        "org.opencontainers.image.revision": package_set.revision,
        "org.opencontainers.image.source": package_set.source,
    }
    return {name: value for name, value in labels.items() if value}


def _attributes(recipe: Recipe) -> str:
    """The attributes of the packages, sorted; nothing for a named image, which its name says."""
    return "" if recipe.image else " ".join(sorted({package.attribute for package in recipe.packages}))


def _outputs(recipe: Recipe) -> str:
    """The tag of the outputs, where the packages alone decide it."""
    if recipe.image:
        return ""
    return output_tag(sorted(path for package in recipe.packages for _, path in package.outputs))


def _owner(user: str) -> tuple[int, int]:
    """`UID:GID` as numbers; root for an empty one."""
    uid, _, gid = (user or "0:0").partition(":")
    return int(uid), int(gid)


@dataclass(frozen=True, slots=True)
class TextPaths:
    """Store paths that a text names, and what Nix has to realise (`drv!output`, or a path) so that they are there."""

    paths: tuple[str, ...] = ()
    realise: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Definition:
    """A named image. `recipe` is all but its files: the store paths that its command and environment name (`runs`),
    and the operator's `script` with what that names (`commands`) and the `tools` that run it.

    `most_layers`: 0 where the image does not say.
    """

    recipe: Recipe
    runs: TextPaths
    most_layers: int = 0
    script: str = ""
    commands: TextPaths = TextPaths()
    tools: tuple[Package, ...] = ()


def tag(definition: Definition) -> str:
    """The tag of a named image's outputs, as `recipes.output_tag`: with all else that its file says, which counts too.

    Outputs come in the order in which their files win; what the commands made is told by them and their tools.
    """
    recipe = definition.recipe
    outputs = [path for package in (*recipe.packages, *definition.tools) for _, path in package.outputs]
    rest = [asdict(replace(recipe, packages=())), definition.most_layers, definition.script]
    return sha256_hex(canonical_json([outputs, *rest]))[:32]
