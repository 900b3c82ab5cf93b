"""`inspector train anomaly`: from pictures of good parts alone to a network that says how far a picture is from them, place by place.

No weights of others are needed. The U-Net learns to mark faults that `spoil` paints into the good pictures; what its encoder then sees of
the good pictures is kept as a memory of patches. At each place the score is the sum of two numbers, each in standard deviations of what
good parts give: the distance to the nearest patch of the memory (PatchCore, Roth et al., 2022), and the U-Net's own mark. Everything,
memory included, is in the ONNX file.

A share of the good pictures is held out and seen neither by the network nor by the memory. From their scores comes the threshold by split
conformal prediction (Vovk et al., 2005): a further good part, drawn like these n, is rejected with a probability of at most
alpha = max(what was asked for, 1 / (n + 1)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from inspector.checks import anomaly as check
from inspector.neural import model as models
from inspector.records import ConfigError, Image
from inspector.workshop import augment, datasets, evaluate, export, networks, plots, train
from inspector.workshop.fit import Task
from inspector.workshop.spoil import spoil

HELD_OUT = 0.3
SIDE_PX = 384
"""The longer side of the network's input where the pictures are not smaller."""
WINDOW_PX = 128
LOOKS = 48
NUMBERS, PATCHES, SAMPLE = 48, 1024, 12_000
"""Numbers a patch is described by, patches in the memory, and patches from which these are chosen."""

Matrix = NDArray[np.float32]


class Anomaly(nn.Module):
    """The contract of anomaly around a U-Net: uint8 (N, H, W, C) to score_map float32 (N, H/8, W/8).

    `basis` (features, numbers) and `centre` (features,) describe a patch by few numbers, `memory` (patches, numbers) holds the good ones,
    `scale` ((mean, deviation) of the distance, of the mark) makes the two comparable.
    """

    def __init__(
        self, network: networks.UNet, centre: Matrix, basis: Matrix, memory: Matrix, scale: tuple[tuple[float, float], tuple[float, float]]
    ) -> None:
        super().__init__()
        self.network, self.scale = network, scale
        numbers = nn.Conv2d(basis.shape[0], basis.shape[1], 1)
        nearness = nn.Conv2d(memory.shape[1], memory.shape[0], 1)
        with torch.no_grad():
            numbers.weight.copy_(torch.from_numpy(basis.T[:, :, None, None]))
            numbers.bias.copy_(torch.from_numpy(-centre @ basis))  # type: ignore[union-attr]
            nearness.weight.copy_(torch.from_numpy(-2 * memory[:, :, None, None]))
            nearness.bias.copy_(torch.from_numpy((memory**2).sum(axis=1)))  # type: ignore[union-attr]
        self.numbers, self.nearness = numbers, nearness

    def forward(self, seen: Tensor) -> Tensor:
        """See the class."""
        found, mark = look(self.network, export.normalise(export.planes(seen)))
        numbers = self.numbers(found)
        squared = self.nearness(numbers).amin(dim=1, keepdim=True) + (numbers * numbers).sum(dim=1, keepdim=True)
        distance = torch.sqrt(squared.clamp(min=0.0))
        (near, near_spread), (plain, plain_spread) = self.scale
        both = (distance - near) * (1.0 / near_spread) + (mark - plain) * (1.0 / plain_spread)
        return functional.avg_pool2d(both, 3, 1, 1, count_include_pad=False)[:, 0]


