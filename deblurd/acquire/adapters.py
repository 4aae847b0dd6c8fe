"""Device adapters on this machine: where they are, and whether this core can load them."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pymmcore_plus import find_micromanager

from deblurd.errors import MicroscopeError

_NEWEST_CORES: Final = {
    70: "10.1.1.70.6",
    71: "11.2.1.71.0",
    73: "11.9.0.73.0",
    74: "11.10.0.74.1",
    75: "12.5.1.75.0",
}
"""The newest pymmcore by device interface, which is the fourth number of its version."""


def find_adapters(path: Path | None) -> Path:
    """The folder of the adapters: `path`, or where Micro-Manager or `mmcore install` put those that fit.

    Raises MicroscopeError where there are none, or where they are made for another device interface than this core's.
    """
    if path is not None:
        found = path
    elif fitting := find_micromanager():
        found = Path(fitting)
    else:
        # pymmcore-plus passes over those that do not fit: they are the better hint
        others = [Path(each) for each in find_micromanager(return_first=False) if count(Path(each))]
        if not others:
            raise MicroscopeError(
                "no device adapters were found on this machine: install Micro-Manager, with `mmcore install` for one, "
                "or set microscope.adapter_path"
            )
        found = others[0]
    if not count(found):
        raise MicroscopeError(
            f"{found} holds no device adapters (mmgr_dal_*): set microscope.adapter_path to the folder of Micro-Manager"
        )
    check_interface(found)
    return found


def count(folder: Path) -> int:
    """How many adapters lie in `folder`."""
    return len(_libraries(folder))


def check_interface(folder: Path) -> int | None:
    """The device interface of the adapters in `folder`; None where none of them says it. Raises MicroscopeError where it is not this core's."""
    core_version = version("pymmcore")
    ours, theirs = int(core_version.split(".")[3]), interface(folder)
    if theirs is not None and theirs != ours:
        core = _NEWEST_CORES.get(theirs)
        fitting = (
            f'pip install "pymmcore=={core}"'
            if core
            else f"install a pymmcore whose fourth number is {theirs}"
        )
        raise MicroscopeError(
            f"the device adapters in {folder} have device interface {theirs}, and pymmcore {core_version} loads those of {ours} only: "
            f"{fitting}, or adapters of {ours} with `mmcore install`"
        )
    return theirs


def interface(folder: Path) -> int | None:
    """What the first adapter that can be loaded says its device interface is."""
    for library in _libraries(folder):
        with suppress(OSError, AttributeError):
            function = ctypes.CDLL(str(library)).GetDeviceInterfaceVersion
            function.restype = ctypes.c_long
            return int(function())
    return None


def _libraries(folder: Path) -> list[Path]:
    # the demo camera first: it needs no other library
    found = [path for path in folder.glob("*mmgr_dal_*") if path.is_file() and path.suffix != ".pdb"]
    return sorted(found, key=lambda path: ("DemoCamera" not in path.name, path.name))
