"""A Micro-Manager Studio that runs already, by pycromanager: deblurd looks at its live view, or drives its camera and stage.

Meant for a process of its own (see `isolated`): where Studio dies, its client waits for ever.
"""

from __future__ import annotations

import importlib
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from pymmcore_plus import CMMCorePlus

from deblurd.acquire.coretalk import first_line
from deblurd.acquire.live import LiveView
from deblurd.acquire.mmcore import MMCoreMicroscope
from deblurd.acquire.stream import CameraStream
from deblurd.errors import ConfigError, MicroscopeError

log = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
_PROBE_S = 2.0
_GREETING = (0xFF, 0x7F)
"""First and last of the ten bytes that a ZMQ socket says to whoever connects, before it is asked (ZMTP, RFC 23)."""

_JAVA_CLASS = re.compile(r"^(?:[a-z]\w*\.)+\w*(?:Exception|Error):? *")
_BGRA = {"uint8": np.uint32, "uint16": np.uint64}

_STUDIO = "org.micromanager.Studio"
_SERVER = "start Micro-Manager, with Tools > Options > Run server on port {port}"


class StudioCore:
    """The core of another program under the names, and with the values, of pymmcore-plus; those that `MMCoreMicroscope` and its streams use.

    connect: a new connection, pycromanager's Core; each thread gets one of its own, since pycromanager lets one call wait for another. studio: Studio
    itself, beside its core; None where there is none, and so no acquisitions. Nothing is unloaded, and nothing is exposed to learn the shape of frames. Every error is a RuntimeError with one line.
    """

    def __init__(self, connect: Callable[[], Any], studio: Callable[[], Any] | None = None) -> None:
        self._connect, self._studio = connect, studio
        self._acquisitions: Any = None
        self._mine = threading.local()
        self._waiting = 0
        self._is_running = False
        self._position_at_once = True
        self._components = 1
        self.getNumberOfComponents()

    # --- frames ---

    def startSequenceAcquisition(self, n: int, interval_ms: float, stop_on_overflow: bool) -> None:
        self._call("start_sequence_acquisition", n, float(interval_ms), stop_on_overflow)
        self._waiting = 0
        self.getNumberOfComponents()

    def stopSequenceAcquisition(self) -> None:
        self._call("stop_sequence_acquisition")

    def isSequenceRunning(self) -> bool:
        # each question costs a way to the other program and back: not asked again while it is known that frames wait
        if not self._waiting:
            self._is_running = bool(self._call("is_sequence_running"))
        return self._is_running

    def getRemainingImageCount(self) -> int:
        if not self._waiting:
            self._waiting = int(self._call("get_remaining_image_count"))
        return self._waiting

    def popNextImageAndMD(self, fix: bool = True) -> tuple[NDArray[Any], dict[str, str]]:
        try:
            tagged = self._call("pop_next_tagged_image")
            self._waiting -= 1
        except RuntimeError:
            self._waiting = 0
            raise
        return self._unpacked(tagged)

    def lastImageAndMD(self) -> tuple[NDArray[Any], dict[str, str]]:
        """The newest frame, which stays where it is."""
        if self._has("get_last_tagged_image"):
            return self._unpacked(self._call("get_last_tagged_image"))
        # the Python backend has no such name
        metadata = importlib.import_module("pymmcore").Metadata()
        image = self._call("get_last_image_md", 0, 0, metadata)
        return image, {key: metadata.GetSingleTag(key).GetValue() for key in metadata.GetKeys()}

    def isBufferOverflowed(self) -> bool:
        return bool(self._call("is_buffer_overflowed"))

    def getCircularBufferMemoryFootprint(self) -> int:
        return int(self._call("get_circular_buffer_memory_footprint"))

    def snapImage(self) -> None:
        """Nothing: see `getImage`."""

    def getImage(self, fix: bool = True) -> NDArray[Any]:
        """Black, in the shape and depth that frames will have."""
        h, w = int(self._call("get_image_height")), int(self._call("get_image_width"))
        size = int(self._call("get_bytes_per_pixel"))
        kinds: dict[int, type[Any]] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
        return np.zeros((h, w), np.float32 if size == 4 and self._components == 1 else kinds[size])

    def _unpacked(self, tagged: Any) -> tuple[NDArray[Any], dict[str, str]]:
        """Pixels, in two dimensions where they fit the core's word on their shape, and tags.

        Each attribute is a way there and back, and the picture stays in the other program until `tagged` is gone.
        """
        try:
            pixels, tags = tagged.pix, tagged.tags
        except AttributeError as err:
            # a Java Error comes as a value: out of memory, mostly
            raise RuntimeError(
                f"it gave {type(tagged).__name__} in place of a frame: give Micro-Manager more memory"
            ) from err
        except Exception as err:
            raise RuntimeError(java_words(err)) from err
        del tagged
        texts = {str(key): str(value) for key, value in dict(tags).items()}
        if pixels is None:
            raise RuntimeError("it gave a frame without pixels: set the camera to 8 or 16 bits, mono or RGB")
        return self._shaped(np.asarray(pixels), texts), texts

    def _shaped(self, pixels: NDArray[Any], tags: dict[str, str]) -> NDArray[Any]:
        if pixels.ndim != 1:
            return pixels
        if self._components == 4 and (words := _BGRA.get(pixels.dtype.name)) and len(pixels) % 4 == 0:
            pixels = pixels.view(words)
        # the tags tell what the core was set to when the frame was taken out, not when it was exposed
        h, w = int(tags.get("Height", 0)), int(tags.get("Width", 0))
        return pixels.reshape(h, w) if h * w == len(pixels) else pixels

    # --- stage, and what stands still ---

    def getXYPosition(self) -> tuple[float, float]:
        if not self._has("get_xy_stage_position"):
            # the Python backend
            x, y = self._call("get_xy_position")
            return float(x), float(y)
        if self._position_at_once:
            try:
                point = self._call("get_xy_stage_position")
                return float(point.x), float(point.y)
            except RuntimeError as err:
                if "Internal class" not in str(err):
                    raise
                # some servers keep Java's own points to themselves
                self._position_at_once = False
        return float(self._call("get_x_position")), float(self._call("get_y_position"))

    def setXYPosition(self, x_um: float, y_um: float) -> None:
        self._call("set_xy_position", float(x_um), float(y_um))

    def getPosition(self) -> float:
        return float(self._call("get_position"))

    def setPosition(self, z_um: float) -> None:
        self._call("set_position", float(z_um))

    def waitForDevice(self, label: str) -> None:
        self._call("wait_for_device", label)

    def deviceBusy(self, label: str) -> bool:
        return bool(self._call("device_busy", label))

    def stop(self, label: str) -> None:
        self._call("stop", label)

    def getDevicePropertyNames(self, label: str) -> tuple[str, ...]:
        return tuple(map(str, _all_of(self._call("get_device_property_names", label))))

    def isPropertyReadOnly(self, label: str, name: str) -> bool:
        return bool(self._call("is_property_read_only", label, name))

    def setProperty(self, label: str, name: str, value: str) -> None:
        self._call("set_property", label, name, str(value))

    def getExposure(self) -> float:
        return float(self._call("get_exposure"))

    def setExposure(self, exposure_ms: float) -> None:
        self._call("set_exposure", float(exposure_ms))

    def getNumberOfComponents(self) -> int:
        self._components = int(self._call("get_number_of_components"))
        return self._components

    def getCameraDevice(self) -> str:
        return str(self._call("get_camera_device"))

    def getXYStageDevice(self) -> str:
        return str(self._call("get_xy_stage_device"))

    def getFocusDevice(self) -> str:
        return str(self._call("get_focus_device"))

    def getPixelSizeUm(self) -> float:
        return float(self._call("get_pixel_size_um"))

    def getPixelSizeAffine(self) -> tuple[float, ...]:
        return tuple(map(float, _all_of(self._call("get_pixel_size_affine"))))

    def getCurrentPixelSizeConfig(self) -> str:
        return str(self._call("get_current_pixel_size_config"))

    def getVersionInfo(self) -> str:
        return str(self._call("get_version_info"))

    def getAPIVersionInfo(self) -> str:
        return str(self._call("get_api_version_info"))

    def isAcquisitionRunning(self) -> bool:
        """Whether Studio runs one (its multi-dimensional acquisition). From one thread."""
        try:
            if self._studio is None:
                return False
            if self._acquisitions is None:
                self._acquisitions = self._studio().acquisitions()
            return bool(self._acquisitions.is_acquisition_running())
        except Exception as err:
            raise RuntimeError(java_words(err)) from err

    def unloadAllDevices(self) -> None:
        """Never: they are the other program's."""

    # --- the connection ---

    @property
    def _core(self) -> Any:
        core = getattr(self._mine, "core", None)
        if core is None:
            core = self._mine.core = self._connect()
        return core

    def _has(self, name: str) -> bool:
        """Whether the other side knows the method: Python's backend has other names for some."""
        try:
            return hasattr(self._core, name)
        except Exception as err:
            raise RuntimeError(java_words(err)) from err

    def _call(self, name: str, *args: Any) -> Any:
        try:
            return getattr(self._core, name)(*args)
        except Exception as err:
            raise RuntimeError(java_words(err)) from err


