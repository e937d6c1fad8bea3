"""What this host did of late: samples of its own counts, as columns of equal width. It lives as long as the process."""

import asyncio
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from proxy.telemetry.metrics import Totals

COLUMNS = 24
_EVERY = 60.0  # seconds between two samples
_WIDTHS = (60.0, 300.0, 900.0, 3600.0)  # seconds of a column; the last ones show a day
_NOTHING = Totals()


@dataclass(frozen=True, slots=True)
class Column:
    """What happened in the seconds of a column, the last of which is `end`, in seconds since 1970."""

    end: float
    did: Totals


class History:
    """The samples of one application."""

    def __init__(self, totals: Callable[[], Totals], clock: Callable[[], float] = time.time) -> None:
        """`totals` are those since the start of the process; `clock` gives seconds since 1970."""
        self._totals = totals
        self._clock = clock
        self._began = clock()
        self._times: deque[float] = deque(maxlen=int(COLUMNS * _WIDTHS[-1] / _EVERY) + 2)
        self._samples: deque[Totals] = deque(maxlen=self._times.maxlen)

    async def watch(self) -> None:
        """Sample until the task is cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(_EVERY)

    def sample(self) -> None:
        """Note the totals of this moment."""
        self._times.append(self._clock())
        self._samples.append(self._totals())

    @property
    def width(self) -> float:
        """Seconds of a column: the whole time since the start fits, up to a day."""
        passed = self._clock() - self._began
        return next((width for width in _WIDTHS if passed <= width * (COLUMNS - 1)), _WIDTHS[-1])

    def columns(self) -> list[Column]:
        """The last columns, oldest first. The newest one is under way."""
        width = self.width
        end = (self._clock() // width + 1) * width
        ends = [end - width * (COLUMNS - 1 - number) for number in range(COLUMNS)]
        before = self._at(ends[0] - width)
        columns = []
        for each in ends:
            after = self._at(each)
            columns.append(Column(each, after.since(before)))
            before = after
        return columns

    def _at(self, moment: float) -> Totals:
        """The totals at this moment, as of the last sample before it."""
        if moment >= self._clock():
            return self._totals()
        number = bisect_right(self._times, moment)
        return self._samples[number - 1] if number else _NOTHING
