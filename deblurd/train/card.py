"""What is written of a model: the manifest for the engine, and the model card, which says it to people."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

COLUMNS = {
    "identity": "blurred",
    "wiener": "Wiener",
    "wiener_told_noise": "Wiener, told the noise",
    "richardson_lucy": "Richardson-Lucy",
    "model": "this model",
    "model_wrong_motion": "motion wrong",
}

TABLES = {
    "psnr_db": ("PSNR, dB, each family of images counting the same", 2),
    "ssim": ("SSIM", 3),
    "gmsd": ("GMSD, gradient magnitude similarity deviation (less is better)", 3),
}
"""What is shown of the measures, and with how many digits."""

PICTURE = "example.png"

WIDELY = "all_images"
"""Of a quality: what was measured without rivals, and so on all images."""


def write_model(
    folder: Path, manifest: dict[str, Any], more: Mapping[str, bytes] = MappingProxyType({})
) -> None:
    """Write ``manifest.json``, the card ``README.md`` and `more` files by name into a model folder: all of them or none."""
    files = {
        **more,
        "README.md": card(manifest).encode(),
        "manifest.json": (json.dumps(manifest, indent=2) + "\n").encode(),
    }
    parts = {folder / f"{name}.part": folder / name for name in files}
    try:
        for part, content in zip(parts, files.values(), strict=True):
            part.write_bytes(content)
        for part, path in parts.items():
            part.replace(path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def card(manifest: dict[str, Any]) -> str:
    """Markdown: purpose, limits, training data, and the quality tables if it was measured."""
    training = manifest["training"]
    lines = [
        f"# {manifest['name']} {manifest['version']}",
        "",
        f"{manifest['description']} Research use only. Licence of the weights: {manifest['licence']}.",
        "",
        _how(manifest),
        *_sub_models(manifest),
        *_precision(training.get("precision", {})),
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


def blur_name(level_px: float, defocus_px: float) -> str:
    """A kind of blur in words: ``10``, ``defocus 3``, ``10, defocus 3``, in px."""
    words = [f"{level_px:g}"] if level_px or not defocus_px else []
    return ", ".join([*words, *([f"defocus {defocus_px:g}"] if defocus_px else [])])


def tables(rows: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Title and Markdown lines of each table that the rows of a quality (by `summarise`) allow."""
    found = [
        (title, quality_table(rows, measure, digits))
        for measure, (title, digits) in TABLES.items()
        if measure in rows[0]
    ]
    if "nuclei" in rows[0]:
        title = "Nuclei seen in a field, a check on invention; in brackets, how many of them the sharp image does not have"
        found.append((title, nuclei_table(rows)))
    return found


def quality_table(rows: Sequence[dict[str, Any]], measure: str, digits: int) -> list[str]:
    """Markdown lines: a row for each blur and kind of direction, means over families, known and other ones apart."""
    cells: dict[tuple[bool, float, float, bool], list[dict[str, float]]] = defaultdict(list)
    for row in rows:
        kind = row.get("defocus_px", 0.0), row["level_px"], row["angle_deg"] % 90 != 0
        cells[not row["known"], *kind].append(row[measure])
    methods = [m for m in COLUMNS if any(m in row[measure] for row in rows)]
    lines = [
        "| images | level, px | direction | " + " | ".join(COLUMNS[m] for m in methods) + " |",
        "|---|---|---|" + "---|" * len(methods),
    ]
    for (other, defocus, level, slanting), found in sorted(cells.items()):
        means = [_mean([row[m] for row in found if m in row], digits) for m in methods]
        origin = "other sources" if other else "held out"
        direction = "slanting" if slanting else "axis" if level else "at rest"
        lines.append(f"| {origin} | {blur_name(level, defocus)} | {direction} | " + " | ".join(means) + " |")
    return lines


