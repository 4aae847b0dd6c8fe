"""Small real networks in real model folders, and tissue-like tiles blurred with a known motion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deblurd.frames import MotionVector, Pixels, Pose, Tile
from deblurd.kernel import reblur
from deblurd.light import from_linear, to_linear


def network(taps: NDArray[np.float32], *, output: str = "sharp", bias: float = 0.0) -> onnx.ModelProto:
    """sharp = taps (3, 3, k, k) convolved with the estimate, plus nothing times blurred and motion."""
    image: list[Any] = ["n", 3, "h", "w"]
    inputs = [
        helper.make_tensor_value_info("blurred", TensorProto.FLOAT, image),
        helper.make_tensor_value_info("estimate", TensorProto.FLOAT, image),
        helper.make_tensor_value_info("motion", TensorProto.FLOAT, ["n", 2]),
    ]
    pad = taps.shape[-1] // 2
    nodes = [
        helper.make_node("Conv", ["estimate", "taps", "bias"], ["filtered"], pads=[pad] * 4),
        helper.make_node("Mul", ["blurred", "nothing"], ["no_blurred"]),
        helper.make_node("ReduceSum", ["motion"], ["travel"], keepdims=0),
        helper.make_node("Mul", ["travel", "nothing"], ["no_travel"]),
        helper.make_node("Add", ["filtered", "no_blurred"], ["half"]),
        helper.make_node("Add", ["half", "no_travel"], [output]),
    ]
    weights = [
        numpy_helper.from_array(taps.astype(np.float32), "taps"),
        numpy_helper.from_array(np.full(3, bias, np.float32), "bias"),
        numpy_helper.from_array(np.zeros((), np.float32), "nothing"),
    ]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, image)]
    graph = helper.make_graph(nodes, "test", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def identity_taps() -> NDArray[np.float32]:
    return np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)


MakeModel = Callable[..., Path]


def tissue(height: int = 256, width: int = 320, seed: int = 1) -> NDArray[np.uint8]:
    """Dark blobs and fibres on pink, (H, W, 3) uint8: enough like stained tissue for the gate and the check."""
    rng = np.random.default_rng(seed)
    image = np.empty((height, width, 3), np.float32)
    image[:] = (225, 170, 205)
    texture = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 1.2)
    image += 25 * (texture / texture.std())[..., None]
    for _ in range(height * width // 900):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(4, 8)), int(rng.integers(3, 6)))
        cv2.ellipse(image, centre, axes, float(rng.integers(180)), 0, 360, (90, 60, 140), -1, cv2.LINE_AA)
    return np.clip(image, 0, 255).astype(np.uint8)


def blurred(image: Pixels, motion: MotionVector, seed: int = 1) -> Pixels:
    """As a camera of 20,000 electrons full scale sees it while it moves."""
    rng = np.random.default_rng(seed)
    light = reblur(to_linear(image, "srgb"), motion) * 20000
    return from_linear(
        ((rng.poisson(light) + rng.normal(0, 4, light.shape)) / 20000).astype(np.float32), image.dtype, "srgb"
    )


def tile(motion: MotionVector, index: int = 0, shape: tuple[int, ...] = (256, 320, 3)) -> Tile:
    return Tile(index, 0, index, Pose(0.0, 0.0, 0.0), motion, 5.0, shape, "")


def psnr(a: Pixels, b: Pixels, border: int = 32) -> float:
    inside = (slice(border, -border), slice(border, -border))
    full = float(np.iinfo(a.dtype).max)
    return float(10 * np.log10(full**2 / np.mean((a[inside].astype(float) - b[inside].astype(float)) ** 2)))