class StudioMicroscope(MMCoreMicroscope):
    """A `Microscope` that another program holds.

    drives: whether deblurd starts and stops the camera; else it only looks at the live view that somebody has switched on. ours: whether a sequence that
    runs was left behind by deblurd. Raises MicroscopeError also where deblurd is to drive while the live view is on.
    """

    def __init__(self, core: StudioCore, *, drives: bool, ours: bool = False, **options: Any) -> None:
        self._drives, self._looked_at = drives, core
        if drives and core.isSequenceRunning():
            if not ours:
                raise MicroscopeError(
                    "deblurd cannot drive, because Micro-Manager's live view has the camera: switch Live off, then start again"
                )
            core.stopSequenceAcquisition()
        if not drives:
            asked_ms = options.pop("exposure_ms", None)
            if asked_ms is not None and abs(core.getExposure() - asked_ms) > 0.01 * asked_ms:
                log.warning(
                    "the exposure is Micro-Manager's, %g ms, and not microscope.exposure_ms, since deblurd only looks on",
                    core.getExposure(),
                )
        # it has the names that are used
        super().__init__(cast(CMMCorePlus, core), **options)

    @property
    def trouble(self) -> str | None:
        looked = self._stream.trouble if isinstance(self._stream, LiveView) else None
        return looked or super().trouble

    @property
    def is_acquiring(self) -> bool | None:
        return self._stream.is_acquiring if isinstance(self._stream, LiveView) else None

    def _devices(self) -> tuple[str, ...]:
        return ()

    def _most_turns(self) -> int:
        return 0

    def _make_stream(
        self, hang_s: float, most_frames_per_s: float, turns_ms: Sequence[float]
    ) -> CameraStream | LiveView:
        if turns_ms:
            raise ConfigError(
                "exposures cannot take turns while Micro-Manager holds the camera: leave scan.exposures_ms empty, or use backend mmcore"
            )
        if self._drives:
            return super()._make_stream(hang_s, most_frames_per_s, turns_ms)
        return LiveView(self._looked_at, self.losses, hang_s)


