"""How near trajectories come to the truth: detection F1 and error of place, F1 of the links, and TRA of the Cell Tracking Challenge."""

from __future__ import annotations

import importlib.util
import itertools
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

NEAR_PX = 5.0
"""A detection this near to an object is right."""

Rows = NDArray[np.float64]
"""(n, 4): track, frame, y, x px."""


@dataclass(frozen=True)
class Score:
    f1: float
    rmse_px: float
    links: float
    """F1 of the steps from frame to frame."""
    tra: float
    """TRA of the Cell Tracking Challenge, by traccuracy; nan where it is not installed."""


def score(rows: Rows, truth: Rows) -> Score:
    names: dict[tuple[int, int], Any] = {}
    squares, right = 0.0, 0
    for frame in range(int(truth[:, 1].max()) + 1):
        seen, there = rows[rows[:, 1] == frame], truth[truth[:, 1] == frame]
        away = np.linalg.norm(seen[:, None, 2:] - there[None, :, 2:], axis=2)
        for i, j in zip(*linear_sum_assignment(np.where(away < NEAR_PX, away, 1e3)), strict=True):
            if away[i, j] < NEAR_PX:
                names[frame, int(seen[i, 0])] = int(there[j, 0])
                squares, right = squares + away[i, j] ** 2, right + 1
    steps = {(a, b): (names.get(a), names.get(b)) for a, b in _steps(rows)}
    true = {(a, b) for a, b in _steps(truth)}
    good = sum(
        one is not None and one == other and ((a[0], one), (b[0], one)) in true
        for (a, b), (one, other) in steps.items()
    )
    return Score(
        2 * right / max(len(rows) + len(truth), 1),
        float(np.sqrt(squares / max(right, 1))),
        2 * good / max(len(steps) + len(true), 1),
        _tra(rows, truth),
    )


def _steps(rows: Rows) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    ordered = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    keys = [(int(frame), int(track)) for track, frame in ordered[:, :2]]
    return [(a, b) for a, b in itertools.pairwise(keys) if a[1] == b[1]]


def _tra(rows: Rows, truth: Rows) -> float:
    if importlib.util.find_spec("traccuracy") is None:
        return float("nan")
    import networkx as nx

    os.environ.setdefault("TQDM_DISABLE", "1")
    from traccuracy import TrackingGraph, run_metrics
    from traccuracy.matchers import PointMatcher
    from traccuracy.metrics import CTCMetrics

    def graph(of: Rows) -> Any:
        found: Any = nx.DiGraph()
        ids = {(int(frame), int(track)): number for number, (track, frame) in enumerate(of[:, :2])}
        for (frame, _), number in ids.items():
            found.add_node(number, t=frame, y=of[number, 2], x=of[number, 3])
        found.add_edges_from((ids[a], ids[b]) for a, b in _steps(of))
        return TrackingGraph(found, location_keys=("y", "x"))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results, _ = run_metrics(graph(truth), graph(rows), PointMatcher(NEAR_PX), [CTCMetrics()])
    return float(results[0]["results"]["TRA"])
