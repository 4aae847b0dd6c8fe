"""Models are found, checked and refused in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deblurd.deblur.engine import Engine
from deblurd.deblur.model import Model, available_models, find_model
from deblurd.errors import ModelError
from deblurd.frames import MotionVector
from tests.deblur.samples import MakeModel, identity_taps, network


def engine(folder: Path) -> Engine:
    return Engine(folder / "model.onnx", device="cpu", threads=1, stride=4, halo_px=0)


def test_a_model_is_found_by_its_path_and_its_shipped_name(make_model: MakeModel) -> None:
    assert find_model(str(make_model())).name == "tiny"
    assert {"fast", "raw", "wiener"} <= set(available_models())
    shipped = find_model("fast")
    assert shipped.identity["sha256"][0] == shipped.manifest.files[0].sha256 if shipped.manifest else False


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="did you mean 'fast'"):
        find_model("fats")


def test_an_altered_file_is_refused(make_model: MakeModel) -> None:
    folder = make_model()
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match=r"is not the file that manifest\.json describes"):
        find_model(str(folder))


def test_a_missing_file_is_named(make_model: MakeModel) -> None:
    folder = make_model()
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx cannot be read"):
        find_model(str(folder))


@pytest.mark.parametrize(
    ("text", "said"), [("{", "is not JSON"), ("{}", "not a manifest"), ('{"schema": 2}', "not a manifest")]
)
def test_a_broken_manifest_is_named(make_model: MakeModel, text: str, said: str) -> None:
    folder = make_model()
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match=said):
        find_model(str(folder))


def test_an_unknown_key_of_a_manifest_is_named(make_model: MakeModel) -> None:
    folder = make_model(strides=4)
    with pytest.raises(ModelError, match="strides"):
        find_model(str(folder))


def test_a_file_that_is_not_onnx_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(ModelError, match="could not be loaded by ONNX Runtime"):
        engine(make_model(b"this is not a network"))


def test_a_network_with_other_outputs_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(ModelError, match=r"outputs \['picture'\]"):
        engine(make_model(network(identity_taps(), output="picture")))


def test_cuda_that_is_not_there_is_refused_when_asked_for(make_model: MakeModel) -> None:
    path = make_model() / "model.onnx"
    try:
        session = Engine(path, device="cuda", threads=1, stride=4, halo_px=0)
    except ModelError as err:
        assert "fell back to the CPU" in str(err)  # noqa: PT017 - on a machine with CUDA there is no error
    else:
        assert "CUDAExecutionProvider" in session.providers


def test_the_sub_model_is_chosen_by_the_motion_vector(make_model: MakeModel) -> None:
    folder = make_model()
    manifest = json.loads((folder / "manifest.json").read_text())
    file = manifest["files"][0]
    manifest["files"] = [
        file | {"blur_px": [1, 12]},
        file | {"blur_px": [10, 24]},
        file | {"blur_px": [20, 48]},
    ]
    (folder / "manifest.json").write_text(json.dumps(manifest | {"kind": "bank"}))
    bank = find_model(str(folder))
    chosen = [bank.file_for(MotionVector(0, length)).blur_px[0] for length in (2, 5, 18, 30, 60)]
    assert chosen == [1, 1, 10, 20, 20]


@pytest.mark.parametrize(
    ("dy", "dx", "file"),
    [
        (0, 8, "short-x"),
        (0, -8, "short-x"),
        (8, 1, "short-y"),
        (-8, 1, "short-y"),
        (5, -5.1, "short-x"),
        (5.1, -5, "short-y"),
        (0, 30, "long"),
        (30, 0, "long"),
        (90, 0, "long"),
        (0, 0, "short-x"),
    ],
)
def test_the_sub_model_is_chosen_by_level_and_direction(
    make_model: MakeModel, dy: float, dx: float, file: str
) -> None:
    folder = make_model()
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / "model.onnx").read_bytes()
    kinds = {
        "short-x": {"blur_px": [1, 12], "angle_deg": [-45, 45]},
        "short-y": {"blur_px": [1, 12], "angle_deg": [45, 135]},
        "long": {"blur_px": [12, 48]},
    }
    for name in kinds:
        (folder / f"{name}.onnx").write_bytes(content)
    manifest["files"] = [
        manifest["files"][0] | {"file": f"{name}.onnx"} | kind for name, kind in kinds.items()
    ]
    (folder / "manifest.json").write_text(json.dumps(manifest | {"kind": "bank"}))
    assert find_model(str(folder)).file_for(MotionVector(dy, dx)).file == f"{file}.onnx"


def test_a_pixel_size_outside_the_training_is_said(make_model: MakeModel) -> None:
    model: Model = find_model(str(make_model()))
    assert model.check_pixel_size(0.5) is None
    assert "was trained for 0.2 to 1 um" in (model.check_pixel_size(4.0) or "")


def test_telemetry_is_off_before_onnx_runtime_is_imported() -> None:
    code = (
        "import os, sys; os.environ.pop('ORT_DISABLE_TELEMETRY', None)\n"
        "import deblurd\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
        "import deblurd.deblur.engine\n"
        "assert 'onnxruntime' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
