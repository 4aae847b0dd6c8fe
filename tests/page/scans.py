"""A daemon at work on the simulator, with its page open."""

from __future__ import annotations

import threading
from pathlib import Path

from deblurd.daemon import Daemon
from deblurd.page import open_page
from deblurd.settings import (
    DeblurSettings,
    MicroscopeSettings,
    MosaicSettings,
    ScanSettings,
    ServeSettings,
    Settings,
    SimulatorSettings,
    SlideSettings,
)


class Scan:
    """A daemon on its own thread, and where its page is."""

    def __init__(
        self, output: Path, speed_um_s: float = 400.0, area_mm: tuple[float, float] = (1.2, 0.9)
    ) -> None:
        settings = Settings(
            microscope=MicroscopeSettings(
                backend="simulator", exposure_ms=5.0, encoding="srgb", latency_ms=15.0
            ),
            simulator=SimulatorSettings(slide_size_mm=(1.6, 1.2), fov_px=(256, 256), frames_per_s=30.0),
            scan=ScanSettings(mode="serpentine", area_mm=area_mm, speed_um_s=speed_um_s),
            deblur=DeblurSettings(model="wiener"),
            mosaic=MosaicSettings(output=output, shard_px=512, refresh_s=1.0),
            slide=SlideSettings(name="S-001"),
            serve=ServeSettings(port=0),
        )
        self.daemon = Daemon(settings)
        self.stop = threading.Event()
        self.failure: BaseException | None = None
        self._page = open_page(self.daemon)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Scan:
        url = self._page.__enter__().url
        assert url is not None
        self.url = url
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join()
        self._page.__exit__(None, None, None)
        self.daemon.close()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            self.daemon.run(lambda _: None, self.stop)
        except BaseException as err:  # noqa: BLE001 - raised again by the test's own thread
            self.failure = err
