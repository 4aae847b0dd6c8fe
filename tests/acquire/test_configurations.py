"""What is wrong with a .cfg or a microscope, in one sentence each."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from deblurd.acquire.mmcore import MMCoreMicroscope
from deblurd.errors import ConfigError, DeblurdError, MicroscopeError, NoInputError
from tests.acquire.conftest import DEVICES, Democam, adapters

UNKNOWN = {"pixel_size_um": None, "rotation_deg": None}
PRESET = ("ConfigPixelSize,Res10x,Camera,Binning,1",)


def refused(kind: type[DeblurdError], text: str, tmp_path: Path) -> str:
    config = tmp_path / "bad.cfg"
    config.write_text(text, encoding="utf-8")
    with pytest.raises(kind) as caught:
        MMCoreMicroscope.from_config(config, adapters(), pixel_size_um=1.0, rotation_deg=0.0)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    return sentence


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"nowhere\.cfg"):
        MMCoreMicroscope.from_config(tmp_path / "nowhere.cfg", adapters())


def test_a_broken_file(tmp_path: Path) -> None:
    assert "bad.cfg" in refused(ConfigError, "blah blah\nDevice,Cam\n", tmp_path)


@pytest.mark.skipif(adapters() is None, reason="Micro-Manager's DemoCamera adapter is not on this machine")
def test_an_adapter_that_is_not_there(tmp_path: Path) -> None:
    sentence = refused(MicroscopeError, "Device,Cam,NoSuchAdapter,DCam\n", tmp_path)
    assert "NoSuchAdapter" in sentence


@pytest.mark.skipif(adapters() is None, reason="Micro-Manager's DemoCamera adapter is not on this machine")
@pytest.mark.parametrize("device", ["Camera", "XYStage"])
def test_a_role_that_no_device_has(tmp_path: Path, device: str) -> None:
    name = device.removesuffix("Stage")
    lines = [line for line in DEVICES.splitlines() if f",{name}" not in line]
    sentence = refused(MicroscopeError, "\n".join(lines) + "\n", tmp_path)
    assert ("no camera" if device == "Camera" else "no XY stage") in sentence


def test_a_pixel_size_that_is_not_known(democam: Democam) -> None:
    with pytest.raises(ConfigError, match=r"set microscope\.pixel_size_um"):
        democam(**UNKNOWN)


def test_an_affine_of_another_scale(democam: Democam) -> None:
    with pytest.raises(ConfigError, match=r"pixel size is 0\.5 um .* 0\.65 um per pixel"):
        democam(
            *PRESET,
            "PixelSize_um,Res10x,0.5",
            "PixelSizeAffine,Res10x,0.65,0.0,0.0,0.0,0.65,0.0",
            **UNKNOWN,
        )


def test_a_pixel_size_without_an_affine(democam: Democam) -> None:
    with pytest.raises(ConfigError, match="no affine transform"):
        democam(*PRESET, "PixelSize_um,Res10x,0.5", **UNKNOWN)


def test_a_calibrated_camera_is_believed(democam: Democam) -> None:
    microscope = democam(
        *PRESET,
        "PixelSize_um,Res10x,0.5",
        "PixelSizeAffine,Res10x,0.0,0.5,0.0,-0.5,0.0,0.0",
        **UNKNOWN,
    )
    # (x, y) of Micro-Manager: right in the image is -y of the stage, down is +x
    assert np.allclose(microscope.info.affine.matrix, [[0.0, -0.5], [0.5, 0.0]])
    assert microscope.info.objective == "Res10x"


def test_the_stage_of_a_real_core_moves_and_is_read(democam: Democam) -> None:
    microscope = democam()
    microscope.move_to_um(30.0, -40.0)
    while microscope.is_moving():
        pass
    assert microscope.position_um() == pytest.approx((30.0, -40.0), abs=0.02)


@pytest.mark.skipif(adapters() is None, reason="Micro-Manager's DemoCamera adapter is not on this machine")
def test_a_folder_without_adapters(tmp_path: Path) -> None:
    config = tmp_path / "microscope.cfg"
    config.write_text(DEVICES, encoding="utf-8")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MicroscopeError, match="holds no device adapters"):
        MMCoreMicroscope.from_config(config, empty, pixel_size_um=1.0, rotation_deg=0.0)
    shutil.rmtree(empty)


def stub_adapter(folder: Path, interface: int) -> None:
    """A library that says what it was made for, and no more."""
    folder.mkdir()
    source = folder / "adapter.c"
    source.write_text(f"long GetDeviceInterfaceVersion(void) {{ return {interface}; }}", encoding="utf-8")
    library = folder / "libmmgr_dal_DemoCamera.so.0"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)


@pytest.mark.skipif(shutil.which("cc") is None or os.name == "nt", reason="no C compiler is on this machine")
@pytest.mark.parametrize(
    ("interface", "cure"), [(71, 'pip install "pymmcore==11.2.1.71.0"'), (68, "fourth number is 68")]
)
def test_adapters_of_another_interface(tmp_path: Path, interface: int, cure: str) -> None:
    config = tmp_path / "microscope.cfg"
    config.write_text(DEVICES, encoding="utf-8")
    stub_adapter(tmp_path / "adapters", interface)
    with pytest.raises(
        MicroscopeError, match=f"have device interface {interface}, and pymmcore .* loads those of"
    ) as caught:
        MMCoreMicroscope.from_config(config, tmp_path / "adapters")
    assert cure in str(caught.value)


def test_all_cameras_and_stages_are_named(democam: Democam) -> None:
    assert democam().info.devices == ("camera Camera", "XY stage XY")
