"""From a checkpoint to a model folder that the engine loads: ``model.onnx``, or a file for each sub-model of a bank, and ``manifest.json``; later, the same in fewer bits.

The folder appears whole or not at all: it is made beside its place, checked number by number against the network, and
then renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime
import torch
from pydantic import ValidationError
from torch import nn

from deblurd.deblur.model import MANIFEST, Model
from deblurd.errors import ModelError, OutputError
from deblurd.train.card import write_model
from deblurd.train.network import Bank, Mirrored, Network, build, halo_px, sub_models
from deblurd.train.precision import Precision, held_out_examples, lower
from deblurd.train.recipe import Recipe

SCHEMA = 1
TOLERANCE = 1e-4
"""Greatest difference of ONNX Runtime's output from the network's, on values in [0, 1]."""

INPUTS = ("blurred", "estimate", "motion")


def export(checkpoint: dict[str, Any], models: Path) -> Path:
    """Write ``models/<name>/`` from a checkpoint and return its path; a model of that name is replaced.

    Raises ModelError if the exported numbers differ from the network's by more than `TOLERANCE`, OutputError if the folder cannot be written.
    """
    recipe = recipe_of(checkpoint)
    network = averaged_network(checkpoint, recipe)
    target = models / recipe.name
    with _made_beside(target) as part:
        for member, path in zip(sub_models(network), onnx_files(part, recipe), strict=True):
            one = Mirrored(member) if recipe.network.mirrored else member
            write_onnx(one, path, recipe.network.stride_px)
            check_numbers(one, path, recipe.network.stride_px)
        write_model(part, make_manifest(checkpoint, recipe, part))
    return target


def add_precision(model: Model, precision: Precision, images: Path) -> None:
    """Put each network of a model folder beside itself in fewer bits; the engine takes those where they are faster.

    images: folder of sharp images, of which the held-out ones show what that costs. What was measured of the model is forgotten, as it is another one now.
    Raises ModelError, DataError or OutputError, and leaves the folder as it was, where that costs too much, is no faster, or cannot be.
    """
    if model.folder is None:
        raise ModelError(f"The model {model.name} has no network: name a model folder.")
    manifest: dict[str, Any] = json.loads((model.folder / MANIFEST).read_text("utf-8"))
    recipe = recipe_of(manifest["training"])
    with _made_beside(model.folder) as part:
        for path in model.folder.iterdir():
            shutil.copy2(path, part)
        told = manifest["training"].setdefault("precision", {})
        for file, kind in zip(manifest["files"], recipe.network.kinds or (None,), strict=True):
            source = part / file["file"]
            target = source.with_suffix(f".{precision}.onnx")
            told[target.name] = lower(source, target, precision, held_out_examples(images, recipe, kind))
            file[precision] = {"file": target.name, "sha256": _sha256(target)}
        write_model(part, manifest | {"quality": {}})


@contextlib.contextmanager
def _made_beside(target: Path) -> Iterator[Path]:
    """A folder that takes `target`'s place when all is done, and is gone when it is not."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as err:
        raise OutputError(f"{target.parent} cannot be written ({err}): choose another --models.") from err
    try:
        yield part
        part.chmod(0o755)
        replace_folder(part, target)
    except OSError as err:
        raise OutputError(
            f"{target} cannot be written ({err}): free some space or choose another --models."
        ) from err
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def recipe_of(checkpoint: dict[str, Any]) -> Recipe:
    """The recipe that a checkpoint carries."""
    try:
        return Recipe.model_validate(checkpoint["recipe"])
    except ValidationError as err:
        raise ModelError(
            f"The checkpoint's recipe is of another version of the trainer: {err}; train again."
        ) from err


def averaged_network(checkpoint: dict[str, Any], recipe: Recipe) -> Network | Bank:
    """The network with the averaged weights, ready to use."""
    network = build(recipe.network)
    weights = {k.removeprefix("module."): v for k, v in checkpoint["average"].items() if k != "n_averaged"}
    try:
        network.load_state_dict(weights)
    except RuntimeError as err:
        raise ModelError("The checkpoint is of another network than its recipe says: train again.") from err
    return network.eval()


def onnx_files(folder: Path, recipe: Recipe) -> list[Path]:
    """Where the networks of a model folder lie, in the order of `sub_models`."""
    names = [kind.name for kind in recipe.network.kinds] or ["model"]
    return [folder / f"{name}.onnx" for name in names]