def nuclei_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown lines: nuclei that each method lets one see, and in brackets those of them that the sharp image does not have."""
    cells: dict[tuple[bool, float, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        cells[not row["known"], row["defocus_px"], row["level_px"]].append(row)
    methods = [m for m in COLUMNS if any(m in row["nuclei"] for row in rows)]
    lines = [
        "| images | level, px | sharp | " + " | ".join(COLUMNS[m] for m in methods) + " |",
        "|---|---|---|" + "---|" * len(methods),
    ]
    for (other, defocus, level), found in sorted(cells.items()):
        counts = [
            " ".join(
                text.format(_mean([row[measure][m] for row in found if m in row[measure]], digits))
                for measure, digits, text in (("nuclei", 1, "{}"), ("invented", 2, "({})"))
            )
            for m in methods
        ]
        sharp = _mean([row["nuclei_sharp"] for row in found], 1)
        origin = "other sources" if other else "held out"
        lines.append(f"| {origin} | {blur_name(level, defocus)} | {sharp} | " + " | ".join(counts) + " |")
    return lines


def _mean(values: Sequence[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f}" if values else "-"


def _paragraph(text: str) -> list[str]:
    return ["", text] if text else []


def _how(manifest: dict[str, Any]) -> str:
    low, high = manifest["blur_range_px"]
    grows = " and more, as a tile is noisier" if manifest.get("nsr_of_noise") else ""
    text = (
        f"It corrects a Wiener estimate (nsr {manifest['nsr']:g}{grows}), told the motion vector; blur levels {low:g} to {high:g} px. "
        "A motion and its reverse give the same result. What a blur took away altogether, no model can honestly bring back: "
        "fine detail along the motion is an estimate, and the raw pixels are the evidence."
    )
    if manifest["kind"] == "defocus":
        text += (
            f" Nobody tells it the focus: up to a sigma of {manifest['defocus_px']:g} px it finds the defocus by itself, and what it made of a frame "
            "then tells how far that was out of focus; a frame at rest that was not stays raw."
        )
    return text


def _sub_models(manifest: dict[str, Any]) -> list[str]:
    if manifest["kind"] != "bank":
        return []
    lines = ["", "| sub-model | blur level, px | direction, degrees |", "|---|---|---|"]
    for file in manifest["files"]:
        angle = "all" if file["angle_deg"] is None else "{:g} to {:g}".format(*file["angle_deg"])
        lines.append(f"| {file['file']} | {'{:g} to {:g}'.format(*file['blur_px'])} | {angle} |")
    return [*lines, "", "The motion vector chooses one of them for each tile."]


def _precision(files: dict[str, Any]) -> list[str]:
    if not files:
        return []
    lines = [
        "",
        "| file | precision | loss on held-out images, dB | times as fast as fp32 |",
        "|---|---|---|---|",
    ]
    for name, told in files.items():
        lines.append(f"| {name} | {told['precision']} | {told['loss_db']:.3f} | {told['speed']:.2f} |")
    return [
        *lines,
        "",
        "A CPU runs the int8 file, a GPU the fp16 file; where there is none, the one in fp32.",
    ]


def _quality(quality: dict[str, Any]) -> list[str]:
    if not quality:
        return ["## Quality", "", "Not measured yet.", ""]
    lines = ["## Quality", ""]
    if "picture" in quality:
        lines += [f"![before and after]({PICTURE})", "", quality["picture"], ""]
    if "rows" in quality:
        lines += [quality["conditions"], ""]
        for i, (title, table) in enumerate(tables(quality["rows"])):
            printed = "" if i else f"Printed by `{quality['command']}`. "
            lines += [f"{printed}{title}:", "", *table, ""]
        if harm := quality.get("harm"):  # not counted by versions of before
            lines += [*_harm(harm), ""]
    if widely := quality.get(WIDELY):
        title = TABLES["psnr_db"][0]
        lines += [
            "### On all images",
            "",
            f"{widely['conditions']} Printed by `{widely['command']}`. {title}:",
            "",
            *quality_table(widely["rows"], "psnr_db", 2),
            "",
            *_harm(widely["harm"]),
            "",
        ]
    return lines


def _harm(harm: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        "| | results | more than 0.1 dB behind the blurred input | at worst, dB (negative: never behind) | raw pixels stand |",
        "|---|---|---|---|---|",
    ]
    return lines + [
        f"| {COLUMNS[method]} | {told['results']} | {told['behind']} | {told['worst_loss_db']:.2f} | {told['kept_raw']} |"
        for method, told in harm.items()
    ]
