"""What Prometheus collects."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from deblurd.serve.view import Status, View

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STATES = ("idle", "armed", "scanning", "paused", "closing", "failed")


class _Collector(Collector):
    def __init__(self, status: Status, ready: bool) -> None:
        self._status, self._ready = status, ready

    def collect(self) -> Iterator[Metric]:
        s = self._status
        yield CounterMetricFamily("deblurd_frames", "Frames that the camera gave.", value=s.frames)
        lost = CounterMetricFamily("deblurd_frames_lost", "Lost frames.", labels=["cause"])
        for cause, count in s.lost.items():
            lost.add_metric([cause], count)
        yield lost
        backlog = GaugeMetricFamily("deblurd_backlog", "What waits in front of a stage.", labels=["stage"])
        for stage, count in s.backlog.items():
            backlog.add_metric([stage], count)
        yield backlog
        state = GaugeMetricFamily("deblurd_state", "1 for the state that the scan is in.", labels=["state"])
        for each in _STATES:
            state.add_metric([each], float(each == s.state))
        yield state
        gauges: tuple[tuple[str, str, float | None], ...] = (
            ("deblurd_ready", "Whether a slide could be scanned now.", float(self._ready)),
            ("deblurd_frames_per_second", "Rate of the camera.", s.frames_per_s),
            ("deblurd_slide_fields", "Fields of the slide at work that were recorded.", s.fields),
            ("deblurd_slide_painted", "Fields of the slide at work that are in its mosaic.", s.painted),
            ("deblurd_slide_gaps", "Places inside the slide at work that no field covers.", s.gaps),
            ("deblurd_stage_speed_um_per_second", "Speed of the stage.", s.speed_um_s),
            ("deblurd_disk_free_bytes", "Room on the disk of the slides.", s.free_bytes),
            ("deblurd_disk_hours_left", "Until the disk is full at this rate.", s.disk_hours),
        )
        if (gpu := s.gpu) is not None:
            gauges += (
                ("deblurd_gpu_busy_ratio", "How busy the GPU is.", gpu.busy_percent / 100),
                ("deblurd_gpu_memory_used_bytes", "Memory of the GPU that is in use.", gpu.used_bytes),
            )
        for name, text, value in gauges:
            if value is not None:
                yield GaugeMetricFamily(name, text, value=value)


def render(view: View) -> bytes:
    """The metrics as text in Prometheus' own format."""
    registry = CollectorRegistry()
    registry.register(_Collector(view.status(), view.unready() is None))
    return generate_latest(registry)
