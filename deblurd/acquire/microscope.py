"""What deblurd wants of a microscope, whatever drives it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from deblurd.acquire.losses import Losses
from deblurd.frames import Encoding, Frame
from deblurd.geometry import PixelToStage


@dataclass(frozen=True, slots=True)
class MicroscopeInfo:
    """What stands still while frames come.

    shape: (H, W) or (H, W, 3) of every frame. dtype: "uint8" or "uint16". encoding: what its values mean. affine: camera
    pixels to stage micrometres. latency_ms: from the end of an exposure to the frame's arrival, mean; None where unknown.
    objective: label of the pixel-size preset, "" if there is none. versions: of the core and of its device interface. devices: all cameras and
    stages that are there, for people. most_turns: how many exposures the camera can take in turn, frame by frame; 0 where it cannot. rolling_ms: from
    the exposure of a frame's first row to that of its last, negative where the last row comes first; None where nobody said.
    """

    camera: str
    stage: str
    shape: tuple[int, ...]
    dtype: str
    encoding: Encoding
    exposure_ms: float
    latency_ms: float | None
    affine: PixelToStage
    objective: str
    versions: str
    devices: tuple[str, ...] = ()
    most_turns: int = 0
    rolling_ms: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For a manifest: plain JSON types."""
        return {
            "camera": self.camera,
            "stage": self.stage,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "encoding": self.encoding,
            "exposure_ms": self.exposure_ms,
            "latency_ms": self.latency_ms,
            "rolling_ms": self.rolling_ms,
            "pixel_size_um": self.affine.pixel_size_um,
            "affine_um": self.affine.matrix.tolist(),
            "objective": self.objective,
            "versions": self.versions,
        }


class OtherObjective(str):
    """Why no frames come: another objective is in place than at the start, and tiles of two scales make no mosaic."""

    __slots__ = ()


class Microscope(Protocol):
    """A camera that streams and a stage that moves. Every method but `frames` returns as fast as the device answers."""

    @property
    def name(self) -> str:
        """For people: camera and stage."""

    @property
    def info(self) -> MicroscopeInfo: ...

    @property
    def losses(self) -> Losses: ...

    @property
    def trouble(self) -> str | None:
        """Why no frames come at the moment, and what to do, in a sentence; None where they come, or nobody knows why not."""

    @property
    def is_acquiring(self) -> bool | None:
        """Whether the program that holds it runs an acquisition of its own; None where it has none, or has not been asked yet."""

    @property
    def simulation(self) -> Any:
        """The simulator's truth, for scoring; None on a real microscope."""

    def start(self) -> None:
        """Starts the camera, unless it runs. Raises MicroscopeError."""

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Starts the camera and yields every frame in order until `stop` is set, then what is still buffered.

        After a loss that can be mended the camera is started again, and `Frame.sequence` goes up by one. Raises MicroscopeError
        when the camera cannot be brought back, or its frames have changed their shape for good. While it waits it calls `health.beat`:
        a thread that does not is taken for stuck, and a service is started again.
        """

    def stop(self) -> None:
        """Stops the camera; frames that it has sent stay for `frames` to yield."""

    def position_um(self) -> tuple[float, float]:
        """Where the stage says it is, (y, x). Raises MicroscopeError, also for a position that is not finite."""

    def z_um(self) -> float | None:
        """Where the focus drive says it is; None without one. Raises MicroscopeError."""

    def focus_to_um(self, z_um: float) -> None:
        """Moves the focus drive, and returns when it is there. Raises MicroscopeError, also without one."""

    def autofocus_um(self) -> float:
        """Has Micro-Manager's autofocus device focus; returns the height where it is sharp. Raises MicroscopeError, also without one."""

    def move_to_um(self, y_um: float, x_um: float) -> None:
        """Starts an absolute move. Raises MicroscopeError."""

    def set_speed_um_s(self, speed_um_s: float) -> None:
        """Speed of the moves that follow. Raises MicroscopeError where the stage has no such property."""

    def set_exposure_ms(self, exposure_ms: float) -> None:
        """Exposure of the frames that follow, of a sequence of their own. Raises MicroscopeError."""

    def is_moving(self) -> bool: ...

    def halt(self) -> None:
        """Stops the stage where it is."""

    def close(self) -> None:
        """Lets go of the devices; safe to call twice."""
