"""Models: where they lie, what their manifests say, and that their files are the ones that were measured."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from deblurd.errors import ModelError
from deblurd.frames import MotionVector
from deblurd.resources import models_folders

MANIFEST = "manifest.json"
BUILT_IN = {"wiener": (0.0, 200.0), "raw": (0.0, 0.0)}
"""Models without a network, and the blur levels (px) that they take out."""

WIENER_NSR = (0.002, 50.0)
"""Of the built-in Wiener filter, as `noise_to_signal` takes them."""

Range = tuple[FiniteFloat, FiniteFloat]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KindOfBlur(Protocol):
    """What a sub-model is for: blur levels (px), and directions (degrees from +x towards +y, modulo 180) or None for all."""

    @property
    def blur_px(self) -> tuple[float, float]: ...

    @property
    def angle_deg(self) -> tuple[float, float] | None: ...


class StoredFile(_Part):
    """A file of the model's folder, and what it must hash to."""

    file: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ModelFile(StoredFile):
    """One network, and the kind of blur that it was trained for. int8, fp16: the same in fewer bits, for a CPU and for a GPU."""

    blur_px: Range
    angle_deg: Range | None = None
    int8: StoredFile | None = None
    fp16: StoredFile | None = None

    def on(self, gpu: bool) -> StoredFile:
        """What is fastest there."""
        return (self.fp16 if gpu else self.int8) or self

    @property
    def stored(self) -> list[StoredFile]:
        """This file and those in fewer bits."""
        return [self, *(file for file in (self.int8, self.fp16) if file is not None)]


class Manifest(_Part):
    """What a model needs and what it was measured to do; the model's card says it to people."""

    schema_: Literal[1] = Field(alias="schema")
    name: str
    version: str
    kind: Literal["single", "bank", "defocus"]
    description: str
    licence: str
    encoding: Literal["srgb"]
    nsr: Annotated[FiniteFloat, Field(gt=0)]
    nsr_of_noise: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    stride: Annotated[int, Field(ge=1)]
    halo_px: Annotated[int, Field(ge=0)]
    blur_range_px: Range
    defocus_px: FiniteFloat = 0.0
    pixel_size_range_um: Range
    inputs: list[str]
    outputs: list[str]
    files: Annotated[list[ModelFile], Field(min_length=1)]
    training: dict[str, Any] = Field(default_factory=dict)
    quality: dict[str, Any] | list[Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Model:
    """A model that was found. manifest and folder are None for the built-in ones, which have no network."""

    name: str
    manifest: Manifest | None
    folder: Path | None

    @property
    def blur_range_px(self) -> tuple[float, float]:
        return self.manifest.blur_range_px if self.manifest else BUILT_IN[self.name]

    @property
    def nsr(self) -> tuple[float, float]:
        """Of the estimate: the least ratio of noise to signal, and how it grows with the noise; see `noise_to_signal`."""
        return (self.manifest.nsr, self.manifest.nsr_of_noise) if self.manifest else WIENER_NSR

    @property
    def takes_defocus(self) -> bool:
        """Whether it sharpens frames out of focus as well, and so those that did not move."""
        return self.manifest is not None and self.manifest.kind == "defocus"

    @property
    def identity(self) -> dict[str, Any]:
        """Name, version and hashes: what a slide's manifest says of its model."""
        if self.manifest is None:
            return {"name": self.name, "version": "built in", "sha256": []}
        return {
            "name": self.manifest.name,
            "version": self.manifest.version,
            "sha256": [stored.sha256 for file in self.manifest.files for stored in file.stored],
        }

    def file_for(self, motion: MotionVector) -> ModelFile:
        """The sub-model that fits `motion` best."""
        assert self.manifest is not None
        return self.manifest.files[nearest_kind(motion, self.manifest.files)]

    def check_pixel_size(self, pixel_size_um: float) -> str | None:
        """A sentence where the pixel size is outside what the model was trained on, None where it is not."""
        if self.manifest is None:
            return None
        low, high = self.manifest.pixel_size_range_um
        if low <= pixel_size_um <= high:
            return None
        return (
            f"the model {self.name} was trained for {low:g} to {high:g} um per pixel, and this microscope has "
            f"{pixel_size_um:g}: expect weaker results, or train a model of your own"
        )

    def verify(self) -> None:
        """Reads every file once. Raises ModelError where one is missing or is not the one that was measured."""
        if self.manifest is None or self.folder is None:
            return
        for file in [stored for network in self.manifest.files for stored in network.stored]:
            path = self.folder / file.file
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as err:
                raise ModelError(
                    f"the model file {path} cannot be read ({err.strerror}), though {MANIFEST} names it: install the model again"
                ) from err
            if digest != file.sha256:
                raise ModelError(
                    f"{path} is not the file that {MANIFEST} describes (sha256 {digest[:12]}... in place of "
                    f"{file.sha256[:12]}...): install the model again, or export it with its manifest"
                )


def available_models() -> list[str]:
    """Names that `find_model` knows, without paths."""
    found = {path.parent.name for folder in models_folders() for path in folder.glob(f"*/{MANIFEST}")}
    return sorted(found) + sorted(BUILT_IN)


def find_model(name: str) -> Model:
    """By name, by path to a folder, or a built-in; its files are verified.

    Raises ModelError that names what there is.
    """
    if name in BUILT_IN:
        return Model(name, None, None)
    candidates = [Path(name)] if "/" in name or "\\" in name else [f / name for f in models_folders()]
    folder = next((path for path in candidates if (path / MANIFEST).is_file()), None)
    if folder is None:
        known = available_models()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ModelError(f"there is no model {name!r}: {hint}there are {', '.join(known)}")
    model = Model(folder.name, _read_manifest(folder / MANIFEST), folder)
    model.verify()
    return model


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as err:
        raise ModelError(f"{path} cannot be read ({err.strerror}): install the model again") from err
    except ValidationError as err:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in err.errors())
        raise ModelError(f"{path} is not a manifest of a model ({faults}): export the model again") from err
    except ValueError as err:
        raise ModelError(f"{path} is not JSON ({err}): export the model again") from err


def nearest_kind(motion: MotionVector, kinds: Sequence[KindOfBlur]) -> int:
    """Index of the kind of blur that `motion` belongs to, or comes nearest to; the rule of a bank, in training as at run time."""
    return min(range(len(kinds)), key=lambda i: _outside_px(motion, kinds[i]))


def _outside_px(motion: MotionVector, kind: KindOfBlur) -> float:
    """How far the motion's end lies outside a kind of blur; where kinds overlap, the nearer middle decides (by less than 2e-3)."""
    length_px, (low, high) = motion.length_px, kind.blur_px
    along = max(low - length_px, length_px - high, 0.0)
    nearness = abs(length_px - 0.5 * (low + high)) / (1 + length_px + high)
    if kind.angle_deg is None:
        return along + 1e-3 * nearness
    first, last = kind.angle_deg
    angle_deg = math.degrees(math.atan2(motion.dy, motion.dx))
    turn_deg = abs((angle_deg - 0.5 * (first + last) + 90) % 180 - 90)
    across = length_px * math.sin(math.radians(max(turn_deg - 0.5 * (last - first), 0.0)))
    return math.hypot(along, across) + 1e-3 * (nearness + turn_deg / 90)
