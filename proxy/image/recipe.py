"""A recipe says what an image consists of and how it runs, before anything is packed. Pure.

A recipe comes from the packages of a request or from a named image (`Definition`); later code need not know which.
An image can be made in a registry, as a folder, or inside a Nix build: these functions decide its config
everywhere, so that the digests agree.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from proxy.core.errors import PackageUnusable
from proxy.core.model import ImageRequest, LayerPlan, Package, PackageSet, canonical_json, sha256_hex
from proxy.image import base, environment, root_tree
from proxy.image.environment import Environment
from proxy.image.manifest import ConfigFacts
from proxy.image.tar import Entry, check_name

#: The label with the version of an image; image-spec, "Pre-Defined Annotation Keys".
VERSION = "org.opencontainers.image.version"
#: The label with the revision of the package set.
REVISION = "nixfront.revision"
_ROOT = (0, 0)
_NIX = "bin/nix-store"  # every Nix has it, whatever its attribute is
#: The variables of every image.
EVERYWHERE = {
    "PATH": base.PATH,
    "SSL_CERT_FILE": base.CA_BUNDLE,
    "NIX_SSL_CERT_FILE": base.CA_BUNDLE,
    "LANG": "C.UTF-8",
}
#: The variables of an image whose user has a home.
OF_USER = {"HOME": base.HOME, "USER": base.USER}
#: Those of an image that names no user.
OF_ANY_USER = {"HOME": base.ROOT_HOME}


@dataclass(frozen=True, slots=True)
class Recipe:
    """`packages` are what is linked into the root, first-named first. `image`: the name of a named image, or empty.

    `version`: of the image; empty for a named image, whose labels may say one.
    `command`, where it is empty and there is no `entrypoint`, is the program of `main`, or of the first package where that is
    None: packages of a meta-package stand before the one that was named. `home`: the `UID:GID` that gets a name and a home, or
    empty. `environment` is laid over what every image has, `labels` over ours. `owner` (UID, GID) is that of the root layer's
    members; `script` says that commands of the operator's change them.
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
    version: str = ""
    main: Package | None = None


def from_request(request: ImageRequest, packages: Mapping[str, Package]) -> Recipe:
    """The recipe of packages, by their names as typed: in the order of the request, then those of every image, none twice."""
    ordered = {packages[name].attribute: packages[name] for name in request.attributes}
    for package in packages.values():
        ordered.setdefault(package.attribute, package)
    preset, main = request.preset, packages[request.first or request.attributes[0]]
    return Recipe(
        packages=tuple(ordered.values()),
        command=preset.command,
        user=preset.user,
        home=preset.user,
        directory=base.HOME if preset.user else "",
        environment=preset.environment,
        version=main.version,
        main=main,
    )


def root(
    recipe: Recipe, package_set: PackageSet, listing: root_tree.Listing, closure: Collection[str]
) -> root_tree.Root:
    """The root tree; `closure` has every store path of the image.

    Raises `PackageUnusable`, also for Nix in an image that is no named one: Nix needs a database of the store paths. SQLite's bytes
    differ from version to version, so no layer can hold one and have the same digest on every host.
    """
    merged = root_tree.merge(recipe.packages, package_set, listing, user=recipe.home)
    if not recipe.image and any(entry.path == _NIX for entry in merged.entries):
        raise PackageUnusable(
            "nix cannot be a package of an image: it has no database of the image's store paths, so `nix-store --gc` in a "
            "container would delete them; a named image can load one when it starts, as deploy/nixos/image.nix does, or use "
            "docker.io/nixos/nix"
        )
    outputs = root_tree.outputs_of(recipe.packages, listing)
    entries = environment.furnished(merged.entries, outputs, listing, closure)
    return replace(merged, entries=owned(recipe, entries))


def surroundings(
    recipe: Recipe, entries: Collection[Entry], listing: root_tree.Listing, closure: Collection[str]
) -> Environment:
    """What the configuration tells programs about libraries and data; `entries` are all members of the root layer."""
    outputs = root_tree.outputs_of(recipe.packages, listing)
    return environment.environment(entries, outputs, listing, closure)


