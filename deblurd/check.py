"""Is this machine ready for a run? Every part is looked at, and each that fails says what to do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.markup import escape
from rich.table import Column, Table

from deblurd.acquire import open_microscope
from deblurd.acquire.microscope import MicroscopeInfo
from deblurd.config import load
from deblurd.deblur.deblurrer import Deblurrer
from deblurd.deblur.model import Model, find_model
from deblurd.errors import DeblurdError
from deblurd.host.disk import MB, DiskGuard
from deblurd.host.lock import output_lock, remove_lock
from deblurd.photon.kept import KeptTransfers
from deblurd.settings import MicroscopeSettings, Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of the machine. exit_code: 0 where it is in order. text: what was found, or what is wrong and what to do."""

    part: str
    exit_code: int
    text: str


def check(config_file: Path | None) -> list[Finding]:
    """Looks at all that a run needs; without a configuration, at what the simulator needs.

    Opens and closes the microscope, unless another deblurd is at work on the same output. Leaves nothing behind.
    """
    findings: list[Finding] = []

    def look(part: str, at: Callable[[], tuple[str, T]]) -> T | None:
        try:
            text, value = at()
        except DeblurdError as err:
            findings.append(Finding(part, err.exit_code, str(err)))
            return None
        findings.append(Finding(part, 0, text))
        return value

    settings = look("config", lambda: _config(config_file))
    if settings is None:
        return findings
    free = look("output lock", lambda: _lock(settings))
    look("disk", lambda: _disk(settings))
    look("adapters", lambda: _adapters(settings.microscope))
    # never opened under a daemon that is at work with it
    info = look("microscope", lambda: _microscope(settings)) if free else None
    model = look("model", lambda: _model(settings))
    if info is not None:
        look("pixel size", lambda: _pixel_size(info, model))
        look("camera noise", lambda: _photons(settings, info))
    if model is not None:
        look("providers", lambda: _providers(settings, model))
    return findings


def table(findings: list[Finding]) -> Table:
    out = Table("part", "", Column("finding", overflow="fold"), title="deblurd check", title_justify="left")
    for each in findings:
        out.add_row(each.part, "[red]FAIL[/]" if each.exit_code else "[green]OK[/]", escape(each.text))
    return out


def _config(file: Path | None) -> tuple[str, Settings]:
    if file is None:
        return "the simulator's", Settings(microscope=MicroscopeSettings(backend="simulator"))
    return str(file), load(file)


def _adapters(settings: MicroscopeSettings) -> tuple[str, None]:
    if settings.backend != "mmcore":
        return f"not needed by backend {settings.backend}", None
    # imported where it is needed: it looks through the disk
    from deblurd.acquire import adapters

    folder = adapters.find_adapters(settings.adapter_path)
    number = adapters.check_interface(folder)
    return f"{adapters.count(folder)} in {folder}, device interface {number or 'not known'}", None


def _microscope(settings: Settings) -> tuple[str, MicroscopeInfo]:
    microscope = open_microscope(settings)
    try:
        info = microscope.info
    finally:
        microscope.close()
    size = " x ".join(map(str, info.shape))
    found = f"; found: {', '.join(info.devices)}" if info.devices else ""
    return (
        f"camera {info.camera} ({size}, {info.dtype}, {info.exposure_ms:g} ms), stage {info.stage}{found}",
        info,
    )


def _model(settings: Settings) -> tuple[str, Model]:
    model = find_model(settings.deblur.model)
    low, high = model.blur_range_px
    return f"{model.identity['name']} {model.identity['version']}, for {low:g} to {high:g} px of blur", model


def _pixel_size(info: MicroscopeInfo, model: Model | None) -> tuple[str, None]:
    size_um = info.affine.pixel_size_um
    # a warning, since a run goes on with it
    return (model and model.check_pixel_size(size_um)) or f"{size_um:g} um", None


def _photons(settings: Settings, info: MicroscopeInfo) -> tuple[str, None]:
    kept = KeptTransfers(settings.mosaic.output).get(info)
    return (
        kept.sentence()
        if kept
        else "not measured yet: the next scan does it where it can, or `deblurd photons` with the stage at rest over tissue"
    ), None


def _providers(settings: Settings, model: Model) -> tuple[str, None]:
    s = settings.deblur
    deblurrer = Deblurrer(model, encoding="srgb", device=s.device, threads=s.threads)
    try:
        return deblurrer.engine_name, None
    finally:
        deblurrer.close()


def _disk(settings: Settings) -> tuple[str, None]:
    output = settings.mosaic.output
    return f"{DiskGuard(output, settings.mosaic.least_free_mb).check() // MB:,} MB free for {output}", None


def _lock(settings: Settings) -> tuple[str, bool]:
    output = settings.mosaic.output
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    with output_lock(output):
        pass
    if made:
        remove_lock(output)
        for folder in made:
            with suppress(OSError):  # somebody has put something there meanwhile
                folder.rmdir()
    return f"{output} is free and can be written", True
