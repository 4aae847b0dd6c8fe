"""From scores to rows that fit into a manifest, a table, or a file for a spreadsheet."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deblurd.train.evaluate import Score

HARM_DB = 0.1
"""What nobody sees: a result that lies further behind its input does harm."""

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


def losses_db(scores: Sequence[Score], method: str) -> list[float]:
    """How far the method fell behind its input, dB, on each field and blur; negative where it did not."""

    def key(s: Score) -> tuple[str, float, float, float]:
        return s.image, s.level_px, s.angle_deg, s.defocus_px

    identity = {key(s): s.psnr_db for s in scores if s.method == "identity"}
    return [identity[key(s)] - s.psnr_db for s in scores if s.method == method]


def worst_losses_db(scores: Sequence[Score]) -> dict[str, float]:
    """The greatest of the losses of each method that was run."""
    methods = dict.fromkeys(s.method for s in scores if s.method != "identity")
    return {method: round(max(losses_db(scores, method)), 2) for method in methods}


def harm(scores: Sequence[Score], method: str) -> dict[str, float]:
    """For the manifest: on how many fields and blurs the method was run, fell behind its input by more than `HARM_DB`, and let the raw pixels stand."""
    losses = losses_db(scores, method)
    kept_raw = sum(s.kept_raw for s in scores if s.method == method)
    return {
        "results": len(losses),
        "behind": sum(loss > HARM_DB for loss in losses),
        "kept_raw": kept_raw,
        "worst_loss_db": round(max(losses), 2),
    }


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """Every score as a row of a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Score.__slots__)
        writer.writerows([getattr(s, name) for name in Score.__slots__] for s in scores)


def _mean(scores: Sequence[Score], value: Callable[[Score], float]) -> float:
    return float(np.mean([value(s) for s in scores]))
