"""The engine: no seam between blocks, any size, results that do not depend on company."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deblurd.deblur import engine as engine_module
from deblurd.deblur.engine import Engine
from deblurd.deblur.model import find_model
from tests.deblur.samples import MakeModel, identity_taps, network

MOTION = np.array([[0.0, 10.0]], np.float32)


def image(height: int, width: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((1, 3, height, width), dtype=np.float32)


def blur_network(side: int = 9) -> NDArray[np.float32]:
    taps = np.random.default_rng(2).random((3, 3, side, side), dtype=np.float32)
    return np.asarray(taps / taps.sum())


@pytest.mark.parametrize(("height", "width"), [(64, 64), (1, 1), (3, 130), (61, 47)])
def test_any_size_comes_back_in_its_own_size(make_model: MakeModel, height: int, width: int) -> None:
    engine = Engine(make_model() / "model.onnx", device="cpu", threads=1, stride=4, halo_px=0)
    given = image(height, width)
    assert np.array_equal(engine.run(given, given, MOTION), given)


def test_blocks_leave_no_seam(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_model(network(blur_network())) / "model.onnx"
    engine = Engine(path, device="cpu", threads=1, stride=4, halo_px=6)
    given = image(300, 400)
    whole = engine.run(given, given, MOTION)
    monkeypatch.setattr(engine_module, "BLOCK_PX", 128)
    assert np.abs(engine.run(given, given, MOTION) - whole).max() == 0


def test_the_shipped_model_leaves_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    model = find_model("fast")
    assert model.manifest is not None
    assert model.folder is not None
    path: Path = model.folder / model.manifest.files[0].file
    engine = Engine(
        path, device="cpu", threads=2, stride=model.manifest.stride, halo_px=model.manifest.halo_px
    )
    given = image(320, 320)
    whole = engine.run(given, given, MOTION)
    monkeypatch.setattr(engine_module, "BLOCK_PX", 160)
    assert np.abs(engine.run(given, given, MOTION) - whole).max() == 0


def test_a_tile_does_not_feel_its_neighbours_in_the_batch(make_model: MakeModel) -> None:
    path = make_model(network(blur_network())) / "model.onnx"
    engine = Engine(path, device="cpu", threads=2, stride=4, halo_px=6)
    a, b = image(64, 64, 1), image(64, 64, 2)
    both = np.concatenate([a, b])
    together = engine.run(both, both, np.repeat(MOTION, 2, axis=0))
    assert np.array_equal(together[:1], engine.run(a, a, MOTION))


def test_the_network_reads_the_estimate_it_was_given(make_model: MakeModel) -> None:
    engine = Engine(
        make_model(network(identity_taps(), bias=0.25)) / "model.onnx",
        device="cpu",
        threads=1,
        stride=4,
        halo_px=0,
    )
    assert np.allclose(engine.run(image(8, 8, 1), image(8, 8, 2), MOTION), image(8, 8, 2) + 0.25)
