"""``deblurd-train fit | export | evaluate``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.progress import track

from deblurd.errors import DeblurdError, OutputError, UsageError
from deblurd.train.card import (
    PICTURE,
    blur_name,
    tables,
    write_card,
    write_manifest,
)
from deblurd.train.dataset import Images, Split, list_images, load_images
from deblurd.train.recipe import DataRecipe, load_recipe, shipped

SHOWN = 2
"""Rows of the picture in a model card: the last of the blurs that were measured, in the first direction."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code of sysexits.h. Errors are one sentence on stderr."""
    options = _parser().parse_args(arguments)
    options.typed = list(sys.argv[1:] if arguments is None else arguments)
    console, complaints = Console(), Console(stderr=True)
    try:
        options.run(options, console)
    except DeblurdError as err:
        complaints.print(str(err), markup=False, highlight=False, soft_wrap=True)
        return err.exit_code
    except KeyboardInterrupt:
        complaints.print("Stopped; the same command goes on from the last checkpoint.")
        return 130
    return 0


def _fit(options: argparse.Namespace, console: Console) -> None:
    _need_torch()
    from deblurd.train.fit import fit

    recipe = load_recipe(options.recipe)
    if options.steps:
        recipe = recipe.model_copy(update={"fit": recipe.fit.model_copy(update={"steps": options.steps})})
    path = fit(recipe, options.images, options.output, options.device, options.threads, console)
    console.print(f"Trained: {path}")


def _export(options: argparse.Namespace, console: Console) -> None:
    _need_torch()
    from deblurd.train.checkpoint import load_checkpoint
    from deblurd.train.export import export

    if options.precision != "fp32" and options.images is None:
        raise UsageError(f"--precision {options.precision} has to be measured: add --images DIR.")
    images = options.images if options.precision != "fp32" else None
    folder = export(load_checkpoint(options.checkpoint), options.models, options.precision, images)
    console.print(f"Exported: {folder}")


def _evaluate(options: argparse.Namespace, console: Console) -> None:
    from deblurd.train import plots
    from deblurd.train.evaluate import METHODS, Model, all_blurs, conditions, evaluate
    from deblurd.train.summary import summarise, worst_loss_db, write_scores

    model = Model(options.model)
    recipe = DataRecipe.model_validate(
        model.manifest["training"]["recipe"]["data"] | {"exclude": options.exclude}
    )
    blurs = all_blurs(options.blur, options.angle, options.defocus)
    entries = list_images(options.images, recipe)
    least = 4 * max(blur.reach_px for blur in blurs) + 40
    images = _limited(load_images(options.images, entries, options.split, recipe, least), options.limit)
    total = len(images.pixels)
    console.print(
        f"{total} images; levels {options.blur}, angles {options.angle}, defocus {options.defocus}."
    )
    rounds = evaluate(model, images, blurs, options.field_px, options.fields)
    scores = [score for found in track(rounds, "measuring", console=console) for score in found]
    rows = summarise(scores)
    quality: dict[str, Any] = {
        "conditions": conditions(options.field_px, options.fields),
        "command": "deblurd-train " + " ".join(options.typed),
        "rows": rows,
        "worst_loss_db": {
            m: round(worst_loss_db(scores, m), 2)
            for m in METHODS[1:]
            if any(score.method == m for score in scores)
        },
    }
    for title, table in tables(rows):
        console.print("\n".join([f"{title}:", *table]), markup=False, highlight=False, soft_wrap=True)
    console.print(f"Behind the input at worst, dB: {quality['worst_loss_db']}")
    try:
        if options.report:
            options.report.write_text(json.dumps(quality, indent=2) + "\n", "utf-8")
            write_scores(scores, options.report.with_suffix(".csv"))
            plots.draw_gains(rows, options.report.with_suffix(".png"))
        if options.record:
            shown = [blur for blur in blurs if blur.angle_deg == options.angle[0]][-SHOWN:]
            picture = plots.before_and_after(model, images, shown)
            if picture is not None:
                plots.write_picture(picture, options.model / PICTURE)
                kinds = " and ".join(f"{blur_name(b.level_px, b.defocus_px)} px" for b in shown)
                quality["picture"] = (
                    f"Blurred by {kinds}; this model; sharp. The image is in the public domain (CC0)."
                )
            manifest = model.manifest | {"quality": quality}
            write_manifest(manifest, options.model)
            write_card(manifest, options.model / "README.md")
    except OSError as err:
        raise OutputError(f"The report cannot be written ({err}): choose another place.") from err


