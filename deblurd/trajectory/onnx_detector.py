"""A detector that somebody trained: any ONNX file with the contract below, run by ONNX Runtime.

Input ``image``: (1, 1, H, W) float32, linear light, full scale 1. Output ``detections``: (N, 4) float32, a row for each object: y and x of its middle (px, from
the middle of the first pixel), diameter (px), score.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from deblurd.deblur.engine import providers_for
from deblurd.errors import ModelError, NoInputError
from deblurd.light import Image
from deblurd.trajectory.detect import Points, Wanted

INPUT, OUTPUT = "image", "detections"
_COLUMNS = 4


class OnnxDetector:
    """Keeps what scores `threshold` or more (all, where none is set) and is of a wanted size.

    Raises NoInputError where the file is missing, ModelError where it is not ONNX or breaks the contract.
    """

    def __init__(self, path: Path, wanted: Wanted) -> None:
        if not path.is_file():
            raise NoInputError(f"the detector {path} is not there: give the path of an ONNX file")
        self._path, self._wanted = path, wanted
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers_for("auto"))
        except Exception as err:  # ORT raises many kinds that share no base class but Exception
            raise ModelError(
                f"{path} could not be loaded by ONNX Runtime ({str(err).splitlines()[0]}): export the detector again"
            ) from err
        found = [i.name for i in self._session.get_inputs()], [o.name for o in self._session.get_outputs()]
        if found != ([INPUT], [OUTPUT]):
            raise ModelError(
                f"{path} has inputs {found[0]} and outputs {found[1]}, but a detector has {[INPUT]} and {[OUTPUT]}: export it so"
            )

    def find(self, light: Image) -> Points:
        """See `Detector`. Raises ModelError where the answer has another shape."""
        try:
            rows = np.asarray(
                self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(light)[None, None]})[0]
            )
        except Exception as err:  # as above
            raise ModelError(
                f"{self._path} failed on a frame of {light.shape} ({str(err).splitlines()[0]}): it must take (1, 1, H, W) float32"
            ) from err
        if rows.ndim != 2 or rows.shape[1] != _COLUMNS:
            raise ModelError(
                f"{self._path} gave {rows.shape}, but {OUTPUT} has a row of y, x, diameter, score for each object"
            )
        rows = rows.astype(np.float64)
        low, high = self._wanted.size_px
        good = np.isfinite(rows).all(axis=1) & (rows[:, 2] >= low) & (rows[:, 2] <= high)
        good &= ((rows[:, :2] > -0.5) & (rows[:, :2] < np.array(light.shape) - 0.5)).all(axis=1)
        if self._wanted.threshold is not None:
            good &= rows[:, 3] >= self._wanted.threshold
        return Points(rows[:, :2], rows[:, 2], rows[:, 3]).chosen(good)
