"""The short form of the soak: one fault after the other, and nothing is lost."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.soak.soak import NAMED, RARE, Manager, Prober, Soak, acknowledged, lost_tiles

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.name == "nt", reason="the manager speaks through a Unix socket"),
]

PATIENCE_S = 120.0


def test_a_minute_of_faults_loses_no_tile(tmp_path: Path) -> None:
    said: list[str] = []
    with Manager(tmp_path) as manager:
        prober = Prober(manager)
        prober.start()
        soak = Soak(manager, prober, said.append)
        end_s = time.perf_counter() + PATIENCE_S
        while acknowledged(manager.output) < 3:
            assert time.perf_counter() < end_s, manager.log[-5000:]
            time.sleep(0.2)
        for fault in sorted(NAMED, key=lambda each: each.name in RARE):
            if fault.name != "model-hangs":  # takes its time: tests/systemd has it
                soak.inject(fault)
        assert manager.is_up.wait(PATIENCE_S)
        prober.ended.set()
        prober.join()
        code = manager.stop()
    log = "\n".join([*said, manager.log[-8000:]])
    assert [name for name, seconds in soak.faults.items() if None in seconds] == [], log
    assert prober.failures == [], log
    assert prober.seconds
    assert (manager.exits[:-1], code) == ([-9], 0), log
    slides, tiles, wrong = lost_tiles(manager.output)
    assert wrong == [], log
    assert slides >= 2
    assert tiles >= 3
