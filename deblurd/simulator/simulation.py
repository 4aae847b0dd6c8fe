"""The virtual microscope, loaded into a real core, and the truth about it."""

from __future__ import annotations

import math

from pymmcore_plus.experimental.unicore import UniMMCore

from deblurd.geometry import PixelToStage
from deblurd.settings import SimulatorSettings
from deblurd.simulator.camera import Truth, VirtualCamera
from deblurd.simulator.faults import Faults
from deblurd.simulator.motion import Motion
from deblurd.simulator.optics import Optics
from deblurd.simulator.sensor import Sensor
from deblurd.simulator.slide import VirtualSlide, open_slide
from deblurd.simulator.stage import VirtualFocus, VirtualXYStage

CAMERA, XY_STAGE, FOCUS = "Camera", "XY", "Z"
DEFAULT_EXPOSURE_MS = 5.0
_MIB = 1 << 20


def footprint_mb(frame_bytes: int, buffer_mb: float) -> float:
    """The largest whole number of frames within `buffer_mb`, at least 2 of them, in MiB.

    At a wrap of its ring UniCore's buffer silently loses all unread frames unless it holds a whole number of them.
    """
    return max(2, int(buffer_mb * _MIB) // frame_bytes) * frame_bytes / _MIB


class Simulation:
    """A virtual microscope in a core: what lies under it, what really happened, and what shall go wrong.

    slide: the virtual slide. true_affine: how the camera truly sees it. truth: by (sequence, number), where sequence counts the sequences
    that the camera was started for, from 0, and number is the core's ImageNumber; about 1 kB a frame, and it only grows.
    """

    def __init__(self, slide: VirtualSlide, true_affine: PixelToStage) -> None:
        self.slide = slide
        self.true_affine = true_affine
        self.truth: dict[tuple[int, int], Truth] = {}
        self.faults = Faults()

    @classmethod
    def load(
        cls,
        core: UniMMCore,
        settings: SimulatorSettings,
        exposure_ms: float | None = None,
        buffer_mb: int = 256,
    ) -> Simulation:
        """Adds camera, XY stage and focus drive to `core` and gives them their roles.

        The stage starts at (0, 0), the slide image's top-left pixel. exposure_ms: 5 if absent. buffer_mb: the core's image buffer is the largest
        whole number of frames within it. Raises what `open_slide` raises.
        """
        s = settings
        slide = open_slide(s.slide, s.pixel_size_um, s.seed, s.slide_size_mm)
        affine = PixelToStage.from_scale(slide.pixel_size_um, s.rotation_deg, s.mirrored)
        simulation = cls(slide, affine)
        shape = (*s.fov_px, 3) if s.color else s.fov_px
        motion = Motion(s.acceleration_um_s2, s.backlash_um, s.wobble_um, s.seed)
        focus = VirtualFocus()
        optics = Optics(slide, affine, s.fov_px, s.color)
        optics.light(motion.true([0.0]))  # so that the first frame need not wait for its tissue
        camera = VirtualCamera(
            optics,
            Sensor(
                shape, s.bit_depth, s.encoding, s.electrons_full_scale, s.read_noise_e, s.vignetting, s.seed
            ),
            motion,
            focus,
            affine,
            frames_per_s=s.frames_per_s,
            exposure_ms=exposure_ms or DEFAULT_EXPOSURE_MS,
            latency_s=s.latency_ms / 1000,
            jitter_s=s.jitter_ms / 1000,
            rolling_s=s.rolling_ms / 1000,
            defocus_px=s.defocus_px,
            full_scale_ms=None if s.light_e_ms is None else s.electrons_full_scale / s.light_e_ms,
            seed=s.seed,
            faults=simulation.faults,
            on_frame=simulation._remember,
        )
        stage = VirtualXYStage(
            motion,
            s.stage_read_ms / 1000,
            s.stage_noise_um,
            s.seed,
            simulation.faults,
            x_then_y=s.stage_skew,
        )
        for label, device in ((CAMERA, camera), (XY_STAGE, stage), (FOCUS, focus)):
            core.loadPyDevice(label, device)
            core.initializeDevice(label)
        core.setCameraDevice(CAMERA)
        core.setXYStageDevice(XY_STAGE)
        core.setFocusDevice(FOCUS)
        # a preset without properties always matches; one keyed on a property of a Python device never does
        core.definePixelSizeConfig("Simulator")
        core.setPixelSizeUm("Simulator", slide.pixel_size_um)
        core.setPixelSizeAffine("Simulator", affine.to_micromanager())
        frame_bytes = math.prod(shape) * s.bit_depth // 8
        # UniCore takes fractions of a MiB, whatever the annotation says
        core.setCircularBufferMemoryFootprint(footprint_mb(frame_bytes, buffer_mb))  # type: ignore[arg-type]
        return simulation

    def _remember(self, truth: Truth) -> None:
        self.truth[truth.sequence, truth.number] = truth
