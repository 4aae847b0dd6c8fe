"""What can go wrong with a microscope, at the flick of a switch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Faults:
    """Switches that may be thrown while the virtual microscope runs; all off at first.

    camera_raises: the next frame raises inside the driver, which ends the sequence silently; then it is off again. camera_hangs: no frame
    arrives until it is False again. frame_shape: frames arrive with this shape. skip_frames: so many exposures
    are left out from now on (counts down). stage_raises: each reading and move raises. stage_hangs: readings do not come back until it is False
    again. position_nan: readings are NaN. jump_um: readings are so far off, (y, x).
    """

    camera_raises: bool = False
    camera_hangs: bool = False
    frame_shape: tuple[int, ...] | None = None
    skip_frames: int = 0
    stage_raises: bool = False
    stage_hangs: bool = False
    position_nan: bool = False
    jump_um: tuple[float, float] = (0.0, 0.0)
