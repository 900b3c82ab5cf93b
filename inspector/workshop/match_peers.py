"""How others find a part, for comparison: what installs with OpenCV, each as well as a page of code makes it.

Each is given the same picture, the part's exact coverage as a template picture, and the scale; each answers with the picture place of the
template's middle and the angle (counter-clockwise as seen), or None.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from inspector.geometry.coverage import coverage
from inspector.geometry.raster import to_picture
from inspector.records import Pose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inspector.records import Contour, Image

_COARSE_RADIUS_PX = 24.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Where the middle of the template is seen, and its angle."""

    x_px: float
    y_px: float
    angle_rad: float


def template_picture(contours: Sequence[Contour], scale_px_per_mm: float, part: float, background: float) -> Image:
    """The part upright in the middle of a square picture that holds it at any angle."""
    points = np.concatenate([c.points_mm for c in contours])
    middle = 0.5 * (points.min(axis=0) + points.max(axis=0))
    side = 2 * math.ceil(float(np.hypot(*(points - middle).T).max()) * scale_px_per_mm) + 9
    pose = Pose((side - 1) / 2 - scale_px_per_mm * middle[0], (side - 1) / 2 + scale_px_per_mm * middle[1], 0.0, scale_px_per_mm, 1, 0)
    share = coverage([to_picture(c.points_mm, pose) for c in contours], (side, side))
    return np.asarray(np.rint(background + share * (part - background)), np.uint8)


def match_template(picture: Image, template: Image) -> Answer | None:
    """cv2.matchTemplate over all rotations on a small level (3° steps), then five rotations around the best on each finer level."""
    depth = max(0, round(math.log2(template.shape[0] / 2 / _COARSE_RADIUS_PX)))
    pictures, templates = [picture], [template]
    for _ in range(depth):
        pictures.append(np.asarray(cv2.pyrDown(pictures[-1]), np.uint8))
        templates.append(np.asarray(cv2.pyrDown(templates[-1]), np.uint8))
    best = (-1.0, 0.0, 0.0, 0.0)
    for level in range(depth, -1, -1):
        step = math.radians(3.0) / 2 ** (depth - level)
        angles = np.arange(0, math.tau, step) if level == depth else best[3] + step * np.arange(-2, 3)
        around = None if level == depth else (best[1] * 2, best[2] * 2)
        best = max(_at_angle(pictures[level], templates[level], float(angle), around) for angle in angles)
        if best[0] < 0.3:
            return None
    middle = (template.shape[0] - 1) / 2
    return Answer(best[1] + middle, best[2] + middle, best[3])


def _at_angle(picture: Image, template: Image, angle_rad: float, around: tuple[float, float] | None) -> tuple[float, float, float, float]:
    """(score, left, top, angle_rad) of the best place, sub-pixel by parabolas, near `around` where that is given."""
    side = template.shape[0]
    turned = cv2.warpAffine(
        template,
        cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), math.degrees(angle_rad), 1.0),
        (side, side),
        borderMode=cv2.BORDER_REPLICATE,
    )
    left, top, window = 0, 0, picture
    if around is not None:
        left, top = (int(max(0, v - 4)) for v in around)
        window = picture[top : top + side + 9, left : left + side + 9]
    if min(window.shape) < side:
        return -1.0, 0.0, 0.0, angle_rad
    scores = cv2.matchTemplate(window, turned, cv2.TM_CCOEFF_NORMED)
    _, score, _, (x, y) = cv2.minMaxLoc(scores)
    return score, left + x + _top(scores[y], x), top + y + _top(scores[:, x], y), angle_rad


def _top(values: NDArray[np.floating[Any] | np.integer[Any]], at: int) -> float:
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = (float(v) for v in values[at - 1 : at + 2])
    return 0.5 * (before - after) / min(before - 2 * here + after, -1e-9)


def ecc(picture: Image, template: Image, start: Answer) -> Answer | None:
    """cv2.findTransformECC (Euclidean) at quarter size, from a start that somebody else must have found."""
    small, goal = (cv2.resize(p, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) for p in (picture, template))
    c, s = math.cos(start.angle_rad), math.sin(start.angle_rad)
    middle = (goal.shape[0] - 1) / 2
    x, y = ((v + 0.5) / 4 - 0.5 for v in (start.x_px, start.y_px))
    warp = np.array([[c, s, x - c * middle - s * middle], [-s, c, y + s * middle - c * middle]], np.float32)
    try:
        _, found = cv2.findTransformECC(goal, small, warp, cv2.MOTION_EUCLIDEAN, (3, 60, 1e-6))
    except cv2.error:
        return None
    place = found @ np.array([middle, middle, 1.0])
    return Answer((place[0] + 0.5) * 4 - 0.5, (place[1] + 0.5) * 4 - 0.5, math.atan2(found[0, 1], found[0, 0]))


def sift(picture: Image, template: Image) -> Answer | None:
    """SIFT features of both at half size, ratio test, RANSAC similarity."""
    small, goal = (cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for p in (picture, template))
    finder = cv2.SIFT_create()  # type: ignore[attr-defined]
    points_a, a = finder.detectAndCompute(goal, None)
    points_b, b = finder.detectAndCompute(small, None)
    if len(points_a) < 4 or len(points_b) < 4:
        return None
    pairs = [m[0] for m in cv2.BFMatcher().knnMatch(a, b, k=2) if len(m) == 2 and m[0].distance < 0.8 * m[1].distance]
    if len(pairs) < 4:
        return None
    there = np.array([points_a[m.queryIdx].pt for m in pairs], np.float32)
    here = np.array([points_b[m.trainIdx].pt for m in pairs], np.float32)
    found, _ = cv2.estimateAffinePartial2D(there, here, ransacReprojThreshold=2.0)
    if not np.isfinite(np.asarray(found, np.float64)).all():  # None, too: nothing that four pairs agree on
        return None
    middle = (goal.shape[0] - 1) / 2
    place = found @ np.array([middle, middle, 1.0])
    return Answer((place[0] + 0.5) * 2 - 0.5, (place[1] + 0.5) * 2 - 0.5, math.atan2(found[0, 1], found[0, 0]))
