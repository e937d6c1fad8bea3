"""The subcommands about packages and images: `search`, `explain`, `images`."""

import argparse
import asyncio
import json
from dataclasses import asdict

from proxy import app, catalog, explain, names, suggest
from proxy.commands import Command
from proxy.console import Console
from proxy.errors import SettingsInvalid
from proxy.settings import Settings


def _registry(settings: Settings) -> str:
    """Where to ask about images: a registry that is our child is reached through the proxy itself."""
    return settings.registry.url or f"http://{settings.http.addr}"


def _images(settings: Settings, _: argparse.Namespace, console: Console) -> int:
    """One line for each tag, as they come."""
    found = []
    for repository, tags in catalog.images(_registry(settings)):
        found.append({"repository": repository, "tags": tags})
        for tag in tags:
            console.line(f"{repository}:{tag}")
    console.document(found)
    return 0


def _search(settings: Settings, arguments: argparse.Namespace, console: Console) -> int:
    """A line for each attribute that fits and the name to pull; exit code 1 when there is none, as grep does."""
    if arguments.set and arguments.set not in settings.sets:
        raise SettingsInvalid(f"sets has no {arguments.set!r}, but {', '.join(settings.sets) or 'nothing'}")
    with console.working("reading the names of the package set"):
        known = asyncio.run(app.attribute_names(settings, arguments.set, arguments.tag))
    prefix = f"{arguments.set}/" if arguments.set else ""
    found = [(name, _pull_name(prefix, name)) for name in suggest.search(arguments.text, known)]
    console.document([{"attribute": name, "pull": pull} for name, pull in found])
    width = max((len(name) for name, _ in found), default=0)
    for name, pull in found:
        console.line(f"{name:<{width}}  {pull or '(has no spelling: give it one with names.aliases)'}")
    return 0 if found else 1


def _pull_name(prefix: str, attribute: str) -> str | None:
    """What to pull for this attribute, None where a repository path cannot spell it."""
    spelled = names.spelled(attribute)
    return None if spelled is None else prefix + spelled


def _search_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", help="part of a name")
    parser.add_argument("--set", default="", metavar="NAME", help="one of `sets` (default: the default set)")
    parser.add_argument("--tag", default="latest", metavar="TAG", help="a revision of it (default: latest)")


def _explain(settings: Settings, arguments: argparse.Namespace, console: Console) -> int:
    """The layers of an image, lowest first."""
    repository, colon, tag = arguments.name.rpartition(":")
    if not colon:
        repository, tag = arguments.name, "latest"
    with console.working(f"reading {repository}:{tag}"):
        explained = asyncio.run(explain.explain(_registry(settings), repository, tag))
    console.document(asdict(explained))
    console.line(f"{explained.name}  {explained.digest}", "bold")
    console.line(f"created {explained.created}")
    for label, value in sorted(explained.labels.items()):
        console.line(f"{label}={value}")
    for parameter, value in sorted(explained.run.items()):
        console.line(f"{parameter} {json.dumps(value)}")
    for layer in explained.layers:
        console.line(f"{layer.digest}  {layer.size:>11,} bytes  diff_id {layer.diff_id}")
        for path in layer.store_paths or (
            f"({layer.comment or 'the root'}: links to the above, /etc, /tmp)",
        ):
            console.line(f"    {path}")
    return 0


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME[:TAG]", help="an image, without the host")


COMMANDS = (
    Command(
        "search",
        "find packages by name",
        "Find attributes of a package set whose name holds TEXT, case aside, and how to pull each.",
        _search,
        _search_arguments,
        "Example: `nixfront search numpy` prints python3Packages.numpy and python3packages.numpy, the name to pull. The list "
        "is made once for each revision of the set, which takes a while for nixpkgs. Where nothing fits it is exit code 1.",
        demo=True,
    ),
    Command(
        "explain",
        "say what an image is made of",
        "List the layers of an image with their digests, sizes, DiffIDs and store paths.",
        _explain,
        _explain_arguments,
        "Example: `nixfront explain shell/git --json | jq '.layers[].store_paths'`. NAME is asked of the registry at "
        "registry.url, else of the nixfront at http.addr, which builds it if it is not there.",
    ),
    Command(
        "images",
        "list the images that are there",
        "List the images of the registry: of registry.url, else of the nixfront at http.addr.",
        _images,
    ),
)
