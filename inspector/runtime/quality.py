"""How good a camera's pictures are: whether one shows anything at all, and whether they get worse, seen before parts are rejected for it.

A few rows of each picture are looked at, other ones each time (`PHASES`), so that over eight pictures every tenth row or so is seen. What
they show is compared with a baseline that is learnt from the first pictures of a camera with a recipe, and kept in the state folder: delete
its file to have it learnt again, after a lens was cleaned or a lamp changed.

Glossary. *Exposure*: the mean. *Contrast*: from the darkest to the brightest hundredth. *Focus*: the steepest step of a row between
pixels two apart, as a share of the contrast, in the fourth steepest row: a blur makes steps flatter, whatever the part. *Saturated*: the
share that is black or white. *Dirt*: the share of places that have changed and stay so, whatever part is under them, over a few hundred
pictures. *Drift*: how much of what is allowed has been used up; at 1 there is an alarm, below ½ it is over.
"""

from __future__ import annotations

import threading
import zipfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.config import Quality as Limits
from inspector.records import Reason

if TYPE_CHECKING:
    from inspector.records import Image, Stamp

ROWS: Final = 24
PHASES: Final = 8
EVERY_COLUMN: Final = 4
STEADY: Final = 32
"""So many pictures make the running mean that is compared; for dirt, so many of each phase's make `STEADY_DIRT`."""
STEADY_DIRT: Final = 32
STEEPEST_ROW: Final = 4
JUDGED_EVERY: Final = 4
LEAST_DIRT_GREY, DIRT_SIGMAS = 8.0, 3.0
AROUND_RATIO: Final = 0.1
"""Of a row's length: a place is compared with the mean of so much around it, which more light or another part changes as well."""
LASTING: Final = 6
"""So often in a row a place must be found to have changed: parts that lie where they seldom do are gone by then, and dirt is not."""
LEAST_DIRT_PLACES: Final = 3
"""So few places are no dirt yet, however small the picture is."""
NEIGHBOURS: Final = np.ones((3, 9), np.uint8)
"""Where an edge came by while the baseline was learnt, it may come a little beside it later."""
BLACK, WHITE = 2, 253
LEVELS: Final = np.arange(256, dtype=np.float64)
KEPT_VERSION: Final = 2
SAMPLE_ROWS, SAMPLE_COLUMNS = 32, 80
REMEMBERED: Final = 4


