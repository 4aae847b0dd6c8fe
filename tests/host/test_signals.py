"""Signals become an event, and an impatient second one gets an answer."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys

import pytest

from deblurd.host.signals import STOP_SIGNALS, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_the_next_says_what_it_waits_for(number: int) -> None:
    said: queue.Queue[str] = queue.Queue()
    with stop_on_signals(lambda: "3 tiles", said.put) as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.wait(10)
        assert said.get(timeout=10).startswith("stopping")
        signal.raise_signal(number)
        assert said.get(timeout=10) == "already stopping, and waiting for 3 tiles"


def test_the_old_handlers_come_back_even_after_an_error() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with pytest.raises(KeyError), stop_on_signals(lambda: "", lambda _: None):
        raise KeyError
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process instead of signalling it")
def test_a_terminated_process_ends_in_its_own_time() -> None:
    program = """
from deblurd.host.signals import stop_on_signals
with stop_on_signals(lambda: "nothing", lambda _: None) as stop:
    print("ready", flush=True)
    stop.wait(60)
print("drained", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "drained\n"
        assert process.wait(30) == 0
