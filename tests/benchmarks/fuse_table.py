"""What frames with other blur, other light and wrong places are worth together: joint Wiener on images held out from training.

python -m tests.benchmarks.fuse_table FOLDER_OF_IMAGES [MOST_IMAGES]

Exposures are named by the blur that they collect at one and the same stage speed; light is electrons of white in the time of a 20 px exposure. PSNR in dB
of encoded values, mean over images: of the result, of the prediction, and the mean and largest distance between them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from deblurd.frames import MotionVector
from deblurd.fuse.expect import Known, View, expected_psnr_db
from deblurd.fuse.joint import Kind, joint_wiener, transfer_of
from deblurd.fuse.spectrum import Specimen, Spectrum, fit_spectrum, measure_specimen
from deblurd.imagefiles import read_image
from deblurd.kernel import motion_kernel, reblur
from deblurd.light import Image, encode, to_linear

ROWS: dict[str, list[float]] = {
    "one of 20": [20],
    "one of 10": [10],
    "one of 5": [5],
    "one of 2": [2],
    "one of 1": [1],
    "two, 20 + 14": [20, 14],
    "two, 20 + 2": [20, 2],
    "four of 5": [5] * 4,
    "four of 2": [2] * 4,
    "four, 10 + 7 + 5 + 3": [10, 7, 5, 3],
    "twelve of 2": [2] * 12,
    "twelve of 1": [1] * 12,
    "twelve, 10, 7, 5 in turn": [10, 7, 5] * 4,
    "twelve, 20, 14 in turn": [20, 14] * 6,
}
OFF_PX, LONGER = (0.1, 0.25, 0.5), 1.03
ERRORS_ON = "four, 10 + 7 + 5 + 3"
READ_E, SIDE_PX, BORDER_PX = 4.0, 512, 32


def shoot(light: Image, blurs_px: list[float], electrons: float, off_px: float, longer: float) -> list[Kind]:
    """Frames of a scene, averaged by kind as `Fuser` does; each but the first is off by `off_px`, and every kernel told too long."""
    rng = np.random.default_rng(1)
    kinds: list[Kind] = []
    for blur_px in sorted(set(blurs_px), reverse=True):
        n, own = blurs_px.count(blur_px), electrons * blur_px / 20
        blurred = reblur(light, MotionVector(0.0, blur_px))
        total = np.zeros_like(blurred)
        for _ in range(n):
            dy, dx = rng.normal(0, off_px, 2) if kinds or total.any() else (0.0, 0.0)
            at = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
            flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
            moved = blurred if off_px == 0 else cv2.warpAffine(blurred, at, blurred.shape[1::-1], flags=flags)
            noise = np.sqrt(np.maximum(moved, 0) * own + READ_E**2) / own
            total += moved + (rng.normal(size=moved.shape) * noise).astype(np.float32)
        mean = np.asarray(total / n, np.float32)
        variance = (mean.mean(axis=(0, 1), dtype=np.float64) * own + READ_E**2) / own**2 / n
        kinds.append(Kind(mean, motion_kernel(MotionVector(0, blur_px * longer)), variance, None, n, off_px))
    return kinds


def spectra_of(kinds: list[Kind]) -> list[Spectrum]:
    """As `Fuser` has them: from the least blurred frames."""
    best = min(kinds, key=lambda kind: kind.kernel.size)
    transfer = transfer_of(best.kernel, best.image.shape[:2])
    planes = np.moveaxis(best.image, 2, 0)
    return [fit_spectrum([plane], float(v), transfer) for plane, v in zip(planes, best.variance, strict=True)]


def measure(
    images: list[Image],
    specimens: list[Specimen],
    row: list[float],
    electrons: float,
    off_px: float,
    longer: float,
) -> tuple[float, float, float, float]:
    """Result and prediction in dB, mean and largest distance between them."""
    got, told = [], []
    for light, specimen in zip(images, specimens, strict=True):
        kinds = shoot(light, row, electrons, off_px, longer)
        estimate = joint_wiener(kinds, spectra_of(kinds)).image
        inner = slice(BORDER_PX, -BORDER_PX), slice(BORDER_PX, -BORDER_PX)
        error = encode(estimate)[inner] - encode(light)[inner]
        got.append(float(-10 * np.log10(np.mean(error**2, dtype=np.float64))))
        views = [View(MotionVector(0.0, blur_px), electrons * blur_px / 20, READ_E) for blur_px in row]
        told.append(expected_psnr_db(views, specimen, Known(off_px, longer - 1, 0)))
    off = np.abs(np.array(got) - np.array(told))
    return float(np.mean(got)), float(np.mean(told)), float(off.mean()), float(off.max())


def main(folder: Path, most: int) -> None:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".webp", ".png", ".tif"))
    files = files[:: max(1, len(files) // most)][:most]
    images = [to_linear(read_image(file)[:SIDE_PX, :SIDE_PX, :3], "srgb") for file in files]
    specimens = [measure_specimen([light]) for light in images]
    print(f"{len(images)} images of {folder.name}\n")
    print(
        "| frames that see the place | 10,000 e-: result | predicted | off, mean / most | 1,000 e-: result | predicted | off, mean / most |"
    )
    print("|---|---|---|---|---|---|---|")
    cases = [(name, row, 0.0, 1.0) for name, row in ROWS.items()]
    cases += [(f"{ERRORS_ON}; off by {off} px", ROWS[ERRORS_ON], off, 1.0) for off in OFF_PX]
    cases += [(f"{ERRORS_ON}; kernel 3 % long", ROWS[ERRORS_ON], 0.0, LONGER)]
    for name, row, off_px, longer in cases:
        cells = []
        for electrons in (10_000.0, 1_000.0):
            got, told, mean, largest = measure(images, specimens, row, electrons, off_px, longer)
            cells.append(f"{got:.1f} | {told:.1f} | {mean:.1f} / {largest:.1f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 6)
