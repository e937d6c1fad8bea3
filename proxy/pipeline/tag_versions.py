"""A number for the tags of each repository: it grows with every write, so what was read before a write shows its age.

The code that writes a manifest counts the write here, once before it and once after it. A cache stores the number together
with what it reads, and compares both when it answers. So an answer that was on its way during a write is never used again.
"""

from collections.abc import Iterator
from contextlib import contextmanager

_MOST_REPOSITORIES = 4096
#: Stands for every repository.
ALL = "*"


class TagVersions:
    """The numbers of one registry, as far as writes pass through this process."""

    def __init__(self, most: int = _MOST_REPOSITORIES) -> None:
        """The numbers of `most` repositories are separate; the others share one, which only makes caches forget more."""
        self._most = most
        self._writes = 0
        self._others = 0
        self._latest: dict[str, int] = {}  # by repository, in the order of the writes

    def of(self, repository: str) -> int:
        """The number that holds now."""
        return self._latest.get(repository, self._others)

    @contextmanager
    def write(self, repository: str) -> Iterator[None]:
        """Count a write that goes on for as long as the context; `repository` may be `ALL`."""
        self._count(repository)
        try:
            yield
        finally:
            self._count(repository)

    def _count(self, repository: str) -> None:
        self._writes += 1
        if repository == ALL:
            self._latest.clear()
            self._others = self._writes
            return
        self._latest.pop(repository, None)
        self._latest[repository] = self._writes
        if len(self._latest) > self._most:
            self._others = self._latest.pop(next(iter(self._latest)))
