"""Signals end a scan in order, and the log suits its reader."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextvars import copy_context

import pytest

from deblurd.host import logs, signals


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("deblurd")
    handlers, level, own_level = root.handlers[:], root.level, own.level
    usual = {number: signal.getsignal(number) for number in signals.STOP_SIGNALS}
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    own.setLevel(own_level)
    for number, handler in usual.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", signals.STOP_SIGNALS)
def test_a_second_signal_says_what_is_waited_for_and_a_third_is_obeyed(
    number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    usual = signal.getsignal(number)
    stop = signals.stop_on_signals()
    assert not stop.is_set()
    signal.raise_signal(number)
    assert stop.wait(10)
    assert capfd.readouterr().err == signals.FIRST
    signal.raise_signal(number)
    assert capfd.readouterr().err == signals.SECOND
    assert signal.getsignal(number) == usual


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process instead of signalling it")
def test_a_terminated_process_ends_in_its_own_time() -> None:
    program = """
from deblurd.host.signals import stop_on_signals
stop = stop_on_signals()
print("ready", flush=True)
stop.wait(60)
print("drained", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "drained\n"
        assert process.wait(30) == 0


def test_a_signal_counts_though_the_terminal_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> int:
        raise OSError(5, "Input/output error")

    stop = signals.stop_on_signals()
    monkeypatch.setattr(os, "write", gone)
    signal.raise_signal(signal.SIGINT)
    assert stop.wait(10)


def test_a_signal_in_the_middle_of_waiting_does_not_hang() -> None:
    stop = signals.stop_on_signals()
    # what the main thread holds for a moment whenever it begins or ends to wait
    with stop._cond:  # type: ignore[attr-defined]
        signal.raise_signal(signal.SIGINT)
    assert stop.wait(10)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), _Terminal()])
def test_our_own_news_is_told_and_that_of_libraries_is_not(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(verbose=False)
    logging.getLogger("deblurd.test").info("slide %s begins", "a[b]")
    logging.getLogger("deblurd.test").debug("detail")
    library = logging.getLogger("some.library")
    library.setLevel(logging.DEBUG)
    library.info("noise")
    assert "slide a[b] begins" in stream.getvalue()
    assert "detail" not in stream.getvalue()
    assert "noise" not in stream.getvalue()


def test_verbose_tells_details_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(verbose=False)
    logs.configure(verbose=True)
    logging.getLogger("deblurd.test").debug("detail")
    assert stream.getvalue() == "DEBUG deblurd.test: detail\n"


def test_each_line_names_the_slide_it_is_about_in_threads_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(verbose=False)
    log = logging.getLogger("deblurd.test")
    with logs.about_slide("s1"):
        log.info("inside")
        thread = threading.Thread(target=copy_context().run, args=(log.info, "in its thread"))
        thread.start()
        thread.join()
    log.info("after")
    assert [line.removeprefix("INFO deblurd.test: ") for line in stream.getvalue().splitlines()] == [
        "[s1] inside",
        "[s1] in its thread",
        "after",
    ]


def test_a_record_of_a_journal_is_one_line_with_its_traceback_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(verbose=False)
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("deblurd.test").exception("two\nlines")
    assert stream.getvalue().startswith("ERROR deblurd.test: two | lines\nTraceback")


def test_python_warnings_go_to_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert stream.getvalue().startswith("WARNING py.warnings: ")
    assert "DeprecationWarning: old" in stream.getvalue()
