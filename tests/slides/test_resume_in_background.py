"""Old slides are finished while a new one is scanned: they step back, and nothing that the scan needs steps back with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys, threading
from pathlib import Path
import cv2, numpy as np, zarr
from deblurd import resume
from deblurd.host.disk import DiskGuard
from deblurd.host.priority import step_back

before = os.getpriority(os.PRIO_PROCESS, 0)
own = []

def work(*_):
    own.append(threading.get_native_id())
    step_back()
    zarr.open_group(sys.argv[1] + "/group", mode="w")
    cv2.GaussianBlur(np.zeros((2048, 2048), np.float32), (0, 0), 2.0)

resume._resume_each = work
stop = threading.Event()
with resume.resuming(Path(sys.argv[1]), print, stop, DiskGuard(Path(sys.argv[1]), 0)):
    pass
nice = {int(task): os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")}
print(len(nice), sorted(task for task, n in nice.items() if n > before and task not in own))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing steps back")
def test_what_all_share_does_not_step_back(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    threads, stepped_back = done.stdout.split(" ", 1)
    assert int(threads) > 1
    assert stepped_back.strip() == "[]"
