"""What programs of an image find around them: libraries, data, and the variables that lead there."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from proxy.core.model import canonical_json
from proxy.image.environment import data
from proxy.image.environment.libraries import Variable, libraries
from proxy.image.root_tree import Listing
from proxy.image.tar import Entry

#: The label that says why the configuration has its variables.
REASONS = "nixfront.environment"


@dataclass(frozen=True, slots=True)
class Environment:
    """Variables of the configuration beside those of every image. `notes`: libraries that the image cannot use, and why."""

    variables: tuple[Variable, ...] = ()
    notes: tuple[str, ...] = ()


NOTHING = Environment()


def reasons(environment: Environment, overridden: Collection[str]) -> str:
    """The text of the label: JSON; empty where there is nothing to say. A variable that the image itself sets has no reason."""
    why = {each.name: each.reason for each in environment.variables if each.name not in overridden}
    value = {"notes": list(environment.notes), "reasons": why}
    return canonical_json(value).decode() if why or environment.notes else ""


def furnished(
    members: Iterable[Entry], outputs: Sequence[str], listing: Listing, closure: Collection[str]
) -> tuple[Entry, ...]:
    """The members of the root tree of these outputs, with links to data and the files that variables lead to."""
    tree = {member.path: member for member in members}
    tree |= {member.path: member for member in libraries(outputs, listing, closure).files}
    return data.with_links(tree.values(), listing, closure)


def environment(
    members: Collection[Entry], outputs: Sequence[str], listing: Listing, closure: Collection[str]
) -> Environment:
    """The environment of an image with this root tree, these outputs in it, and this closure."""
    result = libraries(outputs, listing, closure)
    return Environment((*data.variables(members), *result.variables), result.notes)
