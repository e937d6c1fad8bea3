"""The builds of this machine that run, with what Nix does for them now.

A builder may print lines faster than anybody reads them, so a line is only counted. What it says of its builds is worked out when
somebody looks at them.
"""

from collections import OrderedDict
from dataclasses import replace

from proxy.builds.build import Build
from proxy.builds.works import Works

Key = tuple[str, str]  # repository and tag


class RunningBuilds:
    """Builds in the order of their beginnings, by repository and tag."""

    def __init__(self, works: Works) -> None:
        """`works` knows what Nix does for the contents of these builds."""
        self._works = works
        self._builds: OrderedDict[Key, Build] = OrderedDict()
        # How many lines since somebody looked, and the content of the newest.
        self._lines: dict[Key, tuple[int, str]] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._builds)

    def __contains__(self, key: Key) -> bool:
        """Whether this image is being built."""
        return key in self._builds

    def values(self) -> tuple[Build, ...]:
        """All of them, oldest first."""
        self._count()
        return tuple(self._builds.values())

    def get(self, key: Key) -> Build | None:
        """The build of this repository and tag."""
        self._count()
        return self._builds.get(key)

    def put(self, build: Build) -> None:
        """Add a build, or what it became."""
        self._builds[build.repository, build.tag] = build

    def pop(self, key: Key) -> Build | None:
        """The build, which runs no longer."""
        self._count()
        return self._builds.pop(key, None)

    def log(self, content: str, line: str) -> list[str]:
        """Take note of a line of this content's log. Returns the ids of its builds."""
        self._works.log(content, line)
        ids = []
        for key, build in self._builds.items():
            if content in build.contents:
                lines, _ = self._lines.get(key, (0, ""))
                self._lines[key] = lines + 1, content
                ids.append(build.id)
        return ids

    def _count(self) -> None:
        for key, (lines, content) in self._lines.items():
            build = self._builds[key]
            now = self._works.fields(build.contents, content)
            phase = build.phase if build.total else now["phase"]
            self._builds[key] = replace(build, **{**now, "phase": phase}, lines=build.lines + lines)
        self._lines.clear()
