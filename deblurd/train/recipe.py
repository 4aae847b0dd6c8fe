"""A recipe: one TOML file that says how a model was made, and makes it again."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError, model_validator

from deblurd.errors import ConfigError, NoInputError

Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Positive = Annotated[FiniteFloat, Field(gt=0)]
NonNegative = Annotated[FiniteFloat, Field(ge=0)]

AT_REST_PX = 0.7
"""The daemon's own limit (deblur.sharp_below_px) of what it takes for a frame at rest."""

STRIDE = 4
"""Of the first convolution of every network: the full size is left at once, where a CPU is slow."""


class Table(BaseModel):
    """One table of a recipe: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DataRecipe(Table):
    """Which images of the folder are learnt from. Patterns are those of `fnmatch`, on the path inside the folder."""

    exclude: tuple[str, ...] = Field((), description="images that are never used, not even to validate")
    keep_columns: dict[str, tuple[int, int]] = Field(
        default_factory=dict,
        description="pattern -> columns [from, to) to keep, where a scale bar is burnt in",
    )
    pixel_size_range_um: tuple[Positive, Positive] = Field(
        (0.2, 1.0), description="of the images, for the manifest"
    )


class DegradeRecipe(Table):
    """How a sharp image becomes what a moving camera would have seen."""

    field_px: Annotated[int, Field(ge=16, multiple_of=4)] = Field(128, description="side of an example")
    guard_px: Annotated[int, Field(ge=0)] = Field(
        24, description="cut off the estimate on each side, where it suffers from its border"
    )
    blur_px: tuple[Positive, Positive] = Field((1.0, 48.0), description="least and greatest blur level")
    long_share: Share = Field(
        0.3, description="drawn evenly from the upper two thirds; the rest evenly in log"
    )
    axis_share: Share = Field(0.5, description="motion along y or x, as in serpentine scans")
    bend_share: Share = Field(0.2, description="accelerating motion")
    bend_max: Share = Field(0.1, description="greatest bend over blur level")
    full_well_e: tuple[Positive, Positive] = Field((4000.0, 50000.0), description="electrons at full scale")
    read_noise_e: tuple[Positive, Positive] = Field((1.5, 12.0), description="standard deviation, electrons")
    linear_share: Share = Field(0.15, description="quantised in linear light at 8 bit; the rest sRGB-encoded")
    length_jitter: NonNegative = Field(0.03, description="error of the tracked length, one sigma over length")
    angle_jitter_deg: NonNegative = Field(1.0, description="error of the tracked direction, one sigma")
    gross_share: Share = Field(
        0.05, description="tracked with an error of up to gross_length and gross_angle_deg"
    )
    gross_length: Share = 0.1
    gross_angle_deg: NonNegative = 5.0
    shrink_share: Share = Field(
        0.5, description="images made smaller, and so crisper, where they are large enough"
    )
    shrink_max: Annotated[FiniteFloat, Field(ge=1)] = 2.0
    soft_share: Share = Field(0.2, description="softer optics: a blur of input and target alike")
    soft_px: Positive = Field(1.2, description="greatest sigma of softer optics")
    defocus_share: Share = Field(0.05, description="out of focus: a blur of the input alone, to be taken out")
    defocus_px: Positive = Field(0.8, description="greatest sigma of defocus")
    disc_max: Share = Field(
        0.0, description="greatest share of a disc in a defocus, by variance; the rest is a Gaussian"
    )
    rest_share: Share = Field(0.0, description="of frames at rest, or nearly: up to 0.7 px of motion")
    grey_share: Share = Field(0.1, description="of images without colour")
    colour: Share = Field(0.2, description="greatest change of each channel's gamma")
    nsr: Positive = Field(0.002, description="least of the Wiener estimate; goes into the manifest")
    nsr_of_noise: NonNegative = Field(
        30.0, description="how the estimate's nsr grows with the noise; goes into the manifest"
    )

    @model_validator(mode="after")
    def _ordered(self) -> DegradeRecipe:
        for name in ("blur_px", "full_well_e", "read_noise_e"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be [low, high]")
        return self

    @property
    def margin_px(self) -> int:
        """What the blur may fetch from outside the field, on each side."""
        return int(self.blur_px[1] * (0.5 + self.bend_max)) + 2

    @property
    def scene_px(self) -> int:
        """Side of the square of a sharp image that one example needs."""
        return self.field_px + 2 * (self.guard_px + self.margin_px)


class KindRecipe(Table):
    """One kind of blur, and so one sub-model of a bank."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,32}$", description="of its file in the model folder")
    blur_px: tuple[NonNegative, Positive] = Field(description="least and greatest blur level")
    angle_deg: tuple[FiniteFloat, FiniteFloat] | None = Field(
        None,
        description="directions [from, to], from +x towards +y; a motion and its reverse are one direction",
    )
    weight: Positive = Field(
        1.0,
        description="of its loss in the common one; as sub-models share no weights, it decides whose gradients the common clipping spares",
    )

    @model_validator(mode="after")
    def _ordered(self) -> KindRecipe:
        if self.blur_px[0] >= self.blur_px[1]:
            raise ValueError("blur_px must be [low, high]")
        if self.angle_deg is not None and not 0 < self.angle_deg[1] - self.angle_deg[0] <= 180:
            raise ValueError("angle_deg must be [from, to], at most 180 degrees apart")
        return self