def look(network: networks.UNet, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the encoder sees (N, features, H/8, W/8), each place with its neighbours, and the log-odds (N, 1, H/8, W/8) of a fault."""
    quarter, eighth, sixteenth = network.encode(x)
    wide = functional.interpolate(sixteenth, scale_factor=2.0, mode="bilinear", align_corners=False)
    found = functional.avg_pool2d(torch.cat([functional.avg_pool2d(quarter, 2), eighth, wide], dim=1), 3, 1, 1, count_include_pad=False)
    scores = network.decode(quarter, eighth, sixteenth)
    return found, functional.max_pool2d((scores[:, 1:] - scores[:, :1]).clamp(-20.0, 20.0), 4)


def anomaly(order: train.Order, say: Callable[[str], None]) -> models.Model:
    """Train on good parts alone. Raises E_DATA_*, E_IMG_*, E_TRAIN_*."""
    arch = train.begun(order, ("patches",))
    seed = order.schedule.seed
    names, images, channels = datasets.good(order.data)
    if len(images) < 4:
        raise ConfigError("E_DATA_EMPTY", f"{len(images)} good parts; at least four are needed, some are held out", file=str(order.data))
    size = _size(images, channels, order.size_px)
    seen = [train.fit_to(image, size) for image in images]
    kept, held = datasets.split(len(seen), HELD_OUT, seed)
    window = min(WINDOW_PX, size.height, size.width)
    torch.manual_seed(seed)
    network = networks.UNet(channels, 1, order.width or 16)

    def windows(random: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        pictures, masks = [], []
        for _ in range(count):
            picture, other = (_window(random, seen[int(kept[random.integers(len(kept))])], window) for _ in range(2))
            mask = np.zeros((window, window), np.uint8)
            for _ in range(int(random.integers(1, 4)) if random.random() < 0.8 else 0):
                picture, fault = spoil(random, picture, other)
                mask |= fault
            pictures.append(augment.light(random, picture, 0.5))
            masks.append(train.reduced(mask, network.DOWN))
        return train.batch_of(pictures), torch.from_numpy(np.stack(masks).astype(np.int64))

    looked = windows(np.random.default_rng((seed, 1 << 40)), LOOKS)
    weight = torch.tensor([1.0, train.DEFECT_WEIGHT])

    def loss(net: nn.Module, sample: tuple[Tensor, ...]) -> Tensor:
        scores = net(export.normalise(sample[0])).float()
        plain, heavy = functional.cross_entropy(scores, sample[1]), functional.cross_entropy(scores, sample[1], weight=weight)
        return plain + heavy + train.dice_loss(scores, sample[1])

    @torch.no_grad()
    def score(net: nn.Module) -> dict[str, float]:
        found = net(export.normalise(looked[0])).argmax(dim=1).numpy()
        return {"score": float(evaluate.ious(evaluate.confusion(looked[1].numpy(), found, 2))[1])}

    task = Task(network, lambda random: windows(random, 16), loss, score, rate=6e-3, decay=1e-4, default_steps=2000)
    history = train.run(task, order, arch, say)
    contract = _remember(network, [seen[int(i)] for i in kept], seed)
    bytes_of = export.to_onnx(contract, size, "anomaly")
    card = train.card_of(order, "anomaly", [check.CLASS], size, arch, history)
    model = export.save(order.out, bytes_of, [seen[int(i)] for i in held[:4]], card)
    scores = np.array([check.score_of(check.score_map(images[int(i)], model)) for i in held])
    threshold, alpha = conformal(scores, order.false_reject_ratio)
    card["thresholds"] = {check.CLASS: round(threshold, 4)}
    card["metrics"] = {
        "guarantee": {
            "says": "a further good part, drawn like those held out, is rejected with a probability of at most alpha",
            "alpha": round(alpha, 5),
            "held_out": len(held),
        }
    }
    model = export.save(order.out, bytes_of, [seen[int(i)] for i in held[:4]], card)
    if order.test is not None:
        card["metrics"]["test"] = evaluate.anomaly(model, datasets.good_and_bad(order.test, channels))
        model = export.save(order.out, bytes_of, [seen[int(i)] for i in held[:4]], card)
    shown = [plots.heat(images[int(i)], check.score_map(images[int(i)], model), threshold) for i in held[:30]]
    plots.sheet(order.out.with_suffix(".samples.png"), shown, [f"{names[int(i)][:20]} {scores[n]:.2f}" for n, i in enumerate(held[:30])])
    train.finish(order, history)
    return model


def conformal(scores: NDArray[np.float64], asked: float) -> tuple[float, float]:
    """(threshold, alpha): scores above the threshold are rejected; of a further good part, with a probability of at most alpha."""
    n = len(scores)
    rank = min(n, math.ceil((n + 1) * (1.0 - asked) - 1e-9))
    return float(np.sort(scores)[rank - 1]), max(asked, 1.0 - rank / (n + 1))


@torch.no_grad()
def _remember(network: networks.UNet, good: Sequence[Image], seed: int) -> Anomaly:
    """The memory of the good pictures. Which distances good parts give is seen on every other picture, with a memory of the rest."""
    network.eval()
    random = np.random.default_rng((seed, 1 << 41))
    features, marks = [], []
    for image in good:
        found, mark = look(network, export.normalise(train.batch_of([image])))
        features.append(found[0].flatten(1).T.numpy())
        marks.append(mark.flatten().numpy())
    sample = _some(random, np.concatenate(features), SAMPLE)
    centre, spread = sample.mean(axis=0), sample.std(axis=0) + 1e-3
    _, _, axes = np.linalg.svd((sample - centre) / spread, full_matrices=False)
    basis = np.asarray(axes[:NUMBERS].T / spread[:, None], np.float32)
    halves = [np.concatenate([(f - centre) @ basis for f in features[start::2]]) for start in (0, 1)]
    others = _some(random, halves[1], SAMPLE)
    distances = _distances(others, _far_apart(_some(random, halves[0], SAMPLE), PATCHES))
    every = np.concatenate(marks)
    scale = (float(distances.mean()), float(distances.std()) + 1e-3), (float(every.mean()), float(every.std()) + 1e-3)
    memory = _far_apart(_some(random, np.concatenate(halves), SAMPLE), PATCHES)
    return Anomaly(network, centre.astype(np.float32), basis, memory.astype(np.float32), scale)


def _some(random: np.random.Generator, rows: Matrix, most: int) -> Matrix:
    return rows if len(rows) <= most else rows[np.sort(random.choice(len(rows), most, replace=False))]


def _far_apart(rows: Matrix, count: int) -> Matrix:
    """So many of the rows that none is far from all of them: each further one is the farthest from those chosen (Gonzalez, 1985)."""
    chosen, nearest = [0], ((rows - rows[0]) ** 2).sum(axis=1)
    for _ in range(min(count, len(rows)) - 1):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((rows - rows[chosen[-1]]) ** 2).sum(axis=1))
    return rows[chosen]


def _distances(rows: Matrix, memory: Matrix) -> NDArray[np.float64]:
    """Of each row to the nearest of the memory."""
    squared = (rows**2).sum(axis=1)[:, None] - 2 * rows @ memory.T + (memory**2).sum(axis=1)
    return np.asarray(np.sqrt(squared.min(axis=1).clip(0)), np.float64)


def _size(images: Sequence[Image], channels: int, side_px: int | None) -> models.Input:
    """The median shape of the pictures, its longer side at most `side_px`, in whole cells of the network."""
    shape = np.median([image.shape[:2] for image in images], axis=0)
    ratio = min(1.0, SIDE_PX / shape.max()) if side_px is None else side_px / shape.max()
    height, width = (max(2, round(float(side) * ratio / networks.UNet.MULTIPLE)) * networks.UNet.MULTIPLE for side in shape)
    return models.Input(height=height, width=width, channels=channels)


def _window(random: np.random.Generator, image: Image, side: int) -> Image:
    """A window of a good picture, half of the time as it lies, else turned."""
    flat = image[:, :, 0] if image.shape[2] == 1 else image
    height, width = flat.shape[:2]
    turn = np.pi if random.random() < 0.5 else 0.1
    (seen,) = augment.window(random, [flat], (random.random() * width, random.random() * height), side, turn_rad=turn, zoom=1.15)
    return seen
