"""`inspector train compare`: from pairs with boxes to a network that names and judges what differs from a reference.

The check `compare` proposes places where most differs; windows around them, of picture and reference, are what the network learns from:
the class and box of the defect there, or that there is none ("good").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from inspector.checks import compare as check
from inspector.neural import model as models
from inspector.neural import tiles
from inspector.records import ConfigError, Image
from inspector.workshop import datasets, evaluate, export, networks, plots, train
from inspector.workshop.fit import Task

HELD_OUT = 0.1
BOX_SIDES = 2.0
"""A window's side is so many times the longer side of the median box: what a defect does to its surroundings must be seen too."""
LEAST_SIDE_PX, MOST_SIDE_PX = 48, 160
NEAR_PX = 3
JITTER_PX = 6
ROLLED = 0.3
"""So often the reference is a pixel off, as where it could not be aligned better."""
BATCH = 64

Places = NDArray[np.int64]
"""(n, 8): pair, row, column, class (0 good), box x0 y0 x1 y1 in px of the picture (0 where good)."""


def compare(order: train.Order, say: Callable[[str], None]) -> models.Model:
    """Train on a set of pairs; a tenth of those with boxes and of those without is held out. Raises E_DATA_*, E_IMG_*, E_TRAIN_*."""
    arch = train.begun(order, ("comparer",))
    data = datasets.pairs(order.data)
    test = None if order.test is None else datasets.pairs(order.test, data.classes)
    if not sum(len(boxes) for boxes in data.boxes):
        raise ConfigError("E_DATA_BOX", "no box in annotations/; there is nothing to learn", file=str(order.data))
    side = order.size_px or _side_px(data)
    if side % 16:
        raise ConfigError("E_TRAIN_SIZE", f"{side}; a multiple of 16", key="--size")
    with_boxes = [int(len(boxes) > 0) for boxes in data.boxes]
    if sum(with_boxes) < 2:
        raise ConfigError("E_DATA_EMPTY", "one pair with boxes; at least two are needed, one is held out", file=str(order.data))
    kept, held = datasets.split(len(data.names), HELD_OUT, order.schedule.seed, with_boxes)
    references = [check.aligned(image, reference) for image, reference in zip(data.images, data.references, strict=True)]
    aligned = replace(data, references=tuple(references))
    places = {int(i): places_of(aligned, int(i)) for i in (*kept, *held)}
    mine, looked = (np.concatenate([places[int(i)] for i in part]) for part in (kept, held))
    say(f"{len(mine)} places in {len(kept)} pairs, {(mine[:, 3] > 0).mean():.0%} defects")
    both = [
        np.dstack(check.planes(image, reference, check.differing(image, reference), check.CHANNELS))
        for image, reference in zip(data.images, references, strict=True)
    ]
    torch.manual_seed(order.schedule.seed)
    network = networks.Comparer(1 + len(data.classes), side, order.width or 16, check.CHANNELS)
    look_windows = np.stack([tiles.crop(both[p[0]], (int(p[1]), int(p[2])), (side, side)) for p in looked])
    weight = 1.0 / np.sqrt(np.bincount(mine[:, 3], minlength=1 + len(data.classes)).clip(1))[mine[:, 3]]
    share = weight / weight.sum()

    def batch(random: np.random.Generator) -> tuple[Tensor, ...]:
        windows, labels, boxes = [], [], []
        for p in mine[random.choice(len(mine), BATCH, p=share)]:
            row, column = (int(v) for v in p[1:3] + random.integers(-JITTER_PX, JITTER_PX + 1, 2))
            box = (p[4:] - np.tile([column - side // 2, row - side // 2], 2)) / side
            window = tiles.crop(both[p[0]], (row, column), (side, side))
            if random.random() < ROLLED:
                window[..., 1] = np.roll(window[..., 1], random.integers(-1, 2, 2), axis=(0, 1))
            window, box = _symmetry(int(random.integers(8)), window, box)
            windows.append(window)
            labels.append(p[3])
            boxes.append(box)
        seen = torch.from_numpy(np.ascontiguousarray(np.stack(windows))).permute(0, 3, 1, 2).float()
        return seen, torch.from_numpy(np.array(labels)), torch.from_numpy(np.array(boxes, np.float32))

    def loss(net: nn.Module, sample: tuple[Tensor, ...]) -> Tensor:
        scores, boxes = net(export.normalise(sample[0]))
        defects = sample[1] > 0
        apart = (
            functional.smooth_l1_loss(boxes[defects].float(), sample[2][defects], beta=0.02) if bool(defects.any()) else boxes.sum() * 0.0
        )
        return functional.cross_entropy(scores.float(), sample[1], label_smoothing=0.02) + 4.0 * apart

    @torch.no_grad()
    def score(net: nn.Module) -> dict[str, float]:
        contract = export.Compare(net, side).eval()
        said = [contract(torch.from_numpy(look_windows[start : start + 128])) for start in range(0, len(looked), 128)]
        right = torch.cat([s.argmax(dim=1) for s, _ in said]).numpy() == looked[:, 3]
        boxes = torch.cat([b for _, b in said]).numpy() + np.tile(looked[:, 2:0:-1] - side // 2, 2)
        bad = looked[:, 3] > 0
        overlap = evaluate.overlaps(boxes[bad], looked[bad, 4:].astype(np.float64))
        return {
            "score": float((right[bad] & (overlap > 0.33)).mean() + (right[~bad].mean() if (~bad).any() else 1.0)) / 2,
            "right": float(right.mean()),
        }

    task = Task(network, batch, loss, score, rate=2e-3, decay=1e-2, default_steps=3000)
    history = train.run(task, order, arch, say)
    classes = ["good", *data.classes]
    card = train.card_of(order, "compare", classes, models.Input(height=side, width=side, channels=check.CHANNELS), arch, history)
    size = models.Input.model_validate(card["input"])
    bytes_of = export.to_onnx(export.Compare(network, side), size, "compare")
    proofs = [look_windows[int(np.nonzero(looked[:, 3] == k)[0][0])] for k in np.unique(looked[:, 3])]
    model = export.save(order.out, bytes_of, proofs, card)
    unseen = datasets.part(data, held)
    found = evaluate.detect(model, unseen)
    best = evaluate.best_threshold(found, unseen)
    card["thresholds"] = dict.fromkeys(classes[1:], best)
    model = export.save(order.out, bytes_of, proofs, card)
    card["metrics"] = {"held_out": evaluate.boxes(model, unseen, intervals=False)}
    if test is not None:
        card["metrics"]["test"] = evaluate.boxes(model, test)
    model = export.save(order.out, bytes_of, proofs, card)
    shown = [
        plots.boxes(image, [d for d in ds if d.score >= best], b)
        for image, ds, b in list(zip(unseen.images, found, unseen.boxes, strict=True))[:12]
    ]
    plots.sheet(order.out.with_suffix(".samples.png"), shown, list(unseen.names[:12]), columns=4, side_px=420)
    train.finish(order, history)
    return model


def _side_px(data: datasets.Paired) -> int:
    """The window's side that suits the boxes: a multiple of 16."""
    boxes = np.concatenate(data.boxes)
    longer = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    return int(np.clip(round(BOX_SIDES * float(np.median(longer)) / 16) * 16, LEAST_SIDE_PX, MOST_SIDE_PX))


def places_of(data: datasets.Paired, index: int) -> Places:
    """The proposed places of one aligned pair with what is there, and the middles of its boxes."""
    boxes = data.boxes[index]
    opened = check.differing(data.images[index], data.references[index])
    rows = [_place(index, row, column, boxes) for row, column in check.peaks(opened)]
    rows += [(index, int(y0 + y1) // 2, int(x0 + x1) // 2, int(k), int(x0), int(y0), int(x1), int(y1)) for x0, y0, x1, y1, k in boxes]
    return np.array(rows, np.int64).reshape(-1, 8)


def _place(index: int, row: int, column: int, boxes: NDArray[np.int64]) -> tuple[int, ...]:
    """One proposed place: the box around it whose middle is nearest, or good."""
    around = [b for b in boxes if b[0] - NEAR_PX <= column <= b[2] + NEAR_PX and b[1] - NEAR_PX <= row <= b[3] + NEAR_PX]
    if not around:
        return (index, row, column, 0, 0, 0, 0, 0)
    x0, y0, x1, y1, k = min(around, key=lambda b: (b[0] + b[2] - 2 * column) ** 2 + (b[1] + b[3] - 2 * row) ** 2)
    return (index, row, column, int(k), int(x0), int(y0), int(x1), int(y1))


def _symmetry(which: int, window: Image, box: NDArray[np.float64]) -> tuple[Image, NDArray[np.float64]]:
    """One of the eight symmetries of a square window (S, S, C) and of a box in ratios of its side (pixel borders at 0 and 1)."""
    x0, y0, x1, y1 = box
    if which & 1:
        window, (x0, x1) = window[:, ::-1], (1 - x1, 1 - x0)
    if which & 2:
        window, (y0, y1) = window[::-1], (1 - y1, 1 - y0)
    if which & 4:
        window, (x0, y0, x1, y1) = window.transpose(1, 0, 2), (y0, x0, y1, x1)
    return window, np.array([x0, y0, x1, y1])
