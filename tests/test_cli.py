"""What a technician types, what he reads, and what a service manager gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deblurd import __version__, cli, config
from deblurd.errors import MicroscopeError
from deblurd.host import logs
from deblurd.host.lock import output_lock
from deblurd.host.signals import Stop
from deblurd.simulator.options import DemoOptions

SIMULATOR = """\
[microscope]
backend = "simulator"
exposure_ms = 5.0
[simulator]
slide_size_mm = [0.4, 0.4]
fov_px = [128, 128]
[deblur]
model = "wiener"
"""

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Runs a command line; gives its exit code, what it printed and what it complained of."""
    monkeypatch.setattr(logs, "configure", lambda verbose: None)

    def run(*words: object) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "deblurd.toml"
    path.write_text(SIMULATOR)
    return path


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "COMMAND"),
        ("runn", "did you mean 'run'?"),
        ("config sho x", "did you mean 'show'?"),
        ("demo --overlapp 0.3", "did you mean '--overlap'?"),
        ("xyzzy", "invalid choice: 'xyzzy'"),
        ("--versoin", "did you mean '--version'?"),
        ("run --confg=x.toml", "did you mean '--config'?"),
        ("deblur a.png --motoin 1 2 --output o", "did you mean '--motion'?"),
        ("demo --fov-px 100000", "between 64"),
        ("demo --area-mm 1e300 1", "from 0.001 to 200"),
        ("demo --exposure-ms 1e-300", "from 0.001"),
        ("run", "--config"),
        ("demo --fov-px many", "--fov-px"),
        ("demo --fov-px 10", "between 64"),
        ("demo --area-mm 1", "--area-mm"),
        ("demo --area-mm 1 nan", "must be a positive number"),
        ("demo --area-mm 0 1", "must be a positive number"),
        ("demo --exposure-ms -1", "must be a positive number"),
        ("demo --pixel-size-um inf", "must be a positive number"),
        ("demo --overlap nan", "between 0.02 and 0.9"),
        ("demo --overlap 0.95", "between 0.02 and 0.9"),
        ("demo --seed -1", "must not be negative"),
        ("demo --blur-px 10 --speed-um-s 100", "give one of them"),
        ("demo --report .", "is a folder"),
        ("deblur a.png --output o", "--motion"),
        ("deblur a.png --motion nan 1 --output o", "finite"),
        ("deblur a.png --motion 1 1 --encoding log --output o", "invalid choice: 'log'"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_64(typed: Typed, words: str, sentence: str) -> None:
    code, out, err = typed(*words.split())
    assert (code, out) == (64, "")
    assert err.startswith("deblurd: ")
    assert err.count("\n") == 1
    assert sentence in err


def test_what_is_not_there_is_66(typed: Typed, tmp_path: Path) -> None:
    for words in (
        ["demo", "--slide", tmp_path / "no.svs"],
        ["run", "--config", tmp_path / "no.toml"],
        ["deblur", tmp_path / "no.png", "--motion", "-3", "0.5", "--output", tmp_path],
        ["config", "init", tmp_path / "new.toml", "--example", "nothing"],
    ):
        code, _, err = typed(*words)
        assert code == 66
        assert "there" in err


def test_version_and_help_end_with_0(typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    for words, text in ((["--version"], f"deblurd {__version__}"), (["--help"], "For research")):
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        assert end.value.code == 0
        assert text in capsys.readouterr().out


def test_config_init_writes_once(typed: Typed, tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    assert typed("config", "init", path)[0] == 0
    assert path.read_text() == config.default_text()
    code, _, err = typed("config", "init", path)
    assert code == 73
    assert "is there already" in err
    code, _, err = typed("config", "init", tmp_path / "no" / "new.toml")
    assert code == 73
    assert "cannot be written" in err


def test_config_check_show_and_schema(typed: Typed, file: Path) -> None:
    assert typed("config", "check", file) == (0, f"{file}: OK\n", "")
    code, out, _ = typed("config", "show", file)
    assert code == 0
    assert tomllib.loads(out)["simulator"]["fov_px"] == [128, 128]
    assert json.loads(typed("config", "schema")[1])["title"] == "Settings"
    file.write_text(SIMULATOR + "modle = 1\nbatch = 0\n")
    code, _, err = typed("config", "check", file)
    assert code == 78
    assert f"{file}:9: deblur.modle" in err
    assert f"{file}:10: deblur.batch" in err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MicroscopeError("the stage is off: switch it on"), 69, "the stage is off"),
        (KeyboardInterrupt(), 130, "stopped"),
        (PermissionError(13, "Permission denied", "x.txt"), 73, "x.txt could not be read or written"),
        (
            ZeroDivisionError("division by zero"),
            70,
            "this is a bug in deblurd (ZeroDivisionError: division by zero)",
        ),
    ],
)
def test_an_error_becomes_a_sentence_and_a_code(
    typed: Typed, file: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr(config, "load", fail)
    got, _, err = typed("config", "check", file)
    assert got == code
    assert err.startswith("deblurd: ")
    assert words in err
    assert "Traceback" not in err


def test_verbose_shows_the_traceback(file: Path) -> None:
    program = (
        "from deblurd import cli, config\n"
        "def fail(path): raise ZeroDivisionError('x')\n"
        "config.load = fail\n"
        f"raise SystemExit(cli.main(['config', 'check', {str(file)!r}, '-v']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 70
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("please report it, with the traceback above\n")


def test_the_environment_can_ask_for_the_traceback(
    typed: Typed, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(config, "load", fail)
    monkeypatch.setenv("DEBLURD_DEBUG", "1")
    code, _, err = typed("config", "check", file)
    assert code == 70
    assert err.count("\n") == 1
    assert caplog.records[-1].exc_info is not None


@pytest.mark.skipif(sys.platform != "linux", reason="breaks an output in the ways of Linux")
@pytest.mark.parametrize(
    ("end", "code", "complaint"),
    [
        (">&-", 0, ""),
        ("> /dev/full", 73, "deblurd: a file could not be read or written (No space left on device)"),
    ],
)
def test_an_output_that_nobody_reads_or_that_is_full(end: str, code: int, complaint: str) -> None:
    words = f"'{sys.executable}' -m deblurd config schema {end}"
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr.startswith(complaint)
    assert done.stderr.count("\n") == (1 if complaint else 0)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
def test_a_reader_that_leaves_early_ends_it_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "deblurd", "config", "schema"],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (141, "")


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom deblurd import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('numpy', 'onnxruntime', 'zarr', 'pymmcore_plus', 'pydantic', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_the_demo_gets_what_was_typed(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deblurd.simulator import demo

    asked: list[DemoOptions] = []

    def run_demo(options: DemoOptions, on_status: Any, stop: Any) -> dict[str, Any]:
        asked.append(options)
        return {"tiles": 3}

    monkeypatch.setattr(demo, "run_demo", run_demo)
    monkeypatch.setattr("deblurd.host.signals.stop_on_signals", lambda: None)
    report = tmp_path / "new" / "report.json"
    words = f"--pixel-size-um 0.25 --area-mm 1 0.5 --fov-px 256 --overlap 0.1 --exposure-ms 2 --blur-px 7 --seed 5 --report {report}"
    code, out, _ = typed("demo", *words.split(), "--model", "raw", "--output", tmp_path)
    assert code == 0
    assert "tiles" in out
    assert report.parent.is_dir()
    assert asked == [
        DemoOptions(None, 0.25, (1.0, 0.5), 256, 0.1, 2.0, None, 7.0, "raw", 5, tmp_path, report)
    ]


def test_run_says_where_each_slide_lies_and_what_was_lost_even_after_an_error(
    typed: Typed, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = SimpleNamespace(folder=SimpleNamespace(path=tmp_path / "s"), tiles=7)
    page = SimpleNamespace(url=None, view=SimpleNamespace(status=lambda: SimpleNamespace(sentence="")))
    closed: list[bool] = []

    class Daemon:
        report = SimpleNamespace(slides=[slide], frames=9, lost={"camera": 2, "buffer": 0})

        def __init__(self, settings: Any) -> None:
            assert settings == config.load(file)

        def run(self, on_status: Any, stop: Any) -> None:
            raise MicroscopeError("the camera is gone: plug it in")

        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr("deblurd.page.open_page", lambda daemon: nullcontext(page))
    monkeypatch.setattr("deblurd.daemon.Daemon", Daemon)
    monkeypatch.setattr("deblurd.host.signals.stop_on_signals", Stop)
    code, out, err = typed("run", "--config", file)
    assert code == 69
    assert closed == [True]
    assert f"{tmp_path / 's'}: 7 tiles\n9 frames, lost: camera 2\n" in out
    assert "the camera is gone" in err


def test_check_says_that_the_simulator_is_in_order(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = typed("check")
    assert code == 0, out
    assert "FAIL" not in out
    for part in (
        "config",
        "adapters",
        "microscope",
        "pixel size",
        "model",
        "providers",
        "disk",
        "output lock",
    ):
        assert part in out


def test_check_names_every_fault_and_ends_with_the_first(
    typed: Typed, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    file.write_text(
        '[microscope]\nconfig_file = "no.cfg"\nadapter_path = "."\n[deblur]\nmodel = "fats"\n[mosaic]\noutput = "o"\n'
    )
    code, out, _ = typed("check", "--config", file)
    assert code == 69
    assert out.count("FAIL") == 3
    for words in ("holds no device adapters", "no.cfg", "did you mean 'fast'?"):
        assert words in out
    with output_lock(tmp_path / "o"):
        code, out, _ = typed("check", "--config", file)
    assert code == 75
    assert "in use by another deblurd" in out
    # its microscope is left alone
    assert "no.cfg" not in out
    file.write_text("")
    assert typed("check", "--config", file)[0] == 78


def test_python_dash_m(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deblurd", "config", "chek"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 64
    assert "did you mean 'check'?" in done.stderr
