"""What one bad frame in a group costs: the result with it, against the result without it.

python -m tests.benchmarks.fuse_faults [SCENES]

Five frames of 8 px of blur and one more that is told wrongly, soiled, or shows something else, at each scene's own noise and places. dB of encoded values,
mean over scenes; worst: the most that having the frame costs beyond leaving it out (below 0: it helps all the same). Said: what the fuser says of it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable

import cv2
import numpy as np

from deblurd.frames import MotionVector, Pixels
from deblurd.fuse.views import View
from tests.fuse.frames import UNKNOWN, Scene

MOTION = MotionVector(0.0, 8.0)
PLACES = [(0.0, 0.0), (0.3, 20.4), (-0.6, -25.2), (10.5, 13.7), (-8.1, 5.3), (4.4, -11.6)]


def _dirt(pixels: Pixels) -> object:
    return cv2.circle(pixels, (90, 90), 14, (30, 25, 20), -1)


def _off(dy: float, dx: float) -> Callable[[Scene], None]:
    return lambda scene: scene.shoot(MOTION, PLACES[5], told_px=(dy, dx))


def _told(motion: MotionVector) -> Callable[[Scene], None]:
    return lambda scene: scene.shoot(MOTION, PLACES[5], told_motion=motion)


def _other(scene: Scene) -> None:
    other = Scene(seed=scene.seed + 50)
    other.shoot(MOTION)
    scene.pixels.append(other.pixels[0])
    scene.views.append(View(5, MOTION, PLACES[5], 10.0))


FAULTS: dict[str, Callable[[Scene], None]] = {
    "none": lambda scene: scene.shoot(MOTION, PLACES[5]),
    "place off by 0.3 px": _off(0.2, 0.2),
    "place off by 0.7 px": _off(-0.5, 0.5),
    "place off by 1.5 px": _off(1.2, -0.9),
    "place off by 3 px": _off(0.5, 3.0),
    "place off by 20 px": _off(14.0, -14.0),
    "motion 10 % too long": _told(MotionVector(0.0, 8.8)),
    "motion 30 % too long": _told(MotionVector(0.0, 10.4)),
    "motion turned by 10 degrees": _told(MotionVector(1.39, 7.88)),
    "motion not known": _told(UNKNOWN),
    "dirt of 28 px": lambda scene: scene.shoot(MOTION, PLACES[5], mark=_dirt),
    "0.6 times as bright": lambda scene: scene.shoot(MOTION, PLACES[5], brightness=0.6),
    "burnt out": lambda scene: scene.shoot(MOTION, PLACES[5], brightness=3.0),
    "something else": _other,
}


def main(scenes: int) -> None:
    print(f"{scenes} scenes\n")
    print("| sixth frame | without it, dB | with it, dB | costs | worst | said |\n|---|---|---|---|---|---|")
    for name, shoot in FAULTS.items():
        without, with_it, said = [], [], Counter[str]()
        for seed in range(1, scenes + 1):
            scene = Scene(seed=seed)
            for place in PLACES[:5]:
                scene.shoot(MOTION, place)
            shoot(scene)
            without.append(scene.psnr_db(scene.fuse(range(5)).light))
            fused = scene.fuse()
            with_it.append(scene.psnr_db(fused.light))
            least = int(fused.observations[16:-16, 16:-16].min())
            blocks = (
                "" if least >= 5 or 5 in fused.left_out else f"left out in places (down to {least} frames)"
            )
            words_of = (fused.left_out.get(5, ""), blocks, fused.notes.get(5, ""))
            said["; ".join(filter(None, words_of)) or "nothing"] += 1
        costs = np.array(without) - np.array(with_it)
        words = ", ".join(f"{what} ({n})" for what, n in said.most_common(2))
        print(
            f"| {name} | {np.mean(without):.2f} | {np.mean(with_it):.2f} | {costs.mean():+.2f} | {costs.max():+.2f} | {words} |",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6)
