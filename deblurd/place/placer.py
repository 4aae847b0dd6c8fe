"""Places tiles as they come: finds whom a tile may overlap, registers it there, solves for all now and then."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from deblurd.errors import DataError
from deblurd.frames import Encoding, MotionVector, Pixels, Place, Tile
from deblurd.geometry import PixelToStage
from deblurd.kernel import reblur
from deblurd.light import from_linear, to_linear
from deblurd.place import pairwise
from deblurd.place.pairwise import Edge, Prepared
from deblurd.place.shading import Shading
from deblurd.place.solve import Solution, solve
from deblurd.place.stage import Array, Directions, StageModel
from deblurd.place.subpixel import Match, refine, stands_out

CACHE_BYTES = 24 * 2**20
"""Prepared tiles kept in memory; others are read again."""

MOST_NEIGHBOURS = 5
LEAST_AREA = 0.03
"""Share of a tile that an overlap must have to be worth comparing."""

SMALL_AREA = 0.07
"""Overlaps smaller than this, as at corners, are only compared for tiles that fewer than two others hold."""

NEAR_PX = 8.0
"""How far to look around a place that another match of the same tile has told."""

EXACT_PX = 1.5
"""How far from such a place a match is taken without looking around first."""

WARM_GROWTH = 1.2
"""A solve starts from the places of the last one until there are this many times as many tiles."""

LAST_GROWTH = 2.0
"""The same for the last solve."""

BLUR_PX = 2.0
"""Motions that differ by more than this are made alike before two tiles are compared. A blurred edge is not where the sharp one is, as
cameras encode light: at 20 px, up to 1.4 px off."""

WAY_TILES = 4
"""How many tiles before and after one may tell where the stage went on its way past it."""

LEAST_CONTRAST = 0.3
"""Of that of a usual tile: what has less shows nothing that could be found elsewhere."""

SAME_PX = 3.0
"""Two matches that put a tile nearer together than this agree."""

SURPRISING_EVIDENCE = 2.5
"""What a match must have that says another thing than the stage and other matches: where both say nonsense, one accident looks like the truth."""

SURE_EVIDENCE = 5.0
"""The same against the word of the stage: accidents of nearly empty tiles reach 4, right matches of tissue 15 and more."""

PLAIN_EVIDENCE = 10.0
"""A match with less is compared with what lies beside it: bare glass reaches 8."""

AGREE_PX = 1.5
"""The same for matches of which each alone might be an accident: that two accidents are so near happens once in thousands."""

OTHER_GROUND = 0.25
"""Of a tile's side: overlaps whose middles lie nearer together than this show the same ground, and are one accident if they are any."""