class NetworkRecipe(Table):
    """The network's shape; a checkpoint fits only the network that it was made for."""

    kind: Literal["residual", "encoder-decoder", "hourglass", "autoencoder"] = "residual"
    width: PositiveInt = 64
    blocks: PositiveInt = Field(
        3, description="in all (residual), at each scale (encoder-decoder, autoencoder), or hourglasses"
    )
    levels: PositiveInt = Field(
        2, description="how often the image's size is halved below the first scale; not for residual"
    )
    film_width: PositiveInt = 32
    patch_px: Literal[8] = Field(8, description="side of the first convolution, whose stride is 4")
    mirrored: bool = Field(
        False,
        description="the exported model is run on the three mirror images of a tile too, and gives the mean: four times the work",
    )
    kinds: tuple[KindRecipe, ...] = Field(
        (), description="a bank: one such network for each kind of blur; empty for a single one"
    )

    @model_validator(mode="after")
    def _named_apart(self) -> NetworkRecipe:
        if len({kind.name for kind in self.kinds}) < len(self.kinds):
            raise ValueError("each of the kinds needs a name of its own")
        return self

    @property
    def stride_px(self) -> int:
        """What the sides of an image must be a multiple of."""
        return STRIDE if self.kind == "residual" else STRIDE << self.levels


class FitRecipe(Table):
    """How long, and how, the network is taught."""

    start: str | None = Field(
        None,
        description="a model, by name or folder, whose weights the training begins with; random ones if absent",
    )
    steps: PositiveInt = 14500
    batch: PositiveInt = 8
    fresh: PositiveInt = Field(
        2, description="newly degraded fields for each step; the rest comes from the pool"
    )
    pool: PositiveInt = Field(2048, description="degraded fields kept for reuse, each turned anew")
    learning_rate: Positive = 1.5e-3
    warmup: NonNegative = Field(200, description="steps")
    averaging: Share = Field(
        0.999, description="decay of the running average of weights, which is what is exported"
    )
    mixed_share: Share = Field(0.95, description="first part of the steps, in bfloat16")
    validate_every: PositiveInt = 1000
    checkpoint_every: PositiveInt = 500


class Recipe(Table):
    """Everything that decides what a model becomes, but for the images."""

    name: str = Field(pattern=r"^[a-z0-9_-]{1,32}$")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    description: str
    licence: str = "Apache-2.0"
    note: str = Field(
        "", description="what else people should know of the training; goes into the model card"
    )
    seed: Annotated[int, Field(ge=0)] = 1
    data: DataRecipe = Field(default_factory=lambda: DataRecipe())
    degrade: DegradeRecipe = Field(default_factory=lambda: DegradeRecipe())
    network: NetworkRecipe = Field(default_factory=lambda: NetworkRecipe())
    fit: FitRecipe = Field(default_factory=lambda: FitRecipe())

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.degrade.field_px % self.network.stride_px:
            raise ValueError(
                f"degrade.field_px must be a multiple of {self.network.stride_px} for this network"
            )
        return self


def load_recipe(source: Path) -> Recipe:
    """Read a recipe file, or one of the package's own by its bare name (``fast``).

    Raises NoInputError if there is none, ConfigError with a line for each broken rule.
    """
    try:
        text = source.read_text("utf-8") if source.suffix == ".toml" else _shipped(str(source))
    except FileNotFoundError as err:
        raise NoInputError(f"There is no recipe {source}: name a .toml file or one of {shipped()}.") from err
    try:
        return Recipe.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as err:
        raise ConfigError(f"{source} is not TOML, {err}: correct that line.") from err
    except ValidationError as err:
        raise ConfigError("\n".join(_sentence(source, dict(e)) for e in err.errors())) from err


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        Path(f.name).stem
        for f in resources.files("deblurd.train").joinpath("recipes").iterdir()
        if f.is_file()
    )


def _shipped(name: str) -> str:
    return resources.files("deblurd.train").joinpath("recipes", f"{name}.toml").read_text("utf-8")


def _sentence(source: Path, error: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "recipe"
    if error["type"] == "extra_forbidden":
        return f"{source}: unknown key {key}: remove it or correct its spelling."
    return f"{source}: {key}: {error['msg']}: correct it."
