"""Model folders as the engine loads them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.deblur.samples import MakeModel, identity_taps, network


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Writes a model folder; keyword arguments change its manifest."""

    def make(proto: onnx.ModelProto | bytes | None = None, name: str = "tiny", **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        proto = network(identity_taps()) if proto is None else proto
        content = proto if isinstance(proto, bytes) else proto.SerializeToString()
        (folder / "model.onnx").write_bytes(content)
        manifest: dict[str, Any] = {
            "schema": 1,
            "name": name,
            "version": "1.0",
            "kind": "single",
            "description": "gives the estimate back",
            "licence": "CC0",
            "encoding": "srgb",
            "nsr": 0.02,
            "stride": 4,
            "halo_px": 0,
            "blur_range_px": [1, 48],
            "pixel_size_range_um": [0.2, 1.0],
            "inputs": ["blurred", "estimate", "motion"],
            "outputs": ["sharp"],
            "files": [
                {
                    "file": "model.onnx",
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "blur_px": [1, 48],
                    "angle_deg": None,
                }
            ],
        }
        (folder / "manifest.json").write_text(json.dumps(manifest | changes))
        return folder

    return make
