"""The way that tells most of camera and stage: there and back along both axes, in sight of one and the same place."""

from __future__ import annotations

from deblurd.scan.lane import Lane, Point

LEG = 0.4
"""Of the field's shorter side: all frames of a leg show half of what the first one shows."""

LEG_S = 0.4
"""So long a leg takes: many frames on it, and many readings of a slow stage."""

REST_S = 0.2
"""At both ends of each leg, and so twice where one ends and another begins."""

ROUNDS = 3


def cross(start_um: Point, field_um: float) -> list[Lane]:
    """There and back along x and along y, a few times, from (y, x). field_um: the shorter side of what a frame sees."""
    y_um, x_um = start_um
    leg_um = LEG * field_um
    ends = [(y_um, x_um + leg_um), (y_um + leg_um, x_um)]
    ways = [way for end in ends for way in ((start_um, end), (end, start_um))]
    return [Lane(a, b, leg_um / LEG_S, rest_s=REST_S) for a, b in ways] * ROUNDS
