from __future__ import annotations

from deblurd.frames import Pose
from deblurd.geometry import PixelToStage
from deblurd.track.choose import EachFrame


def test_frames_are_taken_a_step_apart_and_none_at_rest() -> None:
    chooser = EachFrame(PixelToStage.from_scale(0.5), (100, 200), 10)
    at_um = [0.0, 1.0, 4.9, 5.1, 5.1, 9.0, 10.2, 40.0]
    taken = [x for n, x in enumerate(at_um) if chooser.see(Pose(n / 10, 0.0, x)) == "this"]
    assert taken == [0.0, 5.1, 10.2, 40.0]
