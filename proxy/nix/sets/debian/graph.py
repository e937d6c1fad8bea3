"""Package lists of Debian and our list of attributes -> the nodes of the lock, one for each store path.

Rules of this file: no IO, no clock; the same texts give the same nodes, whatever their order in the archive.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from debian.deb822 import Packages
from debian.debian_support import Version

from proxy.core.errors import PackageSetUnavailable

_NAME = re.compile(rb"^Package: (\S+)$", re.MULTILINE)

# Every build needs them: scripts use this shell, programs this loader.
_ALWAYS = ("bash", "libc6")


@dataclass(frozen=True, slots=True)
class Deb:
    """A binary package of the archive: `fields` are those of its stanza, `url` is where the file is."""

    fields: Packages
    url: str

    @property
    def version(self) -> Version:
        """Comparable as dpkg compares."""
        return Version(self.fields["Version"])

    def locked(self) -> dict[str, str]:
        """The file, as the lock names it."""
        return {"name": self.fields["Package"], "url": self.url, "sha256": self.fields["SHA256"]}


class Available:
    """All packages of some lists. Stanzas are parsed one by one when needed: a release has 64,000 of them."""

    def __init__(self, lists: Iterable[tuple[bytes, str]]) -> None:
        """Take (text of a list, URL that its file names are relative to)."""
        self._stanzas: defaultdict[str, list[tuple[bytes, str]]] = defaultdict(list)
        for text, repository in lists:
            for stanza in text.split(b"\n\n"):
                if name := _NAME.search(stanza):
                    self._stanzas[name[1].decode()].append((stanza, repository))
        self._newest: dict[str, Deb | None] = {}

    def get(self, name: str) -> Deb | None:
        """The newest version of a package, None when there is none."""
        if name not in self._newest:
            debs = []
            for stanza, repository in self._stanzas.get(name, ()):
                fields = Packages(stanza)
                debs.append(Deb(fields, f"{repository}/{fields['Filename']}"))
            # Suites may hold the same version: the tie is broken by content, then by place.
            self._newest[name] = max(
                debs, key=lambda deb: (deb.version, deb.fields["SHA256"], deb.url), default=None
            )
        return self._newest[name]

    def __getitem__(self, name: str) -> Deb:
        """The newest version of a package that must be there. Raises `PackageSetUnavailable`."""
        if deb := self.get(name):
            return deb
        raise PackageSetUnavailable(f"the Debian archive has no package {name}")

    def providing(self, virtual: str) -> str | None:
        """The first package, by name, whose newest version provides a virtual one."""
        needle = virtual.encode()
        for name, stanzas in sorted(self._stanzas.items()):
            if any(b"\nProvides:" in stanza and needle in stanza for stanza, _ in stanzas):
                provided = _relations(self[name], "provides")
                if any(virtual in clause for clause in provided):
                    return name
        return None


def resolve_nodes(recipe: Mapping[str, Any], available: Available) -> dict[str, Any]:
    """`attributes` and `nodes` of the lock, for a recipe shaped like `nix/debian/packages.json`.

    A node is a group of the recipe, a cycle of dependencies, or else one package.
    """
    depends = _closure(recipe, available)
    group_of = {package: group for group, members in recipe["groups"].items() for package in members}
    heads = _merge_cycles(_by_group(depends, group_of), recipe["groups"])
    node_of = {package: heads[group_of.get(package, package)] for package in depends}

    members: defaultdict[str, list[str]] = defaultdict(list)
    for package, node in sorted(node_of.items()):
        members[node].append(package)
    nodes = {}
    for node, packages in sorted(members.items()):
        lead = available[_lead(node, packages, recipe["groups"])]
        nodes[node] = {
            "version": str(lead.version).split(":", 1)[
                -1
            ],  # without the epoch, which sorts and says nothing else
            "description": lead.fields["Description"].splitlines()[0],
            "debs": [available[package].locked() for package in packages],
            "deps": sorted({node_of[name] for package in packages for name in depends[package]} - {node}),
            "fixups": recipe["fixups"].get(node, {}),
        }
    attributes = {
        path: {"node": node_of[entry["package"]], "program": entry.get("program", "")}
        for path, entry in recipe["attributes"].items()
    }
    return {"attributes": attributes, "nodes": nodes}


def _closure(recipe: Mapping[str, Any], available: Available) -> dict[str, list[str]]:
    """Each package that the attributes need -> the packages that it depends on. A group comes whole."""
    group_of = {package: members for members in recipe["groups"].values() for package in members}
    pending = [*_ALWAYS, *(entry["package"] for entry in recipe["attributes"].values())]
    depends: dict[str, list[str]] = {}
    while pending:
        package = pending.pop()
        if package not in depends:
            depends[package] = _depends(package, recipe, available)
            pending += [*depends[package], *group_of.get(package, ())]
    return depends


def _depends(package: str, recipe: Mapping[str, Any], available: Available) -> list[str]:
    """Debian's own choice for each clause (the first alternative that exists), less what the recipe leaves out."""
    deb = available[package]
    left_out = {*recipe["skip"], *recipe["drop"].get(package, ()), package}
    clauses = [*_relations(deb, "pre-depends"), *_relations(deb, "depends")]
    chosen = {_choose(package, names, available) for names in clauses if left_out.isdisjoint(names)}
    return sorted({*chosen, *recipe["add"].get(package, ())} - left_out)


def _relations(deb: Deb, field: str) -> list[list[str]]:
    """The clauses of a relationship field, each a list of alternatives, as names alone."""
    return [[str(relation["name"]) for relation in clause] for clause in deb.fields.relations[field] or ()]


def _choose(package: str, names: Sequence[str], available: Available) -> str:
    for name in names:
        if available.get(name):
            return name
        if provider := available.providing(name):
            return provider
    raise PackageSetUnavailable(
        f"{package} depends on {' | '.join(names)}, which the Debian archive does not have"
    )


def _by_group(depends: Mapping[str, list[str]], group_of: Mapping[str, str]) -> dict[str, set[str]]:
    """The same graph with the members of a group drawn together."""
    graph: defaultdict[str, set[str]] = defaultdict(set)
    for package, names in depends.items():
        graph[group_of.get(package, package)].update(group_of.get(name, name) for name in names)
    return dict(graph)


def _merge_cycles(graph: Mapping[str, set[str]], groups: Iterable[str]) -> dict[str, str]:
    """Each vertex -> the name of its cycle: a group's, else the shortest; its own when it is in none."""
    reach = {vertex: _reachable(vertex, graph) for vertex in graph}
    named = frozenset(groups)
    return {
        vertex: min(
            (other for other in reach[vertex] if vertex in reach[other]),
            key=lambda name: (name not in named, len(name), name),
        )
        for vertex in graph
    }


def _reachable(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    reached, pending = {start}, [start]
    while pending:
        new = graph[pending.pop()] - reached
        reached |= new
        pending += new
    return reached


def _lead(node: str, packages: Sequence[str], groups: Mapping[str, Sequence[str]]) -> str:
    """The package that gives a node its version and description."""
    if node in packages:
        return node
    return groups[node][0]
