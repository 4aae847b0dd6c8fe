"""Pictures for people: what a model gains at each blur, and what it makes of a field."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from deblurd.train.card import COLUMNS, blur_name
from deblurd.train.dataset import Images
from deblurd.train.evaluate import Model, best_fields, blurred_field
from deblurd.train.rivals import Blur
from deblurd.train.sources import Picture

PANEL_PX = 160
_GAP_PX = 4


def draw_gains(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Gain in PSNR over the blurred image against the kind of blur, for each method; known families and other ones apart."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, known in zip(panels, (True, False), strict=True):
        chosen = [row for row in rows if row["known"] is known]
        kinds = sorted({(row["defocus_px"], row["level_px"]) for row in chosen})
        names = [blur_name(level, defocus) for defocus, level in kinds]
        for method, title in COLUMNS.items():
            if method != "identity" and chosen:
                panel.plot(names, [_gain(chosen, kind, method) for kind in kinds], "o-", label=title)
        panel.axhline(0, color="grey", linewidth=0.8)
        panel.set(title="held out" if known else "other sources", xlabel="blur, px")
    panels[0].set_ylabel("PSNR over that of the blurred image, dB")
    panels[0].legend()
    figure.savefig(path)


def _gain(rows: Sequence[dict[str, Any]], kind: tuple[float, float], method: str) -> float:
    """nan where the method was not measured: matplotlib leaves a gap."""
    gains = [
        row["psnr_db"][method] - row["psnr_db"]["identity"]
        for row in rows
        if (row["defocus_px"], row["level_px"]) == kind and method in row["psnr_db"]
    ]
    return float(np.mean(gains)) if gains else float("nan")


def before_and_after(model: Model, images: Images, blurs: Sequence[Blur]) -> Picture | None:
    """A row for each blur: blurred, by the model, and as it should be. Of an image that anybody may show (CC0); None if there is none."""
    free = [p for p, e in zip(images.pixels, images.entries, strict=True) if e.licence.startswith("CC0")]
    if not free:
        return None
    widest = max(blur.reach_px for blur in blurs)
    (field,) = best_fields(free[0], PANEL_PX + 2 * (2 * widest + 4), 1)
    rows = []
    for blur in blurs:
        pixels, truth = blurred_field(field, blur, np.random.default_rng(0))
        restored = np.asarray(model.restore(pixels, blur.motion).pixels, np.uint8)
        panels = [_middle(image) for image in (pixels, restored, truth)]
        rows.append(np.concatenate([_framed(panel) for panel in panels], axis=1))
    return np.concatenate(rows, axis=0)


def png(picture: Picture) -> bytes:
    """As a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()


def _middle(image: Picture) -> Picture:
    top, left = (max(side - PANEL_PX, 0) // 2 for side in image.shape[:2])
    return image[top : top + PANEL_PX, left : left + PANEL_PX]


def _framed(image: Picture) -> Picture:
    return np.pad(image, ((0, _GAP_PX), (0, _GAP_PX), (0, 0)), constant_values=255)