def write_onnx(network: nn.Module, path: Path, stride: int) -> None:
    """One file, with N, H and W dynamic."""
    dims = {0: torch.export.Dim("n"), 2: stride * torch.export.Dim("h"), 3: stride * torch.export.Dim("w")}
    blurred, estimate = (
        torch.rand(2, 3, 64, 96),
        torch.rand(2, 3, 64, 96),
    )  # one tensor twice would become one input
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network,
            (blurred, estimate, torch.tensor([[3.0, 4.0], [0.0, 9.0]])),
            input_names=INPUTS,
            output_names=["sharp"],
            dynamic_shapes=(dims, dims, {0: dims[0]}),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(path, external_data=False)
    strip_traces(path)


def strip_traces(path: Path) -> None:
    """Take out of an ONNX file what the exporter noted of the program that made it: paths of this machine, for one."""
    model = onnx.load(path)
    graph = model.graph
    for each in (
        model,
        graph,
        *graph.node,
        *graph.value_info,
        *graph.input,
        *graph.output,
        *graph.initializer,
    ):
        del each.metadata_props[:]
        each.doc_string = ""
    onnx.save(model, path)


def check_numbers(network: nn.Module, path: Path, stride: int) -> None:
    """ModelError unless ONNX Runtime gives what the network gives, at several sizes and motions."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for count, rows, columns, length in ((1, 4, 4, 0.0), (3, 2, 8, 8.0), (2, 9, 5, 48.0)):
        size = (stride * rows, stride * columns)
        blurred, estimate = rng.random((2, count, 3, *size), dtype=np.float32)
        motion = (rng.standard_normal((count, 2)) * length).astype(np.float32)
        (got,) = session.run(None, dict(zip(INPUTS, (blurred, estimate, motion), strict=True)))
        with torch.no_grad():
            wanted = network(*(torch.from_numpy(x) for x in (blurred, estimate, motion))).numpy()
        error = float(np.abs(got - wanted).max()) if got.shape == wanted.shape else float("inf")
        if not error <= TOLERANCE:
            raise ModelError(
                f"The exported model differs from the network by {error:.2g}, more than {TOLERANCE:g}: nothing was written."
            )


def make_manifest(checkpoint: dict[str, Any], recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What the engine and people need to know of the model; `quality` is filled in by ``evaluate``."""
    low, high = recipe.degrade.blur_px
    takes_defocus = recipe.degrade.rest_share > 0
    kinds = [(kind.blur_px, kind.angle_deg) for kind in recipe.network.kinds] or [((low, high), None)]
    return {
        "schema": SCHEMA,
        "name": recipe.name,
        "version": recipe.version,
        "kind": "defocus" if takes_defocus else "bank" if recipe.network.kinds else "single",
        "description": recipe.description,
        "licence": recipe.licence,
        "encoding": "srgb",
        "nsr": recipe.degrade.nsr,
        "nsr_of_noise": recipe.degrade.nsr_of_noise,
        "stride": recipe.network.stride_px,
        "halo_px": halo_px(recipe.network),
        "blur_range_px": [0.0 if takes_defocus else low, high],
        "defocus_px": recipe.degrade.defocus_px if takes_defocus else 0.0,
        "pixel_size_range_um": list(recipe.data.pixel_size_range_um),
        "inputs": list(INPUTS),
        "outputs": ["sharp"],
        "files": [
            {
                "file": path.name,
                "sha256": _sha256(path),
                "blur_px": list(blur_px),
                "angle_deg": None if angle_deg is None else list(angle_deg),
            }
            for path, (blur_px, angle_deg) in zip(onnx_files(folder, recipe), kinds, strict=True)
        ],
        "training": {
            "data": checkpoint["provenance"],
            "steps": checkpoint["step"],
            "started_from": checkpoint["started_from"],
            "seed": recipe.seed,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "recipe": recipe.model_dump(mode="json"),
        },
        "quality": {},
    }


def replace_folder(part: Path, target: Path) -> None:
    """Put `part` where `target` is; if that fails, the old one is back."""
    if not target.exists():
        part.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    target.rename(old / target.name)
    try:
        part.rename(target)
    except OSError:
        (old / target.name).rename(target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
