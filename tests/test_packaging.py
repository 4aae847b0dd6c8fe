"""What is built from this checkout is complete, asks for what it uses, and needs one command."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import deblurd

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=100,
    )
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_carries_models_examples_and_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for source, packed in (("models", "_models"), ("config", "_config")):
        for path in (ROOT / source).rglob("*"):
            if path.is_file():
                assert f"deblurd/{packed}/{path.relative_to(ROOT / source).as_posix()}" in names
    assert "deblurd/_models/fast/model.onnx" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "docs/")) or "__pycache__" in name]
    assert f"-{deblurd.__version__}-" in wheel.name


def test_the_wheel_finds_its_models_and_examples_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = """
import deblurd
from pathlib import Path
from deblurd.deblur.model import find_model
from deblurd.resources import example_config, example_names
print(deblurd.__file__, find_model("fast").folder, len(example_config("simulator")), *example_names(), sep="\\n")
"""
    done = _python(program, tmp_path, PYTHONPATH=str(tmp_path / "site"))
    package, model, length, *examples = done.splitlines()
    site = tmp_path / "site" / "deblurd"
    assert Path(package).parent == site
    assert Path(model) == site / "_models" / "fast"
    assert int(length) > 1000
    assert set(examples) >= {"simulator", "democam", "hardware"}


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert importlib.metadata.version("deblurd") == deblurd.__version__


def test_every_import_is_asked_for() -> None:
    """Of what the daemon imports, nothing is in the environment only because some tool brought it along."""
    # of the table, not of the installed metadata, which may be older
    asked = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    extras = {
        extra: {canonicalize_name(Requirement(text).name) for text in texts}
        for extra, texts in PROJECT["optional-dependencies"].items()
    }
    of_folder = {
        "deblurd.train": extras["train"],
        "deblurd.trajectory": extras["trajectories"] | extras["geff"],
    }
    distributions = importlib.metadata.packages_distributions()
    graph = grimp.build_graph("deblurd", include_external_packages=True, cache_dir=None)
    for module in sorted(graph.modules):
        top = module.split(".")[0]
        if top in sys.stdlib_module_names or top in {"deblurd", "__future__"}:
            continue
        owners = {canonicalize_name(name) for name in distributions.get(top, [top])}
        importers = graph.find_modules_that_directly_import(module)
        for importer in importers:
            theirs = of_folder.get(".".join(importer.split(".")[:2]), set())
            assert owners & (asked | theirs), f"{importer} imports {top} unasked"


def test_torch_is_asked_for_by_the_trainer_alone_and_exactly() -> None:
    assert not [text for text in PROJECT["dependencies"] if text.startswith("torch")]
    assert "torch==2.13.0" in PROJECT["optional-dependencies"]["train"]


def test_only_one_onnx_runtime_is_asked_for() -> None:
    extras = [text for extra in PROJECT["optional-dependencies"].values() for text in extra]
    names = [Requirement(text).name for text in [*PROJECT["dependencies"], *extras]]
    assert "onnxruntime" not in names


def test_telemetry_is_off_before_onnx_runtime_is_imported(tmp_path: Path) -> None:
    program = """
import os, sys
import deblurd.deblur.engine
assert "onnxruntime" in sys.modules
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""
    assert _python(program, tmp_path, ORT_DISABLE_TELEMETRY="0").strip() == "1"


def test_telemetry_is_off_from_the_first_line_of_the_package(tmp_path: Path) -> None:
    program = """
import sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            import os
            print(os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
import deblurd.deblur.engine
"""
    assert _python(program, tmp_path).split()[0] == "1"


@pytest.mark.parametrize("wanted", [None, "2"])
def test_small_products_stay_in_their_thread_unless_told_otherwise(
    tmp_path: Path, wanted: str | None
) -> None:
    program = "import deblurd, os; print(os.environ['OPENBLAS_NUM_THREADS'])"
    told = {} if wanted is None else {"OPENBLAS_NUM_THREADS": wanted}
    assert _python(program, tmp_path, **told).strip() == (wanted or "1")


# --- make ---

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
def test_make_alone_says_what_there_is(tmp_path: Path) -> None:
    done = _make(tmp_path)
    assert done.returncode == 0
    assert {"install", "demo", "test", "check", "clean"} <= set(
        re.findall(r"^  make (\w+)", done.stdout, re.M)
    )


@needs_make
def test_the_demo_needs_the_plain_install_only(tmp_path: Path) -> None:
    plan = _make(tmp_path, "-n", "demo").stdout
    assert "--editable ." in plan
    assert "[dev" not in plan
    assert plan.rstrip().endswith("deblurd demo")


@needs_make
def test_a_python_that_will_not_do_is_refused_with_one_sentence(tmp_path: Path) -> None:
    old = tmp_path / "python2"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for python in (str(old), str(tmp_path / "missing")):
        done = _make(tmp_path, "install", f"PYTHON={python}")
        assert done.returncode != 0
        said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
        assert len(said) == 1
        assert said[0].startswith("deblurd needs Python 3.11, 3.12 or 3.13")
        assert not (tmp_path / ".venv").exists()


@needs_make
def test_it_installs_again_only_when_the_project_changed(tmp_path: Path) -> None:
    venv = tmp_path / ".venv"
    venv.mkdir()
    (tmp_path / "pyproject.toml").touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (".python", ".plain", ".dev"):
        (venv / name).touch()
    assert "install" not in _make(tmp_path, "-n", "demo").stdout
    later = (venv / ".plain").stat().st_mtime + 10
    os.utime(tmp_path / "pyproject.toml", (later, later))
    assert "pip install" in _make(tmp_path, "-n", "demo").stdout
    assert "'.[dev,train]'" in _make(tmp_path, "-n", "test").stdout


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.read_text("utf-8").splitlines()[-1] == "make test"


def _make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "Makefile", folder)
    if not (folder / "pyproject.toml").exists():
        (folder / "pyproject.toml").touch()
    # a make that runs these tests hands its own options on by the environment
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=clean, text=True, capture_output=True, timeout=60
    )


def _python(program: str, folder: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=os.environ | variables,
        text=True,
        capture_output=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