def _limited(images: Images, limit: int) -> Images:
    """At most `limit` images of each family, evenly spread over its list."""
    families: dict[str, list[int]] = {}
    for i, entry in enumerate(images.entries):
        families.setdefault(entry.family, []).append(i)
    keep = [
        found[len(found) * k // min(limit, len(found))]
        for found in families.values()
        for k in range(min(limit, len(found)))
    ]
    return replace(
        images,
        entries=[images.entries[i] for i in keep],
        pixels=[images.pixels[i] for i in keep],
        sha256=[images.sha256[i] for i in keep],
    )


def _need_torch() -> None:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as err:
        raise UsageError(
            "The trainer needs PyTorch, which is not installed: pip install 'deblurd[train]'."
        ) from err


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deblurd-train", description="Train, export and measure deblurring models."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    fit = commands.add_parser("fit", help="train a network; goes on where an earlier run stopped")
    fit.add_argument(
        "--recipe", type=Path, required=True, help=f"a .toml file, or one of {', '.join(shipped())}"
    )
    fit.add_argument(
        "--images", type=Path, required=True, help="folder of sharp images, with or without MANIFEST.tsv"
    )
    fit.add_argument("--output", type=Path, required=True, help="folder for checkpoint.pt and curve.png")
    fit.add_argument("--steps", type=_positive, help="instead of the recipe's")
    fit.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    fit.add_argument("--threads", type=_positive, default=1, help="CPU threads of PyTorch")
    fit.set_defaults(run=_fit)

    export = commands.add_parser("export", help="make a model folder from a checkpoint")
    export.add_argument("--checkpoint", type=Path, required=True, help="checkpoint.pt of a training")
    export.add_argument(
        "--models", type=Path, default=Path("models"), help="folder that gets the model's folder"
    )
    export.add_argument(
        "--precision",
        choices=("fp32", "int8", "fp16"),
        default="fp32",
        help="int8 for a CPU, fp16 for a GPU; refused where it loses 0.05 dB, or is no faster here",
    )
    export.add_argument("--images", type=Path, help="folder of sharp images to measure another precision on")
    export.set_defaults(run=_export)

    evaluate = commands.add_parser("evaluate", help="measure a model beside its rivals")
    evaluate.add_argument("--model", type=Path, required=True, help="model folder")
    evaluate.add_argument("--images", type=Path, required=True, help="folder of sharp images")
    evaluate.add_argument("--split", choices=get_args(Split), default="test")
    evaluate.add_argument("--exclude", nargs="*", default=[], help="patterns of images to leave out")
    evaluate.add_argument(
        "--blur", nargs="+", type=float, default=[2.0, 5.0, 10.0, 20.0, 40.0], help="levels, px"
    )
    evaluate.add_argument("--angle", nargs="+", type=float, default=[0.0, 37.0, 90.0], help="degrees")
    evaluate.add_argument(
        "--defocus",
        nargs="+",
        type=float,
        default=[0.0],
        help="sigmas, px; each with every level, so add --blur 0",
    )
    evaluate.add_argument(
        "--field-px", type=_positive, default=384, help="side of the fields cut out of an image"
    )
    evaluate.add_argument("--fields", type=_positive, default=2, help="at most so many fields of each image")
    evaluate.add_argument("--limit", type=_positive, default=8, help="at most so many images of each source")
    evaluate.add_argument(
        "--report",
        type=Path,
        help="JSON file; every score goes into a CSV file beside it, the gains into a PNG file",
    )
    evaluate.add_argument(
        "--record", action="store_true", help="write the table into the model's manifest and card"
    )
    evaluate.set_defaults(run=_evaluate)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number