def owned(recipe: Recipe, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The members of the root layer with the owner of the recipe; the home of a user and what is in it belong to that user.

    Every root tree passes here, also one that extraCommands made. Raises `PackageUnusable` for a name that no layer can hold.
    """
    for entry in entries:
        check_name(entry.path, entry.target or ("extraCommands" if recipe.script else ""))
    home, uid_gid = base.HOME.lstrip("/"), _owner(recipe.home)
    inside = f"{home}/"

    def owner(path: str) -> tuple[int, int]:
        if recipe.home and path == home:
            return uid_gid[0], 0
        return uid_gid if recipe.home and path.startswith(inside) else recipe.owner

    return tuple(replace(entry, owner=owner(entry.path)) for entry in entries)


def command(recipe: Recipe, listing: root_tree.Listing) -> tuple[str, ...]:
    """The command that `docker run` starts, or hands to the entrypoint."""
    if recipe.command or recipe.entrypoint or not recipe.packages:
        return recipe.command
    program = root_tree.main_program(recipe.main or recipe.packages[0], listing)
    return (program,) if program else ()


def facts(
    recipe: Recipe,
    package_set: PackageSet,
    system: str,
    start: tuple[str, ...],
    around: Environment = environment.NOTHING,
) -> ConfigFacts:
    """The facts of the config; `start` is the result of `command`, `around` that of `surroundings`."""
    return ConfigFacts(
        system=system,
        created=package_set.created,
        command=start,
        entrypoint=recipe.entrypoint,
        user=recipe.user,
        directory=recipe.directory,
        environment=_environment(recipe, around),
        labels={**_labels(package_set, recipe, around), **dict(recipe.labels)},
        ports=recipe.ports,
    )


def comments(recipe: Recipe, plans: Sequence[LayerPlan]) -> list[str]:
    """A line of history for each layer: its store paths; then one for the root layer."""
    top = f"root of image {recipe.image}" if recipe.image else f"root of {_names(recipe)}"
    changed = ", as its extraCommands left it" if recipe.script else ""
    return [*(" ".join(plan.paths) for plan in plans), top + changed]


def output_tag(outputs: Sequence[str]) -> str:
    """The tag of an image with these outputs, whatever their names: 32 digits of a hash of the store paths."""
    return sha256_hex(canonical_json(list(outputs)))[:32]


def _names(recipe: Recipe) -> str:
    return " ".join(sorted(package.name for package in recipe.packages))


def _environment(recipe: Recipe, around: Environment) -> tuple[str, ...]:
    variables = dict(EVERYWHERE)
    variables |= {variable.name: variable.value for variable in around.variables}
    if recipe.home:
        variables |= OF_USER
    elif not recipe.user:  # a user by name has a home in passwd
        variables |= OF_ANY_USER
    variables |= dict(recipe.environment)
    return tuple(f"{name}={value}" for name, value in variables.items())


def _labels(package_set: PackageSet, recipe: Recipe, around: Environment) -> dict[str, str]:
    """The origin of an image: in our words, and in those that registry pages and scanners read.

    Every name of the image is among them, so that a reader recognizes a copy under another name.
    image-spec, "Pre-Defined Annotation Keys": `created`, `revision`, `source` and `version` of `org.opencontainers.image`.
    """
    labels = {
        "nixfront.image": recipe.image,
        "nixfront.package-set": package_set.name,
        "nixfront.packages": _names(recipe),
        "nixfront.attributes": _attributes(recipe),
        "nixfront.outputs": _outputs(recipe),
        environment.REASONS: environment.reasons(around, dict(recipe.environment)),
        REVISION: package_set.revision,
        "nixfront.nar-hash": package_set.nar_hash,
        "nixfront.source": package_set.source,
        "org.opencontainers.image.created": package_set.created,
        "org.opencontainers.image.revision": package_set.revision,
        "org.opencontainers.image.source": package_set.source,
        VERSION: recipe.version,
    }
    return {name: value for name, value in labels.items() if value}


def _attributes(recipe: Recipe) -> str:
    """The attributes of the packages, sorted; empty for a named image, whose name is enough."""
    return "" if recipe.image else " ".join(sorted({package.attribute for package in recipe.packages}))


def _outputs(recipe: Recipe) -> str:
    """The tag of the outputs; empty for a named image, where the packages alone do not decide it."""
    if recipe.image:
        return ""
    return output_tag(sorted(path for package in recipe.packages for _, path in package.outputs))


def _owner(user: str) -> tuple[int, int]:
    """`UID:GID` as numbers; root for an empty text."""
    uid, _, gid = (user or "0:0").partition(":")
    return int(uid), int(gid)


@dataclass(frozen=True, slots=True)
class TextPaths:
    """Store paths that a text names, and what Nix has to realise (`drv!output`, or a path) to have them."""

    paths: tuple[str, ...] = ()
    realise: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Definition:
    """A named image: its `recipe`, and the store paths that its texts name.

    `runs`: paths in its command and environment. `script`: the extraCommands; `commands`: paths in them; `tools`: the
    packages that run them. `most_layers`: 0 if the file does not say.
    """

    recipe: Recipe
    runs: TextPaths
    most_layers: int = 0
    script: str = ""
    commands: TextPaths = TextPaths()
    tools: tuple[Package, ...] = ()


def tag(definition: Definition) -> str:
    """The tag of a named image: like `output_tag`, but a hash of all else in its definition too.

    The order of outputs decides whose file wins. The script and its tools stand for what the script makes.
    """
    recipe = definition.recipe
    outputs = [path for package in (*recipe.packages, *definition.tools) for _, path in package.outputs]
    fields = asdict(replace(recipe, packages=()))
    del fields["version"], fields["main"]  # of a named image they are a label, and its first package
    rest = [fields, definition.most_layers, definition.script]
    return sha256_hex(canonical_json([outputs, *rest]))[:32]