def attach(port: int, timeout_s: float) -> StudioCore:
    """The core of the Micro-Manager that listens at `port`.

    Raises MicroscopeError where pycromanager is not installed, nobody listens, somebody else does, or Micro-Manager does not answer in time.
    """
    try:
        # what pycromanager hands on as its own; with all of it, its viewers and their libraries are imported, which takes seconds
        Core = importlib.import_module("mmpycorex").Core
        bridge_of: Any = importlib.import_module("pyjavaz")
        bridge: Any = importlib.import_module("pyjavaz.bridge")
    except ImportError as err:
        raise MicroscopeError(
            'backend "studio" needs pycromanager, which is not installed: pip install "deblurd[studio]"'
        ) from err
    # each object of Java's would leave a function behind that is called when Python ends: memory that grows with every frame
    bridge.atexit = SimpleNamespace(register=lambda function: None)
    probe(port)
    made: list[StudioCore] = []
    failed: list[Exception] = []

    def connect() -> Any:
        return Core(port=port, new_socket=True, timeout=int(1000 * timeout_s))

    def studio() -> Any:
        return bridge_of.JavaObject(_STUDIO, port=port, new_socket=True, timeout=int(1000 * timeout_s))

    def try_it() -> None:
        try:
            made.append(StudioCore(connect, studio))
        except Exception as err:  # noqa: BLE001 - whatever pycromanager raises is told below
            failed.append(err)

    thread = threading.Thread(target=try_it, name="deblurd-attach", daemon=True)
    with _quiet_threads():
        thread.start()
        thread.join(timeout_s + 1)
    if made:
        return made[0]
    reason = f"it said: {java_words(failed[0])}" if failed else f"it said nothing for {timeout_s:g} s"
    raise MicroscopeError(
        f"Micro-Manager at port {port} cannot be asked ({reason}): close what else is connected to it, or restart Micro-Manager"
    )


def probe(port: int) -> None:
    """Whether something that could be Micro-Manager listens at `port`: pycromanager would wait. Raises MicroscopeError."""
    try:
        with socket.create_connection((HOST, port), _PROBE_S) as connection:
            connection.settimeout(_PROBE_S)
            said = b""
            while len(said) < 10 and (more := connection.recv(10 - len(said))):
                said += more
    except ConnectionRefusedError as err:
        raise MicroscopeError(
            f"no Micro-Manager is there, because nothing listens at port {port}: {_SERVER.format(port=port)}"
        ) from err
    except TimeoutError as err:
        raise MicroscopeError(
            f"whatever listens at port {port} says nothing: if it is Micro-Manager, it hangs, restart it; else {_SERVER.format(port='another')}, "
            "and set microscope.studio_port"
        ) from err
    except OSError as err:
        raise MicroscopeError(
            f"port {port} cannot be reached ({err.strerror or err}): {_SERVER.format(port=port)}"
        ) from err
    if len(said) < 10 or (said[0], said[9]) != _GREETING:
        raise MicroscopeError(
            f"port {port} is taken by something that is not Micro-Manager: {_SERVER.format(port='another')}, and set microscope.studio_port"
        )


def java_words(err: Exception) -> str:
    """What an error from the other side says: its first line, without the name of its Java class."""
    return _JAVA_CLASS.sub("", first_line(err)) or type(err).__name__


def _all_of(vector: Any) -> Iterator[Any]:
    """Items of a list, or of a vector that lives in Java."""
    if hasattr(vector, "size") and hasattr(vector, "get"):
        return (vector.get(i) for i in range(vector.size()))
    return iter(vector)


class _quiet_threads:
    """pyjavaz' own threads die of what is reported here in a sentence: they shall not print a traceback beside it."""

    def __enter__(self) -> None:
        self._before = threading.excepthook
        threading.excepthook = lambda args: log.debug("%s: %s", args.thread, args.exc_value)

    def __exit__(self, *exc: object) -> None:
        threading.excepthook = self._before
