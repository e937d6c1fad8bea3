"""What lines of Nix's log say about how far it is. Pure: counts and a line in, counts out.

Nix says first what it will build and fetch, then a line for each as it begins. Lines of the builders between them say nothing
that can be counted. Nix plans in several rounds, so the totals grow.
"""

import re
from dataclasses import dataclass, replace

_WILL_BUILD = re.compile(r"th(?:is derivation|ese (\d+) derivations) will be built")
_WILL_FETCH = re.compile(r"th(?:is path|ese (\d+) paths) will be fetched")
_BUILDS = re.compile(r"building '/nix/store/[0-9a-z]{32}-([^']+)\.drv'")
_FETCHES = re.compile(r"copying path '/nix/store/[0-9a-z]{32}-([^']+)' from ")


@dataclass(frozen=True, slots=True)
class NixCounts:
    """How many have begun, of how many; `now` is the name of what began last."""

    built: int = 0
    to_build: int = 0
    fetched: int = 0
    to_fetch: int = 0
    now: str = ""


def advance(counts: NixCounts, line: str) -> NixCounts:
    """The counts after this line."""
    if (found := _BUILDS.match(line)) is not None:
        built = counts.built + 1
        return replace(counts, built=built, to_build=max(counts.to_build, built), now=found[1])
    if (found := _FETCHES.match(line)) is not None:
        fetched = counts.fetched + 1
        return replace(counts, fetched=fetched, to_fetch=max(counts.to_fetch, fetched), now=found[1])
    if (found := _WILL_BUILD.match(line)) is not None:
        return replace(counts, to_build=counts.to_build + int(found[1] or 1))
    if (found := _WILL_FETCH.match(line)) is not None:
        return replace(counts, to_fetch=counts.to_fetch + int(found[1] or 1))
    return counts
