"""A thread steps back, and takes its own threads along, but nobody else."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from deblurd.host.priority import step_back


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it does nothing")
def test_the_thread_and_its_threads_step_back_and_others_do_not() -> None:
    found: list[int] = []

    def look() -> None:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    def work() -> None:
        step_back()
        look()
        child = threading.Thread(target=look)
        child.start()
        child.join()

    look()
    if found[0] >= 10:
        pytest.skip("this process has stepped back already")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    look()
    before, own, childs, after = found
    assert (own, childs, after) == (10, 10, before)
