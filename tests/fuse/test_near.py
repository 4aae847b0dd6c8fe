from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deblurd.frames import Place
from deblurd.fuse.near import Near

SIZE_PX = np.array([100.0, 140.0])
coordinate = st.floats(-500, 500)


@given(places=st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=40))
def test_whatever_overlaps_is_near(places: list[tuple[float, float]]) -> None:
    near, known = Near(SIZE_PX), {n: Place(y, x, 0.1) for n, (y, x) in enumerate(places)}
    for n, place in known.items():
        near.add(n, Place(0.0, 0.0, 0.1))
        assert n in near.around(place) or max(abs(place.y_px), abs(place.x_px)) > 140
    near.move(list(known), known)
    for place in known.values():
        found = near.around(place)
        assert found == sorted(set(found))
        for n, other in known.items():
            if (np.abs(other.yx_px - place.yx_px) < SIZE_PX).all():
                assert n in found


def test_frames_far_away_are_not_asked() -> None:
    near = Near(SIZE_PX)
    for n in range(1000):
        near.add(n, Place(0.0, 30.0 * n, 0.1))
    assert len(near.around(Place(0.0, 15_000.0, 0.1))) < 20
