"""The GPU's meter: what the library says, and silence where there is nothing to look at."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from deblurd.host.gpu import GpuMeter, GpuUse


class Library:
    """The part of nvidia-ml-py's interface that is used, with one card, or none."""

    class NVMLError(Exception):
        pass

    def __init__(self, cards: int = 1, name: Any = "a card") -> None:
        self.cards, self.name, self.gone = cards, name, False

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index >= self.cards:
            raise self.NVMLError("Invalid Argument")
        return index

    def nvmlDeviceGetName(self, handle: int) -> Any:
        return self.name

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if self.gone:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(gpu=87, memory=12)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=8_000_000_000, free=6_000_000_000, used=2_000_000_000)


@pytest.mark.parametrize("name", ["a card", b"a card"])
def test_what_the_card_says(name: Any) -> None:
    assert GpuMeter(nvml=Library(name=name)).read() == GpuUse("a card", 87, 2_000_000_000, 8_000_000_000)


def test_no_card_is_no_meter() -> None:
    assert GpuMeter(nvml=Library(cards=0)).read() is None


def test_a_card_that_is_gone_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    library = Library()
    meter = GpuMeter(nvml=library)
    library.gone = True
    assert [meter.read(), meter.read()] == [None, None]
    assert [record.getMessage() for record in caplog.records] == [
        "the GPU does not tell any more how busy it is (GPU is lost): look at its driver"
    ]


def test_no_library_is_no_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    assert GpuMeter().read() is None


def test_the_library_itself_has_what_is_used() -> None:
    nvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    used = {name for name in vars(Library) if name.startswith(("nvml", "NVML"))}
    assert used <= set(dir(nvml))
    # whether or not this machine has a card
    found = GpuMeter().read()
    assert found is None or 0 <= found.busy_percent <= 100
