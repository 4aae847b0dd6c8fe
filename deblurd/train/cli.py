"""``deblurd-train fit | export | evaluate``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.progress import track

from deblurd.deblur.model import MANIFEST, find_model
from deblurd.errors import DeblurdError, OutputError, UsageError
from deblurd.train.card import PICTURE, WIDELY, blur_name, tables, write_model
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
    path = fit(
        recipe, options.images, options.output, options.device, options.threads, console, options.start
    )
    console.print(f"Trained: {path}")


def _export(options: argparse.Namespace, console: Console) -> None:
    _need_torch()
    from deblurd.train.checkpoint import load_checkpoint
    from deblurd.train.export import add_precision, export

    if options.precision and options.images is None:
        raise UsageError(f"--precision {options.precision} has to be measured: add --images DIR.")
    if options.checkpoint is None and not options.precision:
        raise UsageError("--model is exported already: add --precision int8 or fp16, or name a --checkpoint.")
    folder = (
        _folder_of(options.model)
        if options.model
        else export(load_checkpoint(options.checkpoint), options.models)
    )
    if options.precision:
        add_precision(find_model(str(folder.absolute())), options.precision, options.images)
    console.print(f"Exported: {folder}")


def _evaluate(options: argparse.Namespace, console: Console) -> None:
    from deblurd.train import plots
    from deblurd.train.evaluate import OURS, Model, all_blurs, conditions, evaluate
    from deblurd.train.summary import harm, summarise, worst_losses_db, write_scores

    folder = _folder_of(options.model)
    model = Model(folder)
    if (
        options.report and not options.report.absolute().parent.is_dir()
    ):  # said now, and not when all is measured
        raise OutputError(f"There is no folder {options.report.parent} for the report: choose another place.")
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
    rounds = evaluate(model, images, blurs, options.field_px, options.fields, rivals=not options.no_rivals)
    scores = [score for found in track(rounds, "measuring", console=console) for score in found]
    rows = summarise(scores)
    quality: dict[str, Any] = {
        "conditions": conditions(options.field_px, options.fields, rivals=not options.no_rivals),
        "command": "deblurd-train " + " ".join(options.typed),
        "rows": rows,
        "worst_loss_db": worst_losses_db(scores),
        "harm": {m: harm(scores, m) for m in OURS if any(score.method == m for score in scores)},
    }
    for title, table in tables(rows):
        console.print("\n".join([f"{title}:", *table]), markup=False, highlight=False, soft_wrap=True)
    console.print(f"Behind the input at worst, dB: {quality['worst_loss_db']}")
    try:
        if options.report:
            options.report.write_text(json.dumps(quality, indent=2) + "\n", "utf-8")
            write_scores(scores, options.report.with_suffix(".csv"))
            plots.draw_gains(rows, options.report.with_suffix(".png"))
        if options.record and options.no_rivals:
            quality = model.manifest["quality"] | {WIDELY: quality}
            write_model(folder, model.manifest | {"quality": quality})
        elif options.record:
            shown = [blur for blur in blurs if blur.angle_deg == options.angle[0]][-SHOWN:]
            picture, more = plots.before_and_after(model, images, shown), {}
            if picture is not None:
                more[PICTURE] = plots.png(picture)
                kinds = " and ".join(f"{blur_name(b.level_px, b.defocus_px)} px" for b in shown)
                quality["picture"] = (
                    f"Blurred by {kinds}; this model; sharp. The image is in the public domain (CC0)."
                )
            if (widely := model.manifest["quality"].get(WIDELY)) is not None:
                quality[WIDELY] = widely
            write_model(folder, model.manifest | {"quality": quality}, more)
    except OSError as err:
        raise OutputError(f"The report cannot be written ({err}): choose another place.") from err


def _folder_of(model: Path) -> Path:
    """Of a model named by its folder or, as in a configuration, by its name. ModelError where that is none."""
    if (model / MANIFEST).is_file() or model.name != str(model):
        return model
    return find_model(model.name).folder or model


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
    fit.add_argument(
        "--start",
        metavar="MODEL",
        help="a model, by name or folder, to go on from: fast, to teach it your own slides",
    )
    fit.add_argument("--steps", type=_positive, help="instead of the recipe's")
    fit.add_argument(
        "--device",
        default="cpu",
        help="cpu, cuda or cuda:N; for several GPUs, cuda under torchrun --no-python",
    )
    fit.add_argument("--threads", type=_positive, default=1, help="CPU threads of PyTorch")
    fit.set_defaults(run=_fit)

    export = commands.add_parser("export", help="make a model folder from a checkpoint")
    source = export.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="checkpoint.pt of a training")
    source.add_argument("--model", type=Path, help="model, by name or folder, that gets another --precision")
    export.add_argument(
        "--models", type=Path, default=Path("models"), help="folder that gets the model's folder"
    )
    export.add_argument(
        "--precision",
        choices=("int8", "fp16"),
        help="beside fp32: int8 for a CPU, fp16 for a GPU; refused where it loses 0.05 dB, or is no faster here",
    )
    export.add_argument("--images", type=Path, help="folder of sharp images to measure another precision on")
    export.set_defaults(run=_export)

    evaluate = commands.add_parser("evaluate", help="measure a model beside its rivals")
    evaluate.add_argument("--model", type=Path, required=True, help="a model, by name or folder")
    evaluate.add_argument("--images", type=Path, required=True, help="folder of sharp images")
    evaluate.add_argument("--split", choices=get_args(Split), default="test")
    evaluate.add_argument("--exclude", nargs="*", default=[], help="patterns of images to leave out")
    evaluate.add_argument(
        "--blur", nargs="+", type=_length, default=[2.0, 5.0, 10.0, 20.0, 40.0], help="levels, px"
    )
    evaluate.add_argument("--angle", nargs="+", type=_number, default=[0.0, 37.0, 90.0], help="degrees")
    evaluate.add_argument(
        "--defocus",
        nargs="+",
        type=_length,
        default=[0.0],
        help="sigmas, px; each with every level, so add --blur 0",
    )
    evaluate.add_argument(
        "--field-px", type=_positive, default=384, help="side of the fields cut out of an image"
    )
    evaluate.add_argument("--fields", type=_positive, default=2, help="at most so many fields of each image")
    evaluate.add_argument("--limit", type=_positive, default=8, help="at most so many images of each source")
    evaluate.add_argument(
        "--no-rivals",
        action="store_true",
        help="without Wiener and Richardson-Lucy: quick, to see whether any of many images comes off worse",
    )
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


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is not a number")
    return number


def _length(text: str) -> float:
    number = _number(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return number
