"""One scanned slide for all tests of slides, and copies of it to do harm to."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deblurd.simulator.demo import run_demo
from deblurd.simulator.options import DemoOptions
from deblurd.slides.folder import SlideFolder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide that nothing disturbed."""
    output = tmp_path_factory.mktemp("slides")
    options = DemoOptions(
        slide=None, pixel_size_um=0.5, area_mm=(0.4, 0.3), fov_px=256, overlap=0.2, exposure_ms=5.0, speed_um_s=None,
        blur_px=8.0, model="fast", seed=3, output=output, report=None,
    )  # fmt: skip
    return Path(run_demo(options)["slide"])


@pytest.fixture
def slide(finished: Path, tmp_path: Path) -> SlideFolder:
    target = tmp_path / "demo" / finished.name
    shutil.copytree(finished, target)
    return SlideFolder(target)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """The command line sets logging up for its own process; the next test wants it as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
