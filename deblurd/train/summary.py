"""From scores to rows that fit into a manifest, a table, or a file for a spreadsheet."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deblurd.train.evaluate import Score

_MEASURES: dict[str, tuple[Callable[[Score], float], int]] = {
    "psnr_db": (lambda s: s.psnr_db, 2),
    "ssim": (lambda s: s.ssim, 4),
    "gmsd": (lambda s: s.gmsd, 4),
    "nuclei": (lambda s: s.nuclei, 1),
    "invented": (lambda s: s.invented, 2),
    "kept_raw": (lambda s: s.kept_raw, 2),
}


def summarise(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Means over images for each family and blur: a row with the measures of every method."""
    cells: dict[tuple[str, bool, float, float, float], dict[str, list[Score]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for s in scores:
        cells[s.family, s.known, s.level_px, s.angle_deg, s.defocus_px][s.method].append(s)
    return [
        {
            "family": family,
            "known": known,
            "level_px": level,
            "angle_deg": angle,
            "defocus_px": defocus,
            "images": len(methods["identity"]),
            "nuclei_sharp": round(_mean(methods["identity"], lambda s: s.nuclei_sharp), 1),
            **{
                measure: {m: round(_mean(found, value), digits) for m, found in methods.items()}
                for measure, (value, digits) in _MEASURES.items()
            },
        }
        for (family, known, level, angle, defocus), methods in sorted(cells.items())
    ]


def worst_loss_db(scores: Sequence[Score], method: str) -> float:
    """How far the method fell behind its input on the image where it did worst, dB; negative if it never did."""

    def key(s: Score) -> tuple[str, float, float, float]:
        return s.image, s.level_px, s.angle_deg, s.defocus_px

    identity = {key(s): s.psnr_db for s in scores if s.method == "identity"}
    return max(identity[key(s)] - s.psnr_db for s in scores if s.method == method)


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """Every score as a row of a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Score.__slots__)
        writer.writerows([getattr(s, name) for name in Score.__slots__] for s in scores)


def _mean(scores: Sequence[Score], value: Callable[[Score], float]) -> float:
    return float(np.mean([value(s) for s in scores]))
