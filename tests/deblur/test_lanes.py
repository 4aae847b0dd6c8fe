"""What is for a GPU, as far as a CPU can show it: buffers, order, agreement, and the words where there is none."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from deblurd.deblur import engine as engine_module
from deblurd.deblur import lanes as lanes_module
from deblurd.deblur.engine import CPU, CUDA, TENSORRT, Engine, engine_cache, providers_for
from deblurd.deblur.lanes import Lane, Lanes
from deblurd.errors import ModelError
from tests.deblur.samples import MakeModel, network


@pytest.fixture
def path(make_model: MakeModel) -> Path:
    taps = np.random.default_rng(2).random((3, 3, 5, 5), dtype=np.float32)
    return make_model(network(taps / taps.sum())) / "model.onnx"


@pytest.fixture
def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=[CPU])


def feed(count: int, height: int, width: int, seed: int = 0) -> lanes_module.Feed:
    rng = np.random.default_rng(seed)
    blurred, estimate = rng.random((2, count, 3, height, width), dtype=np.float32)
    return blurred, estimate, rng.random((count, 2), dtype=np.float32)


def plain(session: Any, given: lanes_module.Feed) -> NDArray[np.float32]:
    result: NDArray[np.float32] = session.run(["sharp"], dict(zip(lanes_module.NAMES, given, strict=True)))[0]
    return result


def test_lanes_give_what_a_plain_run_gives_in_order_and_at_any_shape(session: Any) -> None:
    lanes = Lanes(session, None)
    feeds = [feed(3, 24, 40, 1), feed(1, 24, 40, 2), feed(2, 64, 16, 3), feed(2, 24, 40, 4)]
    for result, given in zip(lanes.run(feeds), feeds, strict=True):
        assert np.array_equal(result, plain(session, given))
    lanes.check(session)


def test_a_result_is_not_overwritten_by_the_next_run(session: Any) -> None:
    lane = Lane(session, None)
    first, second = feed(1, 16, 16, 1), feed(1, 16, 16, 2)
    result = lane.run(first)
    lane.run(second)
    assert np.array_equal(result, plain(session, first))


def test_lanes_that_give_other_numbers_are_not_used(session: Any) -> None:
    class Wrong:
        def run(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
            return [array + np.float32(0.1) for array in session.run(names, feed)]

    with pytest.raises(ValueError, match=r"differ by 0\.1"):
        Lanes(session, None).check(Wrong())


def test_without_the_device_a_plain_run_does_it_and_says_so(
    session: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onnxruntime, "get_ep_devices", list)
    with caplog.at_level(logging.WARNING):
        assert Lanes.of(session) is None
    assert "no such device is listed" in caplog.text


def test_an_engine_with_lanes_gives_the_same_picture(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and batches through the lanes, as on a GPU; the buffers are those of the CPU."""
    monkeypatch.setattr(engine_module, "BLOCK_PX", 64)
    engine = Engine(path, device="cpu", threads=1, stride=4, halo_px=4)
    given = feed(2, 130, 90)
    wanted = engine.run(*given)
    engine._lanes = Lanes(engine.session, None)
    assert np.array_equal(engine.run(*given), wanted)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (129, 130), (300, 257), (64, 1000)])
def test_blocks_are_of_one_size_and_cover_the_image_once(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "BLOCK_PX", 128)
    stride, halo = 16, 32
    height, width = -(-height // stride) * stride, -(-width // stride) * stride
    seen = np.zeros((height, width), int)
    shapes = set()
    for outer, inner, core in engine_module._cuts(height, width, halo, stride):
        seen[inner] += 1
        shapes.add(tuple(s.stop - s.start for s in outer))
        for o, i, c, side in zip(outer, inner, core, (height, width), strict=True):
            assert (o.start % stride, o.start + c.start, o.start + c.stop) == (0, i.start, i.stop)
            assert i.start - o.start >= halo or o.start == 0
            assert o.stop - i.stop >= halo or o.stop == side
    assert (seen == 1).all()
    assert len(shapes) == 1


def test_tensorrt_keeps_what_it_compiled_in_a_folder_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", os.pathsep.join([str(tmp_path / "cache"), str(tmp_path)]))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    (name, options), (second, _), third = providers_for("tensorrt")
    assert (name, second, third) == (TENSORRT, CUDA, CPU)
    assert Path(options["trt_engine_cache_path"]) == tmp_path / "cache" / "tensorrt" == engine_cache()
    assert options["trt_engine_cache_enable"] == "1"
    assert engine_cache().is_dir()
    assert [p if isinstance(p, str) else p[0] for p in providers_for("cuda")] == [CUDA, CPU]
    assert providers_for("cpu") == [CPU]


def test_a_cache_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="cannot be made"):
        engine_cache()


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_falling_back_is_refused_where_a_gpu_was_asked_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, device: engine_module.Device
) -> None:
    monkeypatch.setattr(engine_module, "providers_for", lambda _: [CPU])
    with pytest.raises(ModelError, match=f'"{device}", but ONNX Runtime fell back to the CPU'):
        Engine(path, device=device, threads=1, stride=4, halo_px=0)


def test_falling_back_by_itself_is_said_loudly(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """CUDA is offered, and the session comes up without it."""

    class WithoutCuda(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, *arguments: Any, providers: list[Any]) -> None:
            super().__init__(*arguments, providers=[CPU])

    monkeypatch.setattr(engine_module, "providers_for", lambda _: [(CUDA, {}), CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", WithoutCuda)
    with caplog.at_level(logging.WARNING):
        engine = Engine(path, device="auto", threads=1, stride=4, halo_px=0)
    assert "the model runs on the CPU, several times slower" in caplog.text
    assert engine.providers == [CPU]
