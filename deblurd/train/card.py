"""What is written of a model: the manifest for the engine, and the model card, which says it to people."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = {
    "identity": "blurred",
    "wiener": "Wiener",
    "richardson_lucy": "Richardson-Lucy",
    "model": "this model",
    "model_wrong_motion": "motion wrong",
}


def write_manifest(manifest: dict[str, Any], folder: Path) -> None:
    """Write ``manifest.json`` whole or not at all."""
    part = folder / "manifest.json.part"
    part.write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    part.replace(folder / "manifest.json")


def write_card(manifest: dict[str, Any], path: Path) -> None:
    """Write ``README.md`` of a model folder, UTF-8."""
    path.write_text(card(manifest), "utf-8")


def card(manifest: dict[str, Any]) -> str:
    """Markdown: purpose, limits, training data, and the quality table if it was measured."""
    low, high = manifest["blur_range_px"]
    training = manifest["training"]
    lines = [
        f"# {manifest['name']} {manifest['version']}",
        "",
        f"{manifest['description']} Research use only. Licence of the weights: {manifest['licence']}.",
        "",
        f"It corrects a Wiener estimate (nsr {manifest['nsr']:g}), told the motion vector; blur levels {low:g} to {high:g} px. "
        "A motion and its reverse give the same result. What a blur took away altogether, no model can honestly bring back: "
        "fine detail along the motion is an estimate, and the raw pixels are the evidence.",
        "",
        "## Trained on",
        "",
        f"{training['steps']} steps, seed {training['seed']}, {training['date']}. The recipe is in `manifest.json` and in "
        f"`deblurd/train/recipes/{manifest['name']}.toml`; `deblurd-train fit --recipe {manifest['name']} --images DIR --output DIR` trains it anew.",
        *_paragraph(training["recipe"].get("note", "")),
        "",
        "| images of | number | licence |",
        "|---|---|---|",
        *(f"| {row['name']} | {row.get('images', '')} | {row['licence']} |" for row in training["data"]),
        "",
        "Not seen in training: real pairs of moving and resting frames, fluorescence, and stains other than those above.",
        "",
    ]
    return "\n".join([*lines, *_quality(manifest["quality"])])


def quality_table(rows: list[dict[str, Any]], measure: str, digits: int) -> list[str]:
    """Markdown lines: a row for each level and kind of direction, means over families, known and other ones apart."""
    cells: dict[tuple[bool, float, bool], list[dict[str, float]]] = defaultdict(list)
    for row in rows:
        cells[not row["known"], row["level_px"], row["angle_deg"] % 90 != 0].append(row[measure])
    methods = [m for m in COLUMNS if all(m in row[measure] for row in rows)]
    lines = [
        "| images | level, px | direction | " + " | ".join(COLUMNS[m] for m in methods) + " |",
        "|---|---|---|" + "---|" * len(methods),
    ]
    for (other, level, slanting), found in sorted(cells.items()):
        means = [f"{np.mean([row[m] for row in found]):.{digits}f}" for m in methods]
        origin = "other sources" if other else "held out"
        lines.append(
            f"| {origin} | {level:g} | {'slanting' if slanting else 'axis'} | " + " | ".join(means) + " |"
        )
    return lines


def _paragraph(text: str) -> list[str]:
    return ["", text] if text else []


def _quality(quality: dict[str, Any]) -> list[str]:
    if not quality:
        return ["## Quality", "", "Not measured yet.", ""]
    return [
        "## Quality",
        "",
        quality["conditions"],
        "",
        f"Printed by `{quality['command']}`. PSNR, dB, each family of images counting the same:",
        "",
        *quality_table(quality["rows"], "psnr_db", 2),
        "",
        "SSIM:",
        "",
        *quality_table(quality["rows"], "ssim", 3),
        "",
        "On the image where it did worst it lay behind its blurred input by "
        f"{quality['worst_loss_db']['model']:.2f} dB, and by {quality['worst_loss_db']['model_wrong_motion']:.2f} dB "
        "with the wrong motion (negative: it never lay behind).",
        "",
    ]
