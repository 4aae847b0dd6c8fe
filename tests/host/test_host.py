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
from pathlib import Path

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


def test_each_line_in_a_journal_begins_with_its_priority(tmp_path: Path) -> None:
    program = """
import logging
from deblurd.host import logs
logs.configure(verbose=True)
log = logging.getLogger("deblurd.test")
log.debug("a"); log.info("b"); log.warning("c"); log.critical("d")
try:
    raise ValueError("broken")
except ValueError:
    log.exception("e")
logs.complain("first fault\\nsecond fault")
"""
    for is_journal in (True, False):
        with (tmp_path / "journal").open("wb") as journal:
            there = os.fstat(journal.fileno())
            stream = f"{there.st_dev}:{there.st_ino}" if is_journal else "1:2"
            environ = os.environ | {"JOURNAL_STREAM": stream}
            subprocess.run(
                [sys.executable, "-c", program], stderr=journal, env=environ, check=True, timeout=60
            )
        lines = (tmp_path / "journal").read_text("utf-8").splitlines()
        found = [(line[:3], line[3:].split()[-1]) for line in lines]
        if is_journal:
            assert found[:5] == [("<7>", "a"), ("<6>", "b"), ("<4>", "c"), ("<2>", "d"), ("<3>", "e")]
            assert {line[:3] for line in lines[5:]} == {"<3>"}
            assert lines[5] == "<3>Traceback (most recent call last):"
            assert lines[-2:] == ["<3>first fault", "<3>second fault"]
        else:
            assert not [line for line in lines if line.startswith("<")]


def test_what_a_thread_says_is_about_a_slide_from_now_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(verbose=False)
    log = logging.getLogger("deblurd.test")
    logs.now_about("s1")
    log.info("one")
    logs.now_about("")
    log.info("two")
    assert stream.getvalue() == "INFO deblurd.test: [s1] one\nINFO deblurd.test: two\n"


@pytest.mark.skipif(os.name == "nt", reason="there the folder is found in another way")
def test_micro_managers_core_leaves_no_log_in_the_users_folder(tmp_path: Path) -> None:
    program = """
from deblurd.host import logs
logs.configure(verbose=False)
from pymmcore_plus import CMMCorePlus
import logging
logging.getLogger("pymmcore-plus").critical("noise")
"""
    environ = {
        key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "PYMM_", "PYTEST_"))
    }
    subprocess.run(
        [sys.executable, "-c", program], env=environ | {"HOME": str(tmp_path)}, check=True, timeout=60
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_python_warnings_go_to_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert stream.getvalue().startswith("WARNING py.warnings: ")
    assert "DeprecationWarning: old" in stream.getvalue()