class PictureHealth:
    """Looks at a few thousand pixels of each picture of one camera, and remembers enough to see that it is frozen."""

    def __init__(self) -> None:
        self._last: deque[int] = deque(maxlen=REMEMBERED)
        self._times = 1

    def look(self, stamp: Stamp, image: Image) -> tuple[float, tuple[Reason, str] | None]:
        """The picture's quality, 0 (shows nothing) to 1 (neither black nor white anywhere), and what is wrong with it.

        A picture identical to one of the last few, noise and all, is that one again (stale buffers come round) and says nothing of this
        part: the first repetition is refused already. Only a source that names its parts (`uid`) may repeat itself.
        """
        rows, columns = max(1, image.shape[0] // SAMPLE_ROWS), max(1, image.shape[1] // SAMPLE_COLUMNS)
        sample = image[rows // 2 :: rows, columns // 2 :: columns].copy()  # what is far apart is fetched once
        black, white = np.count_nonzero(sample <= BLACK), np.count_nonzero(sample >= WHITE)
        quality = 1.0 - max(black, white) / sample.size
        if quality == 0.0:
            return 0.0, (Reason.IMAGE_QUALITY, "the picture is all " + ("black" if black else "white"))
        if stamp.uid is None:
            digest = hash(sample.tobytes())
            self._times = self._times + 1 if digest in self._last else 1
            self._last.append(digest)
            if self._times > 1:
                return quality, (Reason.IMAGE_QUALITY, f"the camera shows what it has shown already, {self._times} times now")
        return quality, None


class Look(NamedTuple):
    """What one picture shows, or the mean of many; see the glossary."""

    exposure_grey: float
    contrast_grey: float
    focus_ratio: float
    saturated_ratio: float


def look(rows: Image, sample: Image) -> Look:
    """From some rows (n, W) of a picture, and every few pixels of them."""
    histogram = cv2.calcHist([sample], [0], None, [256], [0, 256]).ravel()
    up_to = histogram.cumsum()
    number = float(up_to[-1])
    contrast = float(up_to.searchsorted(0.99 * number) - up_to.searchsorted(0.01 * number))
    steepest = cv2.absdiff(rows[:, 2:], rows[:, :-2]).max(axis=1)  # NumPy's: cv2.reduce takes sixty times as long along rows
    focus = float(np.partition(steepest, -STEEPEST_ROW)[-STEEPEST_ROW]) / contrast if contrast else 0.0
    saturated = (float(up_to[BLACK]) + number - float(up_to[WHITE - 1])) / number
    return Look(float(histogram @ LEVELS) / number, contrast, focus, saturated)


@dataclass(slots=True)
class _Places:
    """The running mean and mean square of what each place is brighter than its row around it: (phases, rows, columns)."""

    mean: NDArray[np.float32]
    square: NDArray[np.float32]
    visits: list[int] = field(default_factory=lambda: [0] * PHASES)


class PictureQuality:
    """One camera's pictures with one recipe; any thread may call `see`. `now` is the running mean, `drift` by what has drifted."""

    def __init__(self, limits: Limits) -> None:
        self.now: Look | None = None
        self.baseline: Look | None = None
        self.drift: dict[str, float] = {}
        self.dirt_ratio = 0.0
        self.unkept = False
        self._limits, self._lock = limits, threading.Lock()
        self._seen = 0
        self._shape: tuple[int, ...] = ()
        self._places: _Places | None = None
        self._clean: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self._changed = np.zeros((PHASES, 0, 0), np.uint8)
        self._dirty = [0] * PHASES
        self._worst: tuple[float, int, int] = (0.0, 0, 0)
        self._raised: set[str] = set()

    def see(self, image: Image) -> list[tuple[str, str]]:
        """Take this picture into account; (severity, text) of what began or ended to be wrong with it."""
        grey = image if image.ndim == 2 else image[..., 1]
        if grey.shape[0] < ROWS or grey.shape[1] < 4 * EVERY_COLUMN:
            return []
        with self._lock:
            if self._shape != grey.shape:
                self._begin(grey.shape)
            phase = self._seen % PHASES
            step = grey.shape[0] // ROWS
            first = phase * step // PHASES
            rows = np.ascontiguousarray(grey[first : first + ROWS * step : step])
            sample = np.ascontiguousarray(rows[:, ::EVERY_COLUMN])
            seen = look(rows, sample)
            self._seen += 1
            learning = self.baseline is None and self._limits.learn_parts > 0
            share = 1.0 / (self._seen if learning else STEADY if self.baseline is not None else min(self._seen, STEADY))
            self.now = seen if self.now is None else Look(*(a + share * (b - a) for a, b in zip(self.now, seen, strict=True)))
            self._see_places(phase, sample, first, step)
            if not self._limits.learn_parts:
                return []
            if self.baseline is None:
                if self._seen >= self._limits.learn_parts:
                    self._learn()
                return []
            return self._judge()

    def _begin(self, shape: tuple[int, ...]) -> None:
        if self._shape and self._clean is not None:  # another region of the sensor: nothing can be compared any more
            self.baseline = self._clean = None
        self._shape, self._seen, self.now = shape, 0, self.baseline
        cells = PHASES, ROWS, -(-shape[1] // EVERY_COLUMN)
        if self._clean is not None and self._clean[0].shape != cells:
            self.baseline = self._clean = None
        self._places = _Places(np.zeros(cells, np.float32), np.zeros(cells, np.float32))
        self._changed = np.zeros(cells, np.uint8)
        self._dirty = [0] * PHASES
        if self._clean is not None:
            self._places = _Places(self._clean[0].copy(), self._places.square, [STEADY_DIRT] * PHASES)

    def _see_places(self, phase: int, sample: Image, first: int, step: int) -> None:
        places = self._places
        assert places is not None
        places.visits[phase] += 1
        visits = places.visits[phase]
        share = 1.0 / (visits if self._clean is None and self._limits.learn_parts else min(visits, STEADY_DIRT))
        around = cv2.blur(sample, (2 * round(AROUND_RATIO * sample.shape[1] / 2) + 1, 1))
        brighter = cv2.subtract(sample, around, dtype=cv2.CV_32F)
        cv2.accumulateWeighted(brighter, places.mean[phase], share)
        if self._clean is None:
            cv2.accumulateWeighted(cv2.multiply(brighter, brighter), places.square[phase], share)
        elif visits % JUDGED_EVERY == 0:
            self._judge_places(phase, places.mean[phase], first, step)

    def _judge_places(self, phase: int, mean: NDArray[np.float32], first: int, step: int) -> None:
        """The places of a phase that differ from the clean ones by more than more or less light, and more than parts differ, and last."""
        assert self._clean is not None
        assert self.baseline is not None
        assert self.now is not None
        clean, variance = self._clean[0][phase], self._clean[1][phase]
        light = self.now.exposure_grey / max(1.0, self.baseline.exposure_grey)
        off = np.abs(mean - light * clean)
        allowed = np.maximum(LEAST_DIRT_GREY, DIRT_SIGMAS * np.sqrt(variance * np.float32(2.0 / STEADY_DIRT)))
        changed = self._changed[phase] = np.where(off > allowed, np.minimum(self._changed[phase], LASTING - 1) + 1, 0)
        dirty = changed == LASTING
        self._dirty[phase] = int(np.count_nonzero(dirty))
        self.dirt_ratio = sum(self._dirty) / self._clean[0].size
        if self._dirty[phase]:
            row, column = divmod(int(np.argmax(np.where(dirty, off - allowed, -np.inf))), off.shape[1])
            self._worst = float(off[row, column]), column * EVERY_COLUMN, first + row * step

    def _learn(self) -> None:
        assert self._places is not None
        self.baseline, self.unkept = self.now, True
        mean = self._places.mean.copy()
        variance = np.maximum(self._places.square - mean**2, 0.0)
        self._clean = mean, np.stack([np.asarray(cv2.dilate(each, NEIGHBOURS), np.float32) for each in variance])
        self._places.visits = [STEADY_DIRT] * PHASES

    def _judge(self) -> list[tuple[str, str]]:
        now, then, limits, clean = self.now, self.baseline, self._limits, self._clean
        assert now is not None
        assert then is not None
        assert clean is not None
        drift = self.drift = {
            "exposure": abs(_relative(now.exposure_grey, then.exposure_grey)) / limits.exposure_ratio,
            "contrast": abs(_relative(now.contrast_grey, then.contrast_grey)) / limits.contrast_ratio,
            "focus": max(0.0, -_relative(now.focus_ratio, then.focus_ratio)) / limits.focus_ratio,
            "saturated": max(0.0, now.saturated_ratio - then.saturated_ratio) / limits.saturated_ratio,
            "dirt": sum(self._dirty) / max(LEAST_DIRT_PLACES, limits.dirt_ratio * clean[0].size),
        }
        said = []
        for what, used in drift.items():
            if used > 1.0 and what not in self._raised:
                self._raised.add(what)
                said.append(("warning", self._text(what, now, then)))
            elif used < 0.5 and what in self._raised:
                self._raised.remove(what)
                said.append(("info", f"{what} is as it was"))
        return said

    def _text(self, what: str, now: Look, then: Look) -> str:
        if what == "dirt":
            grey, x, y = self._worst
            return f"dirt: {self.dirt_ratio:.3%} of the picture has changed and stays so, at ({x}, {y}) px by {grey:.0f} grey levels"
        name = {"exposure": "exposure_grey", "contrast": "contrast_grey", "focus": "focus_ratio", "saturated": "saturated_ratio"}[what]
        return f"{what}: {getattr(now, name):.3g}, learnt were {getattr(then, name):.3g}"

    # -- kept over a restart

    def keep(self, path: Path) -> None:
        """Write the baseline. Raises `OSError`."""
        with self._lock:
            then, clean, self.unkept = self.baseline, self._clean, False
        if then is None or clean is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, version=KEPT_VERSION, baseline=np.array(then), mean=clean[0], variance=clean[1].astype(np.float32))
        part.replace(path)

    def recall(self, path: Path) -> None:
        """Take up the baseline of an earlier run; what is none is learnt again."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                if int(kept["version"]) == KEPT_VERSION and kept["mean"].shape == kept["variance"].shape and kept["mean"].ndim == 3:
                    self._clean = kept["mean"].astype(np.float32), kept["variance"].astype(np.float32)
                    self.baseline = Look(*(float(value) for value in kept["baseline"]))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return


def _relative(now: float, then: float) -> float:
    return now / then - 1.0 if then else 0.0


class Qualities:
    """The quality of each camera's pictures, by camera and recipe; made, or recalled from `folder`, with the first picture."""

    def __init__(self, limits: dict[str, Limits], folder: Path) -> None:
        self._limits, self._folder = limits, folder
        self._known: dict[tuple[str, str], PictureQuality] = {}
        self._current: dict[str, PictureQuality] = {}

    def of(self, camera: str, recipe: str) -> PictureQuality:
        """The one for this camera's pictures of this recipe."""
        found = self._known.get((camera, recipe))
        if found is None:
            found = PictureQuality(self._limits[camera])
            found.recall(self._path(camera, recipe))
            found = self._known.setdefault((camera, recipe), found)
        self._current[camera] = found
        return found

    def keep(self) -> None:
        """Write what was learnt since. Raises `OSError`."""
        for (camera, recipe), each in list(self._known.items()):
            if each.unkept:
                each.keep(self._path(camera, recipe))

    def items(self) -> list[tuple[str, PictureQuality]]:
        """Camera and quality, each with the recipe that its last picture had."""
        return sorted(self._current.items())

    def _path(self, camera: str, recipe: str) -> Path:
        return self._folder / f"{camera}.{recipe}.npz"


def families(qualities: Qualities) -> list[tuple[str, str, list[tuple[dict[str, str], float]]]]:
    """(name, text, samples) of what is shown at /metrics."""
    seen = [(camera, each, each.now) for camera, each in qualities.items()]

    def of(name: str) -> list[tuple[dict[str, str], Any]]:
        return [({"camera": camera}, getattr(now, name)) for camera, _, now in seen if now is not None]

    drift = [({"camera": camera, "what": what}, used) for camera, each, _ in seen for what, used in each.drift.items()]
    return [
        ("picture_exposure_grey", "Mean grey level, over the last pictures.", of("exposure_grey")),
        ("picture_contrast_grey", "From the darkest to the brightest hundredth.", of("contrast_grey")),
        ("picture_focus_ratio", "The steepest step as a share of the contrast.", of("focus_ratio")),
        ("picture_saturated_ratio", "The share that is black or white.", of("saturated_ratio")),
        ("picture_dirt_ratio", "The share of places that have changed and stay so.", [({"camera": c}, e.dirt_ratio) for c, e, _ in seen]),
        ("picture_drift_ratio", "How much of the drift from what was learnt is used up; 1 is an alarm.", drift),
    ]
