"""Near-symmetries of a drawing: the other placements at which it looks almost the same, and what tells them apart.

They are found once, by matching the drawing to itself. At run time only the places where the placements differ are looked at: the
material's share at some points, and the edges that only one of them has. A drawing that is symmetric to the last detail has *exact*
twins: nothing can tell them apart, and the pose says `ambiguous`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.geometry import coarse
from inspector.geometry.coarse import Silhouette, correlate, parabola, peaks
from inspector.geometry.polygon import Points
from inspector.geometry.refine import Level, edge_step, profiles, sample, seen, within
from inspector.geometry.shape import DEFAULT_BLUR_PX, F32, PROFILE_REACH, Floats32, Profiles, Samples, Shape, mirrored, thinned
from inspector.geometry.spin import Spin, spin_of, turned_right

if TYPE_CHECKING:
    from inspector.records import Floats

_LEAST_LIKENESS = 0.5
_LEAST_SEEN = 0.55
_MOST_TWINS = 32
_MOST_SAMPLES = 900
_MOST_PROBES, _LEAST_PROBES, _MOST_EDGES = 1500, 250, 150
_APART_PX = 3.0
_ROUND, _ALMOST_ROUND = 0.98, 0.9
_LEAST_MARGIN = 0.25  # of what the drawing says the best placement should lead by


@dataclass(frozen=True, slots=True)
class Twins:
    """The near-symmetries of one shape.

    `turns` (K, 3): the model shifted by (x, y) px and turned looks like the model (exact ones left out). `exact`: there is at least one
    that nothing tells apart. `probes` (m, 2) model px and `share` (m,): where they differ, and what the drawing shows there.
    `edges` (5, n) is the design, as in `Samples`, of those that no twin shares, `contrast_rows` (9, n) what weighs their profiles.
    `spin`: of an almost round part, what tells its mirror image; where it is `round`, that alone tells how it is turned.
    """

    turns: Floats
    exact: bool
    probes: Floats32
    share: Floats32
    edges: Floats32
    contrast_rows: Floats32
    lead: float
    spin: Spin | None
    round: bool


def matches(shape: Shape, outline: Silhouette) -> tuple[Floats, Floats]:
    """The placements (K, 3) of (x, y, turn) at which the base shape covers most of its own contour, and those of its mirror image.

    The first are its near-symmetries (the identity is left out), the second the ways in which a part on its wrong side is mistaken for it.
    """
    pad = int(shape.radius_px * 0.3) + 20
    low = np.floor(-np.full(2, shape.radius_px)) - pad
    grid = np.arange(int(-2 * low[0]))
    share = shape.material(np.stack(np.meshgrid(grid + low[0], grid + low[1]), axis=2))
    image = Level(np.rint(230 - 200 * np.clip(share, 0, 1)).astype(np.uint8), 1.0)
    samples = thinned(shape.samples(max(1.0, shape.length_px / 300), most=_MOST_SAMPLES), _MOST_SAMPLES)
    return (
        _matches(image, low, outline, outline, samples, 3),
        _matches(image, low, outline, coarse.mirrored(outline), mirrored(samples), 0),
    )


def _matches(image: Level, low: Points, shown: Silhouette, asked: Silhouette, samples: Samples, least_degrees: int) -> Floats:
    """The placements (K, 3), turned by at least so much, at which what is asked fits the picture of what is shown; its corner is `low`."""
    alike = correlate(shown.unrolled, asked)
    at = peaks(alike)
    at = at[alike[at] > _LEAST_LIKENESS]
    at = at[(at >= least_degrees) & (at <= len(alike) - least_degrees)]
    at = at[np.argsort(-alike[at], kind="stable")][:_MOST_TWINS]
    if not len(at):
        return np.zeros((0, 3))
    turns = np.array([math.tau * (p + parabola(alike, p)) / len(alike) for p in at.tolist()])
    c, s = np.cos(turns), np.sin(turns)
    (cx, cy), (tx, ty) = asked.centroid_px, shown.centroid_px - low
    placements = np.column_stack([tx - (c * cx - s * cy), ty - (s * cx + c * cy), turns, np.ones(len(turns))])
    signs = np.ones(len(at), F32)
    for reach, step, limit in ((10, 1.5, 12.0), (7, 1.0, 5.0), (5, 1.0, 3.0), (5, 1.0, 2.0)):
        placements = edge_step(image, samples, placements, signs, reach=reach, step_px=step, limit_px=limit, free_size=False)
    share_seen, _ = seen(image, samples, placements, signs)
    placements[:, :2] += low
    return placements[share_seen > _LEAST_SEEN][:, :3]


def twins_of(shape: Shape, fine: Profiles, turns: Floats, roundness: float) -> Twins:
    """What tells the self-matches (K, 3), in px of this shape, apart on it."""
    spacing = max(1.0, shape.radius_px / 140)
    rows, columns = (np.arange(int(2 * shape.radius_px / spacing)) * spacing - shape.radius_px for _ in range(2))
    grid = np.stack(np.meshgrid(columns, rows), axis=2).reshape(-1, 2)
    own = shape.material(grid)
    differ = [np.abs(np.stack([shape.material(moved) for moved in _both_ways(grid, turn)]) - own).max(axis=0) for turn in turns]
    apart = np.array([(d > 0.35).sum() >= 3 for d in differ], bool)
    spin, is_round = spin_of(shape) if roundness > _ALMOST_ROUND else None, roundness > _ROUND
    exact = bool((~apart).any()) or (is_round and (spin is None or spin.same))
    turns, differ = turns[apart], [d for d, keep in zip(differ, apart, strict=True) if keep]
    if not len(turns):
        return Twins(
            turns, exact, np.zeros((0, 2), F32), np.zeros(0, F32), np.zeros((5, 0), F32), np.zeros((9, 0), F32), 0.0, spin, is_round
        )
    chosen = np.flatnonzero(np.max(differ, axis=0) > 0.35)
    most = max(_LEAST_PROBES, _MOST_PROBES // len(turns))
    if len(chosen) > most:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, most, replace=False))
    edges = _own_edges(shape, fine.samples, turns)
    edges = edges[:: len(edges) // _MOST_EDGES + 1]
    turns = _with_inverses(turns)
    probes, share = grid[chosen], own[chosen]
    others = np.stack([_material_at(shape, probes, turn) for turn in turns])
    lead = 1.0 - float(_likeness(others, share, 1.0, 1.0).max()) + (1.05 if len(edges) else 0.0)
    own_edges, rows = fine.samples.design.take(edges, axis=1), fine.rows(DEFAULT_BLUR_PX).contrast.take(edges, axis=1)
    return Twins(turns, exact, probes.astype(F32), share, own_edges, rows, lead, spin, is_round)


def _with_inverses(turns: Floats) -> Floats:
    """The turns and those of their inverses that are not among them."""
    out = [np.append(turn, 1.0) for turn in turns]
    for turn in turns:
        c, s = math.cos(turn[2]), math.sin(turn[2])
        back = np.array([-c * turn[0] - s * turn[1], s * turn[0] - c * turn[1], -turn[2], 1.0])
        if not any(_same(back, known) for known in out):
            out.append(back)
    return np.asarray(out)[:, :3]


def _both_ways(points: NDArray[np.floating], turn: Floats) -> tuple[Points, Points]:
    c, s = math.cos(turn[2]), math.sin(turn[2])
    matrix = np.array([[c, -s], [s, c]])
    return points @ matrix.T + turn[:2], (points - turn[:2]) @ matrix


def _material_at(shape: Shape, points: Points, turn: Floats) -> Floats32:
    return shape.material(_both_ways(points, turn)[0])


def _own_edges(shape: Shape, samples: Samples, turns: Floats) -> NDArray[np.intp]:
    """Samples that lie at least `_APART_PX` from every contour under each turn, both ways; none when fewer than 12."""
    low, high = -shape.radius_px - 8, shape.radius_px + 8
    size = int(high - low) + 1
    lines = np.full((size, size), 255, np.uint8)
    for contour in shape.contours_px:
        cv2.polylines(lines, [np.rint((contour - low) * 16).astype(np.int32)], True, 0, 1, cv2.LINE_8, 4)
    distance = cv2.distanceTransform(lines, cv2.DIST_L2, 5)
    points = samples.points.astype(np.float64)
    clear = samples.weight > 0
    count = np.zeros(len(points))
    for turn in turns:
        for moved in _both_ways(points, turn):
            at = np.clip(np.rint(moved - low), 0, size - 1).astype(np.intp)
            count += distance[at[:, 1], at[:, 0]] > _APART_PX
    chosen = np.flatnonzero((count >= len(turns)) & clear)
    return chosen if len(chosen) >= 12 else chosen[:0]


def _likeness(values: Floats32, share: Floats32, sign: float, contrast: float) -> Floats32:
    """Correlation (K,) of grey values (K, m) with the material's share (m,).

    Less than that where the values vary less than the part's `contrast` would make them.
    """
    v, a = values - values.mean(axis=1, keepdims=True), share - share.mean()
    size = float(a @ a)
    norm = np.maximum(np.sqrt(np.einsum("ij,ij->i", v, v) * F32(size)), F32(contrast * size))
    return np.asarray(sign * (v @ a) / (norm + F32(1e-6)), F32)


def resolve(level: Level, twins: Twins, placement: Floats, sign: float, contrast: float) -> tuple[Floats, bool]:
    """The best of the placement and its twins, and whether another fits as well.

    The score is the correlation (−1…1) of the probes plus 1.5 × the mean relative contrast of the edges that are its own.
    `contrast` is the typical contrast of the part's edges, in counts.
    """
    told = True
    if twins.round and twins.spin is not None:
        placement, told = turned_right(level, twins.spin, placement, sign, contrast)
    if not len(twins.turns):
        return placement, twins.exact or not told
    options = np.concatenate([placement[None], turned(placement, twins.turns)])
    c, s = np.cos(options[:, 2]) * options[:, 3], np.sin(options[:, 2]) * options[:, 3]
    across = np.stack([c, -s], axis=1).astype(F32) @ twins.probes.T + options[:, :1].astype(F32)
    down = np.stack([s, c], axis=1).astype(F32) @ twins.probes.T + options[:, 1:2].astype(F32)
    scores = _likeness(sample(level.image, across, down), twins.share, -sign, contrast)
    if twins.edges.size:
        values = profiles(level, twins.edges, options, PROFILE_REACH).reshape(2 * PROFILE_REACH + 1, len(options), -1)
        found = (values * twins.contrast_rows[:, None]).sum(axis=0)
        scores += F32(1.5) * within(found * F32(sign / max(contrast, 1e-3)), -0.5, 1.3).mean(axis=1)
    order = np.argsort(-scores, kind="stable")
    best = options[order[0]]
    rival = next((scores[i] for i in order[1:] if not _same(options[i], best)), None)
    unclear = rival is not None and float(scores[order[0]] - rival) < _LEAST_MARGIN * twins.lead
    return best, bool(twins.exact or unclear or not told)


def _same(a: Floats, b: Floats) -> bool:
    turn = (a[2] - b[2] + math.pi) % math.tau - math.pi
    return abs(turn) < 0.02 and float(np.abs(a[:2] - b[:2]).max()) < 4.0


def turned(placement: Floats, turns: Floats) -> Floats:
    """The placements (K, 4) at which the model, moved by its self-matches (K, 3) first, lies as at `placement`."""
    x, y, angle, size = placement.tolist()
    c, s = math.cos(angle) * size, math.sin(angle) * size
    across, down = turns[:, 0], turns[:, 1]
    return np.column_stack([c * across - s * down + x, s * across + c * down + y, angle + turns[:, 2], np.full(len(turns), size)])
