"""A technician who moves the stage is told the better exposure, once the camera has been measured."""

from __future__ import annotations

from pathlib import Path

import httpx2 as httpx
import pytest

from deblurd.photon.kept import KeptTransfers
from deblurd.photon.transfer import PhotonTransfer
from tests.page.scans import Scan
from tests.page.test_daemon_view import wait_for


@pytest.mark.slow
@pytest.mark.parametrize("is_measured", [True, False])
def test_a_better_exposure_is_named(tmp_path: Path, is_measured: bool) -> None:
    output = tmp_path / "slides"
    started = Scan(output, speed_um_s=600.0, area_mm=(1.5, 1.1))
    if is_measured:
        transfer = PhotonTransfer(40_000.0, 150.0, 4.0, 0.0, 255, 8000.0, 5.0, 0.01)
        KeptTransfers(output).keep(started.daemon.microscope.info, transfer)
    with started as scan, httpx.Client(base_url=scan.url) as client:
        if is_measured:
            advice = wait_for(lambda: client.get("/api/status").json()["advice"], "an advice")
            assert advice.startswith("At ")
            assert "in place of 5 ms" in advice
        else:
            wait_for(lambda: client.get("/api/status").json()["fields"] > 30, "fields")
            assert client.get("/api/status").json()["advice"] is None
