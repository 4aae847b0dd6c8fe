"""One heap for all threads, counted by glibc itself."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_COUNT = """
import ctypes, threading
from deblurd.host.memory import keep_one_heap
if {one}:
    keep_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
go = threading.Barrier(8)
def take():
    go.wait()
    libc.malloc(50_000)
    go.wait()
threads = [threading.Thread(target=take) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
libc.malloc_stats()
"""


def arenas(one: bool) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _COUNT.format(one=one)], capture_output=True, text=True, check=True
    )
    return done.stderr.count("Arena ")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
def test_all_threads_share_one_heap() -> None:
    assert arenas(one=True) == 1
    assert arenas(one=False) > 1
