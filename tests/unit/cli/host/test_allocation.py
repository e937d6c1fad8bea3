"""How the process takes memory: what a thread frees is not kept for it alone."""

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import threading, sys
from proxy.cli.host import allocation
assert sys.argv[1] == "as-it-is" or allocation.bound()
barrier = threading.Barrier(16)
def work():
    barrier.wait()
    pieces = [bytearray(b"x" * 500_000) for _ in range(8)]
    barrier.wait()
    del pieces
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sum(" 00:00 0" in line and "---p" in line for line in open("/proc/self/maps")))
"""


def reserved(how: str) -> int:
    """How many pieces of the address space are reserved after sixteen threads took memory at the same time."""
    argv = (sys.executable, "-c", _PROGRAM, how)
    return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another library of C has no arenas")
def test_threads_share_an_arena() -> None:
    """The rest of an arena, which nobody uses yet, is reserved. So is a page below the stack of a thread."""
    assert reserved("bounded") < reserved("as-it-is")