class Placer:
    """Use from one thread, tiles in the order of the scan.

    affine, tile_shape, encoding: as configured. overlap: expected share of a tile; a third of it is still of use.
    read_raw: pixels of a tile by its index. stage_sigma_px: what stage readings are expected to be wrong by.
    """

    def __init__(
        self,
        affine: PixelToStage,
        tile_shape: tuple[int, ...],
        overlap: float,
        read_raw: Callable[[int], Pixels],
        encoding: Encoding = "srgb",
        stage_sigma_px: float = 10.0,
    ) -> None:
        self.edges: list[Edge] = []
        self.shading = Shading(tile_shape, encoding)
        self._affine, self._read_raw, self._stage_sigma_px = affine, read_raw, stage_sigma_px
        self._encoding: Encoding = encoding
        self._size = np.array(tile_shape[:2], dtype=np.float64)
        self._least_area = min(LEAST_AREA, overlap / 3)
        self._wide_px = max(72.0, 0.12 * float(self._size.min()))
        self._way = Directions(affine)
        self._stage: StageModel | None = None
        self._tiles: list[Tile] = []
        self._motions: dict[int, MotionVector] = {}
        self._places: dict[int, Place] = {}
        self._cells: dict[tuple[int, int], list[int]] = {}
        self._solved_from_scratch = 0
        self._tried: set[tuple[int, int]] = set()
        self._doubtful: list[Edge] = []
        self._contrast: dict[int, float] = {}
        self._looked: set[tuple[int, int, int, int]] = set()
        self._prepared: OrderedDict[int, Prepared] = OrderedDict()
        self._prepared_bytes = 0
        self._surprises_px: deque[float] = deque(maxlen=64)

    def add(self, tile: Tile, pixels: Pixels) -> Place:
        """Registers `tile` against those that are there; returns where its matches, or else the stage, put it."""
        if self._stage is None:
            self._stage = StageModel.from_affine(self._affine, tile.pose.yx_um, self._stage_sigma_px)
        self._motions[tile.index] = tile.motion
        direction = self._way.next(tile)
        expected = self._stage.predict(tile.pose.yx_um[None], direction[None], np.array([tile.pose.t_s]))[0]
        prepared = pairwise.prepare(pixels)
        self._contrast[tile.index] = float(prepared.coarse.std())
        self.shading.expose(tile.index, tile.exposure_ms)
        edges = self._match(tile.index, prepared, expected)
        place = self._first_place(edges, expected, self._stage.sigma_px)
        self.edges.extend(edges)
        self._tiles.append(tile)
        self._put(tile.index, place)
        return place

    def forget_pixels(self) -> None:
        """No tile comes any more: gives their pixels' memory back, however long somebody still looks at their places."""
        self._prepared.clear()
        self._prepared_bytes = 0

    def solve(self, is_last: bool = False) -> Solution:
        """Solves for all tiles; what comes is then expected by the stage model that this fitted.

        is_last: the slide ends, and somebody waits: the last solution, of which most tiles were part, is where this one starts.
        """
        known = None
        growth = LAST_GROWTH if is_last else WARM_GROWTH
        if len(self._tiles) < growth * self._solved_from_scratch:
            known = self._places
        else:
            self._solved_from_scratch = len(self._tiles)
        solution = self._solve(known)
        if self._believe_agreeing(solution) | self._join_islands(solution) | self._doubt_readings(solution):
            solution = self._solve(known)
        return solution

    def _solve(self, known: dict[int, Place] | None) -> Solution:
        solution = solve(self._tiles, self.edges, self._affine, self._stage_sigma_px, known)
        if self._tiles:
            self._stage = solution.stage
        self._cells.clear()
        for index, place in solution.places.items():
            self._put(index, place)
        return solution

    def _believe_agreeing(self, solution: Solution) -> bool:
        """Takes doubtful matches where most of those between two islands (or tiles that nothing holds) agree; whether there were any."""
        before, island = len(self.edges), dict(solution.island)
        places = {index: place.yx_px for index, place in solution.places.items()}
        members: dict[int, list[int]] = {}
        for index, number in island.items():
            members.setdefault(number, []).append(index)
        joined = True
        while joined:
            joined = False
            between: dict[tuple[int, int], list[tuple[Edge, Array]]] = {}
            for edge in self._doubtful:
                off = places[edge.j] - places[edge.i] - edge.match.shift
                a, b = island[edge.i], island[edge.j]
                if a < b:
                    between.setdefault((a, b), []).append((edge, off))
                elif b < a:
                    between.setdefault((b, a), []).append((edge, -off))
            for (larger, smaller), found in between.items():
                chosen = _most_agreeing(np.array([off for _, off in found]))
                if not (chosen.any() and members.get(larger) and members.get(smaller)):
                    continue
                seen = [places[edge.i] + edge.match.shift / 2 for edge, _ in found]
                if np.ptp(np.array(seen)[chosen], axis=0).max() < OTHER_GROUND * self._size.min():
                    continue
                self.edges.extend(edge for (edge, _), yes in zip(found, chosen, strict=True) if yes)
                by = np.mean([off for (_, off), yes in zip(found, chosen, strict=True) if yes], axis=0)
                for index in members.pop(smaller):
                    places[index], island[index] = places[index] - by, larger
                    members[larger].append(index)
                joined = True
        return len(self.edges) > before

    def _join_islands(self, solution: Solution) -> bool:
        """Compares the small overlaps that were passed over, where only they can join islands; whether any did."""
        before = len(self.edges)
        for index, island in solution.island.items():
            if island == 0:
                continue
            for other, _ in self._neighbours(self._places[index].yx_px):
                pair = (min(index, other), max(index, other))
                if solution.island[other] != island and pair not in self._tried:
                    self.edges.extend(self._compare(*pair))
        return len(self.edges) > before

    def _doubt_readings(self, solution: Solution) -> bool:
        """Looks for tiles that the largest island does not hold where the way of the scan leads, if their reading says otherwise; whether any was found."""
        before = len(self.edges)
        held = [self._contrast[index] for index, island in solution.island.items() if island == 0]
        least = LEAST_CONTRAST * float(np.median(held)) if held else math.inf
        for n, tile in enumerate(self._tiles):
            if solution.island[tile.index] == 0 or self._contrast[tile.index] < least:
                continue
            for place in self._on_the_way(n, solution):
                if float(np.abs(place - self._places[tile.index].yx_px).max()) < self._wide_px / 2:
                    continue
                about = np.round(place / self._wide_px).astype(int)
                found: list[Edge] = []
                for other, _ in self._neighbours(place)[:MOST_NEIGHBOURS]:
                    look = (other, tile.index, int(about[0]), int(about[1]))
                    if solution.island[other] == 0 and look not in self._looked:
                        self._looked.add(look)
                        match = self._compare(other, tile.index, place)
                        found += (edge for edge in match if edge.match.evidence >= SURE_EVIDENCE)
                self.edges.extend(found)
                if found:
                    break
        return len(self.edges) > before

    def _on_the_way(self, n: int, solution: Solution) -> list[Array]:
        """Where the n-th tile is if the stage went evenly past the held tiles around it: between them, from those before on, and to those after."""

        def held(numbers: range) -> list[tuple[float, Array]]:
            near = [self._tiles[m] for m in numbers if 0 <= m < len(self._tiles)]
            known = [t for t in near if solution.island[t.index] == 0 and t.sequence == here.sequence]
            return [(t.pose.t_s, solution.places[t.index].yx_px) for t in known[:2]]

        here = self._tiles[n]
        before, after = held(range(n - 1, n - 1 - WAY_TILES, -1)), held(range(n + 1, n + 1 + WAY_TILES))
        places = []
        for pair in (before[:1] + after[:1], before, after):
            if len(pair) == 2 and pair[0][0] != pair[1][0]:
                (t0, p0), (t1, p1) = pair
                places.append(p0 + (p1 - p0) * ((here.pose.t_s - t0) / (t1 - t0)))
        return places

    # --- matching ---

    def _match(self, index: int, prepared: Prepared, expected: Array) -> list[Edge]:
        """Edges from the tiles around, the largest overlap first, which tells where to look for the others."""
        self._keep(index, prepared)
        edges: list[Edge] = []
        believed: Array | None = None
        for other, area in self._neighbours(expected)[:MOST_NEIGHBOURS]:
            if area < SMALL_AREA and len(edges) >= 2:
                break
            for edge in self._compare(other, index, expected, believed):
                edges.append(edge)
                if believed is None:
                    believed = self._places[other].yx_px + edge.match.shift
                    self._surprises_px.append(float(np.abs(believed - expected).max()))
        return edges

    def _compare(
        self,
        i: int,
        j: int,
        expected: Array | None = None,
        believed: Array | None = None,
    ) -> list[Edge]:
        """The edge between two tiles, if there is one. expected: where the stage has j; believed: where a match has it."""
        self._tried.add((i, j))
        try:
            a, b = self._fetch(i), self._fetch(j)
        except DataError:
            # damaged on disk since it was placed: named when the slide is verified
            return []
        at = self._places[i].yx_px
        stage = (self._places[j].yx_px if expected is None else expected) - at
        if _differ(self._motions[i], self._motions[j]):
            a, b = (self._blurred_too(tile, other) for tile, other in ((a, j), (b, i)))
        match = self._search(a, b, stage, None if believed is None else believed - at)
        if match is None or (match.evidence < PLAIN_EVIDENCE and not stands_out(a.grey, b.grey, match)):
            return []
        edge = Edge(i, j, match)
        told = (
            stage if believed is None or np.abs(believed - at - match.shift).max() > SAME_PX else match.shift
        )
        is_surprise = float(np.abs(match.shift - told).max()) > self._usual_px
        if not match.ok or (is_surprise and match.evidence < SURPRISING_EVIDENCE):
            self._doubtful.append(edge)
            return []
        self.shading.add(i, j, a.grey, b.grey, match.shift)
        return [edge]

    def _blurred_too(self, tile: Prepared, other: int) -> Prepared:
        """`tile` blurred as `other` is already: then both are alike, and show the same edges in the same places."""
        light = reblur(to_linear(tile.grey, self._encoding), self._motions[other])
        return pairwise.prepare(from_linear(light, tile.grey.dtype, self._encoding))

    def _search(self, a: Prepared, b: Prepared, expected: Array, believed: Array | None) -> Match | None:
        """The first good match: just where another one says, near there, near where the stage says, or further around; else the best doubtful one."""
        if believed is not None:
            match = refine(a.grey, b.grey, believed)
            if match is not None and match.ok and np.abs(match.shift - believed).max() < EXACT_PX:
                return match
        attempts = [(expected, self._wide_px)]
        if self._usual_px < 0.7 * self._wide_px:
            attempts.insert(0, (expected, self._usual_px))
        if believed is not None:
            attempts.insert(0, (believed, NEAR_PX))
        best: Match | None = None
        for predicted, radius_px in attempts:
            match = pairwise.register(a, b, predicted, radius_px)
            if match is not None and match.ok:
                return match
            if match is not None and (best is None or match.evidence > best.evidence):
                best = match
        return best

    @property
    def _usual_px(self) -> float:
        """How far tiles are usually from where the stage says, with room to spare: 4.2 standard deviations."""
        if len(self._surprises_px) < 8:
            return min(4.0 * self._stage_sigma_px, self._wide_px)
        return max(NEAR_PX, 4.0 * float(np.median(self._surprises_px)))

    def _first_place(self, edges: Sequence[Edge], expected: Array, stage_sigma_px: float) -> Place:
        """From the largest set of matches that agree; a solve of all tiles does better."""
        if not edges:
            return Place(float(expected[0]), float(expected[1]), stage_sigma_px)
        told = np.array([self._places[edge.i].yx_px + edge.match.shift for edge in edges])
        sigma = np.array(
            [np.hypot(self._places[e.i].sigma_px, np.sqrt(np.trace(e.match.covariance) / 2)) for e in edges]
        )
        agree = np.abs(told[:, None] - told[None]).max(axis=2) < SAME_PX
        chosen = agree[int((agree @ np.array([edge.match.score for edge in edges])).argmax())]
        weight = chosen / sigma**2
        y, x = weight @ told / weight.sum()
        return Place(float(y), float(x), float(weight.sum() ** -0.5))

    # --- tiles by place, and their pixels ---

    def _neighbours(self, expected: Array) -> list[tuple[int, float]]:
        """Tiles that may overlap usefully with one at `expected` and by which share, the largest overlap first."""
        sigma_px = self._stage.sigma_px if self._stage is not None else self._stage_sigma_px
        y, x = self._cell(expected)
        near = [n for v in (y - 1, y, y + 1) for u in (x - 1, x, x + 1) for n in self._cells.get((v, u), ())]
        found = []
        for index in near:
            # the stage may be off: what hardly overlaps by its word may do so in truth
            off = np.maximum(np.abs(self._places[index].yx_px - expected) - sigma_px, 0.0)
            area = float(np.prod(np.maximum(1.0 - off / self._size, 0.0)))
            if area >= self._least_area:
                found.append((index, area))
        return sorted(found, key=lambda item: -item[1])

    def _cell(self, place: Array) -> tuple[int, int]:
        y, x = np.floor(place / self._size)
        return int(y), int(x)

    def _put(self, index: int, place: Place) -> None:
        self._cells.setdefault(self._cell(place.yx_px), []).append(index)
        self._places[index] = place

    def _fetch(self, index: int) -> Prepared:
        if index in self._prepared:
            self._prepared.move_to_end(index)
            return self._prepared[index]
        prepared = pairwise.prepare(self._read_raw(index))
        self._keep(index, prepared)
        return prepared

    def _keep(self, index: int, prepared: Prepared) -> None:
        self._prepared[index] = prepared
        self._prepared_bytes += prepared.nbytes
        while self._prepared_bytes > CACHE_BYTES and len(self._prepared) > 1:
            _, oldest = self._prepared.popitem(last=False)
            self._prepared_bytes -= oldest.nbytes


def _most_agreeing(told: Array) -> NDArray[np.bool_]:
    """(n,): which of (n, 2) px are the largest set around one of them, if that is half of them or more; else none."""
    agree = np.abs(told[:, None] - told[None]).max(axis=2) < AGREE_PX
    chosen = agree[int(agree.sum(axis=1).argmax())]
    return np.asarray(chosen & (2 * chosen.sum() >= len(told)), dtype=np.bool_)


def _differ(a: MotionVector, b: MotionVector) -> bool:
    """Whether two tiles are blurred so differently that it shifts edges; not where one motion is unknown: nothing helps there."""
    if not (a.is_known and b.is_known):
        return False
    first, second = np.array([a.dy, a.dx]), np.array([b.dy, b.dx])
    return bool(min(np.abs(first - second).max(), np.abs(first + second).max()) > BLUR_PX)
