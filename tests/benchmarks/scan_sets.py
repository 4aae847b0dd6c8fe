"""Scans whose truth is known: tiles cut from a picture at sub-pixel places, seen through an imperfect microscope."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurd.frames import Encoding, MotionVector, Pixels, Pose, Tile
from deblurd.geometry import PixelToStage

Floats = NDArray[np.float64]
SLIDE = Path(__file__).parents[3] / "shared" / "data" / "openslide-cc0" / "CMU-1-Small-Region.svs"


@dataclass(frozen=True)
class ScanSet:
    """What a scan is like. Lengths in camera pixels unless named otherwise.

    noise: standard deviation of a grey level of 255. stage_sigma_px: of each stage reading. drift_px: by which readings
    run away over the whole scan. rotation_deg, scale: of the true camera against the affine that is configured.
    backlash_um: readings are ahead by half of it in the direction of the lane. blank: share of the slide without tissue. trace: contrast
    that is left there, of that of tissue. flicker: how unlike
    the exposures are, a share, standard deviation. barrel: share of its distance from the middle by which the lens draws a corner in. stray: share of the readings that are wrong altogether, by `stray_px` to and fro along the lane.
    """

    picture: Literal["generated", "slide", "fluorescence"] = "generated"
    tile_px: int = 512
    rows: int = 6
    columns: int = 6
    overlap: float = 0.15
    noise: float = 3.0
    stage_sigma_px: float = 10.0
    drift_px: float = 20.0
    rotation_deg: float = 0.3
    scale: float = 1.003
    backlash_um: float = 0.0
    blank: float = 0.0
    trace: float = 0.0
    vignetting: float = 0.15
    flicker: float = 0.0
    blur_px: float = 0.0
    barrel: float = 0.0
    stray: float = 0.0
    stray_px: float = 140.0
    dtype: Literal["uint8", "uint16"] = "uint8"
    color: bool = True
    pixel_size_um: float = 0.5
    seed: int = 1

    def but(self, **changes: Any) -> ScanSet:
        return replace(self, **changes)


@dataclass(frozen=True)
class Scan:
    """tiles in the order of the scan; truth: (k, 2) places; affine and encoding: what is configured; lights: (k,) of the exposures, about 1."""

    tiles: list[Tile]
    pixels: list[Pixels]
    truth: Floats
    affine: PixelToStage
    encoding: Encoding
    vignette: NDArray[np.float32] = field(repr=False)
    lights: Floats

    def errors_px(self, places: Floats, among: NDArray[np.bool_] | None = None) -> Floats:
        """(n,) distances of `places` (k, 2) from the truth, after their common offset is taken away."""
        which = np.ones(len(self.truth), bool) if among is None else among
        off = (places - self.truth)[which]
        return np.asarray(np.hypot(*(off - np.median(off, axis=0)).T))

    def aligned_errors_px(self, places: Floats, among: NDArray[np.bool_] | None = None) -> Floats:
        """The same after the shift and the turn (Kabsch) that bring the places nearest to the truth: what no seam shows."""
        which = np.ones(len(self.truth), bool) if among is None else among
        found, truth = (at[which] - at[which].mean(axis=0) for at in (places, self.truth))
        left, _, right = np.linalg.svd(found.T @ truth)
        turn = left @ np.diag([1.0, np.linalg.det(left @ right)]) @ right
        return np.asarray(np.hypot(*(found @ turn - truth).T))


def write_tiles(scan: Scan, folder: Path, suffix: str = ".png") -> Path:
    """The scan as people have it: image files and ``tiles.csv``. TIFFs are not compressed. Returns `folder`."""
    plain = [cv2.IMWRITE_TIFF_COMPRESSION, 1] if suffix == ".tif" else []
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,x_um,y_um,t_s,exposure_ms,vx_um_s,vy_um_s"]
    for tile, pixels in zip(scan.tiles, scan.pixels, strict=True):
        name = f"tile_{tile.index:05d}{suffix}"
        assert cv2.imwrite(str(folder / name), pixels if pixels.ndim == 2 else pixels[..., ::-1], plain)
        # the stage runs against the image
        vy, vx = -scan.affine.to_stage(np.array([tile.motion.dy, tile.motion.dx])) / (tile.exposure_ms / 1000)
        where = f"{tile.pose.x_um:.4f},{tile.pose.y_um:.4f},{tile.pose.t_s:.3f}"
        lines.append(f"{name},{where},{tile.exposure_ms:g},{vx:.4f},{vy:.4f}")
    (folder / "tiles.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def tissue(height: int, width: int, seed: int) -> NDArray[np.float32]:
    """(height, width, 3) float32 in 0..1: pink stroma of many scales with dark nuclei; looks enough like H&E."""
    rng = np.random.default_rng(seed)
    stroma = np.zeros((height, width), np.float32)
    for scale in (4, 12, 40, 150):
        small = rng.standard_normal((height // scale + 3, width // scale + 3)).astype(np.float32)
        stroma += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC) * scale**0.3
    nuclei = np.zeros((height, width), np.uint8)
    for y, x, a, b, turn in rng.random((height * width // 900, 5)):
        axes = (3 + int(5 * a), 3 + int(4 * b))
        cv2.ellipse(
            nuclei, (int(x * width), int(y * height)), axes, 180 * turn, 0, 360, 120 + int(135 * a), -1
        )
    ink = cv2.GaussianBlur(nuclei.astype(np.float32) / 255, (0, 0), 0.9)
    pink = np.clip(0.25 + 0.05 * stroma, 0, 0.6)
    absorption = pink[..., None] * np.array([0.3, 1.0, 0.5], np.float32) + ink[..., None] * np.array(
        [1.0, 1.1, 0.5], np.float32
    )
    return np.asarray(cv2.GaussianBlur(np.exp(-absorption), (0, 0), 0.7) * np.float32(0.95))


def spots(height: int, width: int, seed: int) -> NDArray[np.float32]:
    """(height, width) float32 in 0..1: few bright cells on a dark ground, as in fluorescence."""
    rng = np.random.default_rng(seed)
    cells: NDArray[np.float32] = np.full((height, width), 0.01, np.float32)
    for y, x, a, b, turn in rng.random((height * width // 12_000, 5)):
        axes = (4 + int(8 * a), 4 + int(6 * b))
        cv2.ellipse(cells, (int(x * width), int(y * height)), axes, 180 * turn, 0, 360, 0.05 + 0.4 * b, -1)
    return np.asarray(cv2.GaussianBlur(cells, (0, 0), 1.5))


def slide(height: int, width: int) -> NDArray[np.float32]:
    """(height, width, 3) float32 in 0..1: the real slide, mirrored on to fill any size."""
    import openslide

    with openslide.OpenSlide(SLIDE) as image:
        region = np.asarray(image.read_region((0, 0), 0, image.dimensions).convert("RGB"))
    region = region[: region.shape[0] // 2 * 2]
    repeat = (-(-height // region.shape[0]), -(-width // region.shape[1]))
    rows = [region if i % 2 == 0 else region[::-1] for i in range(repeat[0])]
    column = np.concatenate(rows)
    columns = [column if i % 2 == 0 else column[:, ::-1] for i in range(repeat[1])]
    filled = np.concatenate(columns, axis=1)[:height, :width]
    return np.asarray(filled / 255, dtype=np.float32)


def make(s: ScanSet) -> Scan:
    """The scan that `s` describes: a serpentine along x."""
    rng = np.random.default_rng(s.seed)
    margin = int(6 * s.stage_sigma_px + s.drift_px + s.blur_px + 40)
    step = s.tile_px * (1 - s.overlap)
    height, width = (int(n * step + s.tile_px + 2 * margin) for n in (s.rows - 1, s.columns - 1))
    picture = _picture(s, height, width)
    if s.blank:
        ground = picture.mean() if s.picture == "fluorescence" else np.float32(0.95)
        empty = picture[:, int((1 - s.blank) * width) :]
        empty[...] = ground + np.float32(s.trace) * (empty - empty.mean())
    lanes = [(r, c if r % 2 == 0 else s.columns - 1 - c) for r in range(s.rows) for c in range(s.columns)]
    count = len(lanes)
    direction = np.array([1.0 if r % 2 == 0 else -1.0 for r, _ in lanes])
    truth = np.array(lanes) * step + rng.normal(0, s.stage_sigma_px, (count, 2))
    drift = np.linspace(0, s.drift_px, count)[:, None] * np.array([0.6, -0.8])
    lag = direction[:, None] * np.array([0.0, 0.5 * s.backlash_um / s.pixel_size_um])
    affine = PixelToStage.from_scale(s.pixel_size_um)
    true_affine = PixelToStage.from_scale(s.pixel_size_um * s.scale, s.rotation_deg)
    # the plan was followed but for the noise; readings show the plan, drift and backlash
    poses_um = true_affine.to_stage(np.array(lanes) * step + drift + lag) + np.array([-3000.0, 1500.0])
    if s.stray:
        chance = np.random.default_rng(s.seed + 2)
        is_stray = chance.random(count) < s.stray
        poses_um[:, 1] += is_stray * chance.choice([-1, 1], count) * s.stray_px * s.pixel_size_um
    yy, xx = np.mgrid[-1 : 1 : s.tile_px * 1j, -1 : 1 : s.tile_px * 1j]
    vignette = (1 - s.vignetting * (yy**2 + xx**2) / 2).astype(np.float32)
    lights = np.exp(np.random.default_rng(s.seed + 1).normal(0, s.flicker, count))
    tiles, pixels = [], []
    for index, (place, pose) in enumerate(zip(truth, poses_um, strict=True)):
        motion = MotionVector(0.0, -direction[index] * s.blur_px)
        view = _view(picture, place + margin, s.tile_px, s.blur_px, s.barrel)
        pixels.append(_exposed(view, vignette * np.float32(lights[index]), s, rng))
        pose_then = Pose(0.5 * index, float(pose[0]), float(pose[1]))
        tiles.append(Tile(index, 0, 10 * index, pose_then, motion, 5.0, pixels[-1].shape, ""))
    return Scan(tiles, pixels, truth, affine, "linear" if s.dtype == "uint16" else "srgb", vignette, lights)


def _picture(s: ScanSet, height: int, width: int) -> NDArray[np.float32]:
    if s.picture == "slide":
        full = slide(height, width)
    elif s.picture == "fluorescence":
        full = spots(height, width, s.seed)
    else:
        full = tissue(height, width, s.seed)
    return full if s.color or full.ndim == 2 else np.ascontiguousarray(full[..., 1])


def _view(
    picture: NDArray[np.float32], corner: Floats, size: int, blur_px: float, barrel: float
) -> NDArray[np.float32]:
    """(size, size[, 3]) of `picture` with its upper left pixel at `corner`, blurred along x by a box of blur_px, through a lens with that much of a barrel."""
    border = int(blur_px) + 8
    matrix = np.array([[1, 0, corner[1] - border], [0, 1, corner[0] - border]], np.float64)
    wide = size + 2 * border
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    if barrel:
        x, y = np.meshgrid(*2 * (np.arange(wide, dtype=np.float32) - (wide - 1) / 2,))
        out = 1 + barrel * (x**2 + y**2) / (size**2 / 2)
        to_x, to_y = (
            (out * along + c + (size - 1) / 2).astype(np.float32)
            for along, c in ((x, corner[1]), (y, corner[0]))
        )
        view = cv2.remap(picture, to_x, to_y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT)
    else:
        view = cv2.warpAffine(picture, matrix, (wide, wide), flags=flags, borderMode=cv2.BORDER_REFLECT)
    if blur_px:
        reach = int(np.ceil(blur_px / 2)) + 1
        steps = np.arange(-reach, reach + 1)
        kernel = np.clip(blur_px / 2 - np.abs(steps) + 0.5, 0, 1)
        view = cv2.sepFilter2D(view, -1, kernel / kernel.sum(), np.ones(1))
    return np.asarray(view[border:-border, border:-border])


def _exposed(
    view: NDArray[np.float32], vignette: NDArray[np.float32], s: ScanSet, rng: np.random.Generator
) -> Pixels:
    shade = vignette if view.ndim == 2 else vignette[..., None]
    if s.dtype == "uint16":
        counts = view * shade * 20_000 + rng.normal(0, 1, view.shape) * s.noise / 255 * 20_000
        return np.clip(counts + 200, 0, 65535).round().astype(np.uint16)
    # a display-encoded camera: light lost in the corners acts before the gamma
    encoded = view * shade ** (1 / 2.2) + rng.normal(0, s.noise / 255, view.shape)
    return np.clip(encoded * 255, 0, 255).round().astype(np.uint8)
