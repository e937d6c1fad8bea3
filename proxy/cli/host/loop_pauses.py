"""Short pauses of an event loop beside threads: for how long the interpreter keeps its lock from the loop.

A thread that computes gives the lock away only after the interval of switching. Python's default is 5 ms, and a loop may need the
lock several times for one step. A full garbage collection gives it away at its end alone: 50 ms with the modules of nixfront.
"""

import gc
import sys

_INTERVAL = 0.001  # seconds


def shorten() -> None:
    """Shorten the pauses of this process. Call it once all that lives as long as the process is there."""
    sys.setswitchinterval(_INTERVAL)
    gc.collect()
    gc.freeze()  # what is there now is in no collection from here on
