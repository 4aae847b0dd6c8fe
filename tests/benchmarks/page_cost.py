"""What an open page costs a scan that keeps every core busy, and how soon it answers.

``python -m tests.benchmarks.page_cost [--pages N] [--model NAME]``: scans the simulator faster than the model can follow; N clients ask what N
open pages would, from a process of their own. Cost: processor time of the page's threads over that of the whole daemon. For research use only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from deblurd.daemon import Daemon
from deblurd.page import open_page
from deblurd.serve.view import TILE_PX
from deblurd.settings import ServeSettings
from deblurd.simulator.demo import demo_settings
from deblurd.simulator.options import DemoOptions
from deblurd.simulator.slide import open_slide

STATUS_S, MOSAIC_S, SLIDES_S, ACTION_S = 0.4, 2.0, 3.0, 0.5
MOST_TILES = 12
"""That a screen shows anew when the mosaic has grown."""


class Page:
    """One page's questions, in its own rhythm; seconds of each answer by kind."""

    def __init__(self, url: str) -> None:
        self._url, self._field, self._revision = url, None, None
        self._due = dict.fromkeys(("mosaic", "slides", "action"), 0.0)
        self.took_s: dict[str, list[float]] = {}

    def run(self, seconds: float) -> None:
        end_s = time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            status = json.loads(self._ask("status", "api/status"))
            if status["newest_field"] not in (None, self._field):
                self._field = status["newest_field"]
                for kind in ("before", "after"):
                    self._ask("picture", f"api/live/{kind}.jpg")
            if self._is_due("mosaic", MOSAIC_S) and status["slide"]:
                self._look_at(status["slide"])
            if self._is_due("slides", SLIDES_S):
                self._ask("slides", "api/slides")
            if self._is_due("action", ACTION_S):
                self._ask("action", "api/actions/start", b"{}")
            time.sleep(STATUS_S)

    def _is_due(self, what: str, every_s: float) -> bool:
        if time.perf_counter() < self._due[what]:
            return False
        self._due[what] = time.perf_counter() + every_s
        return True

    def _look_at(self, slide: str) -> None:
        mosaic = json.loads(self._ask("mosaic", f"api/slides/{slide}/mosaic"))
        if mosaic is None or mosaic["revision"] == self._revision:
            return
        self._revision = mosaic["revision"]
        y0, x0, y1, x1 = mosaic["used_px"]
        level = max((max(y1 - y0, x1 - x0) // 1024).bit_length() - 1, 0)
        rows = range((y0 >> level) // TILE_PX, -(-(y1 >> level) // TILE_PX))
        columns = range((x0 >> level) // TILE_PX, -(-(x1 >> level) // TILE_PX))
        for row, column in [(r, c) for r in rows for c in columns][:MOST_TILES]:
            self._ask(
                "tile", f"api/slides/{slide}/mosaic/{level}/{row}/{column}.jpg?revision={self._revision}"
            )

    def _ask(self, kind: str, path: str, body: bytes | None = None) -> bytes:
        began_s = time.perf_counter()
        request = urllib.request.Request(self._url + path, body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                content: bytes = answer.read()
        except urllib.error.HTTPError as err:
            # "no" is an answer too
            content = err.read()
        self.took_s.setdefault(kind, []).append(time.perf_counter() - began_s)
        return content


def watch(url: str, pages: int, seconds: float) -> None:
    """The process of the clients."""
    watching = [Page(url) for _ in range(pages)]
    threads = [threading.Thread(target=page.run, args=(seconds,)) for page in watching]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kinds = {kind for page in watching for kind in page.took_s}
    print(
        json.dumps(
            {kind: [s for page in watching for s in page.took_s.get(kind, [])] for kind in sorted(kinds)}
        )
    )


def measure(pages: int, model: str, area_mm: tuple[float, float], seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        options = DemoOptions(area_mm=area_mm, model=model, blur_px=25.0, fov_px=1024, output=Path(folder))
        slide = open_slide(None, None, options.seed)
        settings = demo_settings(options, slide.pixel_size_um, slide.size_um)
        settings = settings.model_copy(update={"serve": ServeSettings(port=0)})
        daemon, stop = Daemon(settings), threading.Event()
        try:
            with open_page(daemon) as page:
                url = page.url
                assert url is not None
                scan = threading.Thread(target=daemon.run, args=(lambda _: None, stop))
                scan.start()
                began = _threads_s()
                busy_s = psutil.Process().cpu_times()
                client = subprocess.run(
                    [sys.executable, "-m", "tests.benchmarks.page_cost", "--watch", url, "--pages", str(pages), "--seconds", str(seconds)],
                    capture_output=True, check=True, text=True,
                )  # fmt: skip
                ended, cpu = _threads_s(), psutil.Process().cpu_times()
                stop.set()
                scan.join()
        finally:
            daemon.close()
    spent = {native: ended[native] - began.get(native, 0.0) for native in ended}
    page_s = sum(seconds for native, seconds in spent.items() if native in _page_threads)
    whole_s = cpu.user + cpu.system - busy_s.user - busy_s.system
    took = json.loads(client.stdout)
    return {
        "pages": pages,
        "cores_busy": round(whole_s / seconds, 2),
        "cost_percent": round(100 * page_s / whole_s, 2),
        "p95_ms": {kind: round(1000 * float(np.percentile(times, 95))) for kind, times in took.items()},
        "p50_ms": {kind: round(1000 * float(np.percentile(times, 50))) for kind, times in took.items()},
        "asked": {kind: len(times) for kind, times in took.items()},
    }


_page_threads: set[int] = set()
"""Native ids of the server's thread, of those that make pictures, and of those that answer other questions."""


def _threads_s() -> dict[int, float]:
    """Processor time of every thread of this process, s; notes which of them are the page's."""
    for thread in threading.enumerate():
        if thread.native_id is not None and thread.name.startswith(("deblurd-page", "AnyIO worker")):
            _page_threads.add(thread.native_id)
    return {t.id: t.user_time + t.system_time for t in psutil.Process().threads()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=1)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--area-mm", type=float, nargs=2, default=(3.0, 2.0))
    parser.add_argument("--watch", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        watch(options.watch, options.pages, options.seconds)
    else:
        print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}")
        print(
            json.dumps(
                measure(options.pages, options.model, tuple(options.area_mm), options.seconds), indent=2
            )
        )


if __name__ == "__main__":
    main()
