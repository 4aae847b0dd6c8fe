"""Exported networks in fewer bits, where that is faster and costs next to nothing: int8 for a CPU, fp16 for a GPU.

Of the convolutions, int8 takes those that bear it: each is tried alone, then they are added from the least harmed on, for as
long as the loss allows. A layer's weights get a scale for each of their channels, activations one, from a percentile of what calibration shows.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType
from onnxruntime.quantization import quantize_static as quantise_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from deblurd.deblur.engine import Device, providers_for
from deblurd.deblur.model import nearest_kind
from deblurd.errors import ModelError
from deblurd.frames import MotionVector
from deblurd.train.dataset import list_images, load_images
from deblurd.train.degrade import Example, draw_example
from deblurd.train.recipe import KindRecipe, Recipe

Precision = Literal["int8", "fp16"]
MOST_LOSS_DB = 0.05
LEAST_SPEED = 1.05
EXAMPLES = 48
RATED_PX = 768
_PERCENTILE = 99.99
_CALIBRATED_ON = 2
"""Every second example calibrates; all measure."""

Feed = dict[str, NDArray[np.float32]]
Session = Any


def lower(
    path: Path, target: Path, precision: Precision, examples: Sequence[Example], threads: int = 0
) -> dict[str, Any]:
    """Write to `target` the network at `path` in fewer bits; returns what that costs and brings, for the manifest.

    examples: of held-out images. Raises ModelError, and writes nothing, where it would lose more than `MOST_LOSS_DB` or
    not be faster on this machine.
    """
    device: Device = "auto" if precision == "fp16" else "cpu"
    before = _Measured(path, examples, threads, device)
    if precision == "fp16" and "CUDAExecutionProvider" not in before.session.get_providers():
        raise ModelError(
            "fp16 is for a GPU, and ONNX Runtime finds none here: export on a machine with CUDA."
        )
    with tempfile.TemporaryDirectory(prefix="deblurd-precision-") as folder, _quiet():
        lowered = Path(folder) / "lowered.onnx"
        report: dict[str, Any] = {"precision": precision}
        if precision == "fp16":
            onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), lowered)
        else:
            report["layers"] = _int8_layers(path, lowered, examples, before.psnr_db, threads)
        after = _Measured(lowered, examples, threads, device)
        loss_db = before.psnr_db - after.psnr_db
        speed = _speed(after.session, before.session)
        if not loss_db <= MOST_LOSS_DB:
            raise ModelError(
                f"In {precision} the model loses {loss_db:.3f} dB, more than {MOST_LOSS_DB:g}: it stays in fp32."
            )
        if not speed >= LEAST_SPEED:
            raise ModelError(
                f"In {precision} the model has {speed:.2f} times the speed of fp32 on this machine, so it brings nothing: it "
                "stays in fp32."
            )
        target.write_bytes(lowered.read_bytes())
    return report | {
        "loss_db": round(loss_db, 4),
        "speed": round(speed, 2),
        "on": after.session.get_providers()[0],
    }


def held_out_examples(folder: Path, recipe: Recipe, kind: KindRecipe | None) -> list[Example]:
    """Examples of the images in `folder` that validate the recipe; of one kind of blur, if given. Raises what `load_images` raises."""
    entries = [e for e in list_images(folder, recipe.data) if e.pair is None]
    images = load_images(folder, entries, "val", recipe.data, recipe.degrade.scene_px)
    weights, rng = images.sampling_weights(), np.random.default_rng([recipe.seed, 3])
    examples: list[Example] = []
    while len(examples) < EXAMPLES:
        drawn = draw_example(images, weights, recipe.degrade, rng)
        motion = MotionVector(*(float(x) for x in drawn.motion))
        if kind is None or recipe.network.kinds[nearest_kind(motion, recipe.network.kinds)] == kind:
            examples.append(drawn)
    return examples


def _int8_layers(
    path: Path, target: Path, examples: Sequence[Example], fp32_db: float, threads: int
) -> list[str]:
    """Writes the best int8 network to `target`; returns the names of its convolutions in int8."""
    prepared = target.with_name("prepared.onnx")
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    convolutions = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
    feeds = [_feed(example) for example in examples[::_CALIBRATED_ON]]

    def loss_db(layers: Sequence[str]) -> float:
        quantise_static(
            str(prepared),
            str(target),
            _Calibration(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[name for name in convolutions if name not in layers],
            per_channel=True,
            # 7 bits for weights: processors without VNNI add two products in 16 bits, and those of 8 would overflow
            reduce_range=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": _PERCENTILE},
        )
        return fp32_db - _Measured(target, examples, threads, "cpu").psnr_db

    alone = {name: loss_db([name]) for name in convolutions}
    taken: list[str] = []
    for name in sorted(convolutions, key=alone.__getitem__):
        if loss_db([*taken, name]) > MOST_LOSS_DB:
            break
        taken.append(name)
    if not taken:
        raise ModelError(
            f"Not one layer of the model bears int8: each loses more than {MOST_LOSS_DB:g} dB, so it stays in fp32."
        )
    loss_db(taken)
    return taken


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._left: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._left, None)


class _Measured:
    """A network file and its mean PSNR on the examples."""

    def __init__(self, path: Path, examples: Sequence[Example], threads: int, device: Device) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session: Session = onnxruntime.InferenceSession(
            str(path), options, providers=providers_for(device)
        )
        self.psnr_db = float(np.mean([self._psnr_db(example) for example in examples]))

    def _psnr_db(self, example: Example) -> float:
        (sharp,) = self.session.run(None, _feed(example))
        wanted = example.sharp.astype(np.float32).transpose(2, 0, 1)[None] / 65535
        return -10 * float(np.log10(np.mean(np.square(np.clip(sharp, 0, 1) - wanted)) + 1e-7))


def _feed(example: Example) -> Feed:
    def planes(field: NDArray[np.uint16]) -> NDArray[np.float32]:
        return np.ascontiguousarray(field.astype(np.float32).transpose(2, 0, 1)[None] / 65535, np.float32)

    return {
        "blurred": planes(example.blurred),
        "estimate": planes(example.estimate),
        "motion": example.motion[None],
    }


def _speed(session: Session, other: Session, rounds: int = 5) -> float:
    """How many times as fast as another one, by the best of a few rounds in turn."""
    rng = np.random.default_rng(0)
    blurred, estimate = rng.random((2, 1, 3, RATED_PX, RATED_PX), dtype=np.float32)
    feed = {"blurred": blurred, "estimate": estimate, "motion": np.array([[3, 9]], np.float32)}

    def seconds(one: Session) -> float:
        began_s = time.perf_counter()
        one.run(None, feed)
        return time.perf_counter() - began_s

    times = [(seconds(session), seconds(other)) for _ in range(rounds + 1)][1:]
    return min(t[1] for t in times) / min(t[0] for t in times)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser's advice goes to the root logger and to the standard output."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(previous)
