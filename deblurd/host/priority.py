"""Work that may wait for other work."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

_NICE = 10


def step_back() -> None:
    """Lets this thread, and those that it starts from now on, run when others do not want to; where the system can do that for a thread."""
    # Linux counts niceness by thread, whatever POSIX says
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
