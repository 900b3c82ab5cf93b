"""From a folder of data to a model of the contract, with defaults that need no tuning: the tasks, each as a `fit.Task`, and the way out.

Beside MODEL.onnx and MODEL.yaml stay MODEL.curves.png and MODEL.samples.png; while it trains, MODEL.training.pt keeps the state from
which it resumes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from inspector.neural import model as models
from inspector.neural import tiles
from inspector.records import ConfigError, Image
from inspector.workshop import augment, datasets, evaluate, export, networks, plots
from inspector.workshop.fit import History, Schedule, Task, fit

HELD_OUT, HELD_OUT_CLASSIFIED = 0.2, 0.1
TILE_PX, TILE_MARGIN_PX = 160, 8
EXPORT_TILE_PX = 176
"""The U-Net takes any size; tiles of this one waste least on parts of some 640 px and stay in the cache."""
WINDOW_PX = 64
"""Side of the windows that a segmentation set is cut into."""
DEFECT_WEIGHT = 4.0
"""A defect's pixel counts so many times as much in half of the cross-entropy; without, small networks begin to learn very late."""
DEEP = "deeplabv3plus-resnet101"
SEGMENTERS = ("unet", DEEP, "glance")
CLASSIFIERS = ("cnn",)


@dataclass(frozen=True, slots=True)
class Order:
    """What a person asked for. `weights`: a state dict for the ResNet body; `size_px`, `width` None: the defaults.

    `against`: a segmentation model whose false detections on the data are shown more often, as what they are: good.
    `false_reject_ratio`: of good parts, what a network that knows only good parts may reject.
    """

    data: Path
    out: Path
    schedule: Schedule
    arch: str | None = None
    test: Path | None = None
    weights: Path | None = None
    against: Path | None = None
    size_px: int | None = None
    width: int | None = None
    licence: str = "unknown"
    about: str = ""
    threads: int = 2
    false_reject_ratio: float = 0.01


def segmentation(order: Order, say: Callable[[str], None]) -> models.Model:
    """Train on a segmentation set. Raises E_DATA_*, E_IMG_*, E_TRAIN_*."""
    arch = begun(order, SEGMENTERS)
    data = datasets.segmentation(order.data)
    test = None if order.test is None else datasets.segmentation(order.test, data.classes)
    kept, held, judged = _split(data, order, say)
    deep = arch == DEEP
    size = order.size_px or (256 if deep else TILE_PX)
    if size % 16:
        raise ConfigError("E_TRAIN_SIZE", f"{size}; a multiple of 16", key="--size")
    torch.manual_seed(order.schedule.seed)
    made = {"unet": networks.UNet, "glance": networks.Glance}
    network: nn.Module = (
        networks.DeepLabV3Plus(data.channels, len(data.classes))
        if deep
        else made[arch](data.channels, len(data.classes), order.width or 16)
    )
    if deep and order.weights is not None:
        _load_body(network, order.weights)
    pixels = [[np.argwhere(mask == k) for k in range(1, len(data.classes) + 1)] for mask in data.masks]
    rich = [[i for i in kept if len(pixels[i][k])] for k in range(len(data.classes))]
    rich = [indices for indices in rich if indices]
    shown = size if deep or order.size_px else EXPORT_TILE_PX
    looked = _look_tiles(data, judged, shown, order.schedule.seed)
    hard = _hard(order, data, kept)
    down = int(network.DOWN)  # type: ignore[arg-type]
    margin = 0 if deep else TILE_MARGIN_PX
    weight = torch.tensor([1.0] + [DEFECT_WEIGHT] * len(data.classes))

    def batch(random: np.random.Generator) -> tuple[Tensor, ...]:
        images, masks = [], []
        for _ in range(4 if deep else 16):
            if random.random() < 0.65:  # on a defect, each class as often as the others
                at = rich[int(random.integers(len(rich)))]
                i = at[int(random.integers(len(at)))]
                of = [p for p in pixels[i] if len(p)]
                spots = of[int(random.integers(len(of)))]
                y, x = spots[int(random.integers(len(spots)))] + random.uniform(-size / 3, size / 3, 2)
            elif hard and random.random() < 0.6:
                i, row, column = hard[int(random.integers(len(hard)))]
                y, x = np.array([row, column]) + random.uniform(-size / 3, size / 3, 2)
            else:
                i = kept[int(random.integers(len(kept)))]
                y, x = random.uniform(0, 1, 2) * data.masks[i].shape
            image, mask = augment.window(random, [data.images[i], data.masks[i]], (float(x), float(y)), size)
            images.append(augment.light(random, image))
            masks.append(mask)
        return batch_of(images), torch.from_numpy(np.stack([reduced(mask, down) for mask in masks]).astype(np.int64))

    def loss(net: nn.Module, sample: tuple[Tensor, ...]) -> Tensor:
        scores = net(export.normalise(sample[0], imagenet=deep)).float()
        return (
            functional.cross_entropy(scores, sample[1], weight=weight)
            + functional.cross_entropy(scores, sample[1])
            + dice_loss(scores, sample[1])
        )

    @torch.no_grad()
    def score(net: nn.Module) -> dict[str, float]:
        contract = export.Segmentation(net, imagenet=deep).eval()
        confusion = np.zeros((len(data.classes) + 1,) * 2, np.int64)
        for start in range(0, len(looked[0]), 32):
            said = contract(torch.from_numpy(looked[0][start : start + 32]))[0].numpy()
            class_map = said.repeat(down, axis=1).repeat(down, axis=2)
            confusion += evaluate.confusion(looked[1][start : start + 32], class_map, len(data.classes) + 1)
        ious = evaluate.ious(confusion)
        return {
            "score": float(np.nanmean(ious[1:])),
            **{name: float(v) for name, v in zip(data.classes, ious[1:], strict=True) if np.isfinite(v)},
        }

    task = Task(network, batch, loss, score, rate=1e-4 if deep else 6e-3, decay=1e-4, default_steps=3000)
    history = run(task, order, arch, say)
    contract = export.Segmentation(network, imagenet=deep)
    proofs = _proof_tiles(looked)
    card = card_of(
        order, "segmentation", list(data.classes), models.Input(height=shown, width=shown, channels=data.channels), arch, history
    )
    card["margin_px"] = margin
    bytes_of = export.to_onnx(contract, models.Input.model_validate(card["input"]), "segmentation", any_size=not deep)
    model = export.save(order.out, bytes_of, proofs, card)
    calibrate = evaluate.look_thresholds if arch == "glance" else evaluate.calibrate
    card["thresholds"] = calibrate(model, datasets.part(data, judged))
    model = export.save(order.out, bytes_of, proofs, card)
    card["metrics"] = {"held_out": evaluate.segmentation(model, datasets.part(data, held), intervals=False)}
    if test is not None:
        card["metrics"]["test"] = evaluate.segmentation(model, test)
    model = export.save(order.out, bytes_of, proofs, card)
    _samples(order.out, model, datasets.part(data, held))
    finish(order, history)
    return model


def classification(order: Order, say: Callable[[str], None]) -> models.Model:
    """Train on a classification set, or on the windows cut from a segmentation set (then "good" is a class).

    Raises E_DATA_*, E_IMG_*, E_TRAIN_*.
    """
    arch = begun(order, CLASSIFIERS)
    data = _classified(order)
    test = None if order.test is None else datasets.classified(order.test, order.size_px or WINDOW_PX, data.classes, order.schedule.seed)
    kept, held = halves(data, HELD_OUT_CLASSIFIED, order.schedule.seed)
    if not len(held):
        raise ConfigError("E_DATA_EMPTY", "one picture a class; at least one class needs two, one is held out", file=str(order.data))
    trained = classifier(data, kept, held, order, arch, say)
    card = card_of(order, "classification", list(data.classes), trained.size, arch, trained.history)
    out = datasets.part(data, held)
    proofs = [fit_to(out.images[int(np.nonzero(out.labels == k)[0][0])], trained.size) for k in np.unique(out.labels)][:8]
    bytes_of = export.to_onnx(export.Classification(trained.network), trained.size, "classification")
    model = export.save(order.out, bytes_of, proofs, card)
    card["metrics"] = {"held_out": evaluate.classification(model, out, intervals=False)}
    if test is not None:
        card["metrics"]["test"] = evaluate.classification(model, test)
    model = export.save(order.out, bytes_of, proofs, card)
    scores = evaluate.scores(model, out)
    worst = np.argsort(scores[np.arange(len(out.labels)), out.labels])[:30]
    captions = [f"{out.classes[out.labels[i]][:14]} < {out.classes[int(scores[i].argmax())][:14]}" for i in worst]
    plots.sheet(order.out.with_suffix(".samples.png"), [out.images[i] for i in worst], captions)
    finish(order, trained.history)
    return model


@dataclass(frozen=True, slots=True)
class Trained:
    """A classifier before its export."""

    network: nn.Module
    size: models.Input
    history: History


def classifier(
    data: datasets.Classified, kept: NDArray[np.int64], held: NDArray[np.int64], order: Order, arch: str, say: Callable[[str], None]
) -> Trained:
    """Train the CNN on the pictures `kept`, looking at those `held` out. Each class is drawn by the square root of its share."""
    side = order.size_px or int(np.clip(np.median([max(image.shape[:2]) for image in data.images]) // 16 * 16, 32, 128))
    if side % 16:
        raise ConfigError("E_TRAIN_SIZE", f"{side}; a multiple of 16", key="--size")
    size = models.Input(height=side, width=side, channels=data.channels)
    crops_only = data.classes[0] == "good" and side == data.images[0].shape[0]
    images = np.stack([fit_to(image, size) for image in data.images])
    torch.manual_seed(order.schedule.seed)
    network = networks.CNN(data.channels, len(data.classes), order.width or 16, 1)
    of = data.labels[kept]
    weight = 1.0 / np.sqrt(np.bincount(of, minlength=len(data.classes)).clip(1))[of]
    share = (weight / weight.sum()).astype(np.float64)
    eye = np.eye(len(data.classes), dtype=np.float32)
    scores_before = torch.from_numpy(images[held])

    def batch(random: np.random.Generator) -> tuple[Tensor, ...]:
        picks = kept[random.choice(len(kept), 64, p=share)]
        seen = []
        for i in picks:
            image = images[i] if data.channels == 3 else images[i][:, :, 0]
            centre = ((side - 1) / 2 + random.uniform(-side / 12, side / 12), (side - 1) / 2 + random.uniform(-side / 12, side / 12))
            turn = np.pi if crops_only else 0.15
            (image,) = augment.window(random, [image], centre, side, turn_rad=turn, zoom=1.2)
            if not crops_only and random.random() < 0.5:
                image = image[::-1]
            seen.append(augment.erase(random, augment.light(random, image)))
        mixed, targets = augment.mix(random, np.stack(seen).astype(np.float32), eye[data.labels[picks]])
        return torch.from_numpy(mixed.reshape(len(picks), side, side, data.channels)).permute(0, 3, 1, 2), torch.from_numpy(targets)

    def loss(net: nn.Module, sample: tuple[Tensor, ...]) -> Tensor:
        return functional.cross_entropy(net(export.normalise(sample[0])).float(), sample[1], label_smoothing=0.05)

    @torch.no_grad()
    def score(net: nn.Module) -> dict[str, float]:
        contract = export.Classification(net).eval()
        scores = torch.cat([contract(scores_before[start : start + 64]) for start in range(0, len(held), 64)]).numpy()
        right = scores.argmax(axis=1) == data.labels[held]
        each = [right[data.labels[held] == k].mean() for k in np.unique(data.labels[held])]
        nats = float(-np.log(scores[np.arange(len(held)), data.labels[held]].clip(1e-6)).mean())
        return {"score": float(right.mean()) - 0.01 * nats, "accuracy": float(right.mean()), "balanced": float(np.mean(each))}

    task = Task(network, batch, loss, score, rate=3e-3, decay=5e-2, default_steps=2500)
    return Trained(network, size, run(task, order, arch, say))


def halves(data: datasets.Classified, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(indices kept, indices held out): `share` of each class, or of the groups where the pictures have some."""
    if data.groups is None:
        return datasets.split(len(data.names), share, seed, data.labels)
    groups = np.unique(data.groups)
    _, out = datasets.split(len(groups), share, seed)
    held = np.isin(data.groups, groups[out])
    return np.nonzero(~held)[0], np.nonzero(held)[0]


def fit_to(image: Image, size: models.Input) -> Image:
    """The picture in the network's size: uint8 (h, w, C), as the check `classify` does it."""
    if image.shape[:2] != (size.height, size.width):
        smaller = image.shape[0] > size.height or image.shape[1] > size.width
        image = np.asarray(
            cv2.resize(image, (size.width, size.height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR), np.uint8
        )
    return np.ascontiguousarray(image).reshape(size.height, size.width, size.channels)


def _classified(order: Order) -> datasets.Classified:
    """The set to train on; windows of a segmentation set also show what `order.against` takes for defects."""
    if order.against is None:
        return datasets.classified(order.data, order.size_px or WINDOW_PX, None, order.schedule.seed)
    data = datasets.segmentation(order.data)
    against = evaluate.false_places(models.load(order.against, task="segmentation"), data)
    return datasets.crops(data, order.size_px or WINDOW_PX, order.schedule.seed, against=against)


def begun(order: Order, among: Sequence[str]) -> str:
    """The architecture, the first of those where none is asked for; the model's folder is made.

    Raises E_TRAIN_ARCH, E_TRAIN_WEIGHTS and E_TRAIN_AGAINST where one is of no use to it, E_MODEL_NAME, E_MODEL_OUT.
    """
    arch = order.arch or among[0]
    export.place(order.out)
    if arch not in among:
        raise ConfigError("E_TRAIN_ARCH", f"{arch!r}; known are {', '.join(among)}", key="--arch")
    if order.weights is not None and arch != DEEP:
        raise ConfigError("E_TRAIN_WEIGHTS", f"of no use to {arch}; allowed with --arch {DEEP}", file=str(order.weights), key="--weights")
    if order.against is not None and not (arch in SEGMENTERS or (arch in CLASSIFIERS and (order.data / "masks").is_dir())):
        text = "of no use here; allowed for segmentation, and for classification of a segmentation set"
        raise ConfigError("E_TRAIN_AGAINST", text, file=str(order.against), key="--against")
    return arch


def _split(data: datasets.Segmented, order: Order, say: Callable[[str], None]) -> tuple[list[int], list[int], list[int]]:
    """(indices to train on, those held out, those to judge the looks by), each with a share of the pictures with defects.

    Where only one picture has defects, it is trained on and judged by. Raises E_DATA_EMPTY where nothing can be held out.
    """
    bad = np.array([int(mask.any()) for mask in data.masks])
    kept, held = ([int(i) for i in side] for side in datasets.split(len(bad), HELD_OUT, order.schedule.seed, bad))
    if not held:
        text = "at least two pictures with defects, or two without, are needed: one is held out"
        raise ConfigError("E_DATA_EMPTY", text, file=str(order.data))
    if bad[held].any():
        return kept, held, held
    say("one picture has defects: it is trained on and judged by, so its figures say nothing of other pictures")
    return kept, held, [*held, *np.flatnonzero(bad).tolist()]


def run(task: Task, order: Order, arch: str, say: Callable[[str], None]) -> History:
    """Run the loop with a checkpoint that belongs to this data, these settings and this seed."""
    schedule = order.schedule
    mine = (order.out.parent.resolve(), f"{order.out.stem}.")  # what the training itself writes may lie in the folder of the data
    files = sorted(path for path in order.data.rglob("*") if path.is_file())
    files = [path for path in files if not (path.parent.resolve() == mine[0] and path.name.startswith(mine[1]))]
    listing = [f"{path.name} {path.stat().st_size}" for path in files]
    parts = [arch, str(schedule), str(order.size_px), str(order.width), str(order.against), str(order.weights), *listing]
    identity = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return fit(task, schedule, order.out.with_suffix(".training.pt"), identity, say, threads=order.threads)


def finish(order: Order, history: History) -> None:
    """Draw the curves, and let the checkpoint go."""
    plots.curves(order.out.with_suffix(".curves.png"), history, order.out.stem)
    order.out.with_suffix(".training.pt").unlink(missing_ok=True)


def card_of(order: Order, task: models.Task, classes: list[str], size: models.Input, arch: str, history: History) -> dict[str, Any]:
    """All of the card but its hash, thresholds, metrics and proofs."""
    return {
        "task": task,
        "classes": classes,
        "input": {"height": size.height, "width": size.width, "channels": size.channels},
        "licence": order.licence,
        "data": order.about or order.data.name,
        "training": {
            "arch": arch,
            "seed": order.schedule.seed,
            "steps": history.total_steps,
            "best_step": history.best_step,
            "minutes": round(history.spent_s / 60, 2),
            "threads": order.threads,
        },
    }


def batch_of(images: Sequence[Image]) -> Tensor:
    """Pictures uint8 (h, w[, C]) to a float tensor (N, C, h, w) of grey values."""
    stacked = np.stack(images)
    return torch.from_numpy(stacked.reshape(*stacked.shape[:3], -1)).permute(0, 3, 1, 2).float()


def reduced(mask: Image, down: int) -> Image:
    """The mask at 1/`down`: the largest class in each cell, so that thin defects stay."""
    h, w = mask.shape[0] // down, mask.shape[1] // down
    return np.asarray(mask.reshape(h, down, w, down).max(axis=(1, 3)), np.uint8)


def dice_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """1 − the mean over the classes in the batch of the soft Dice ratio."""
    shares = torch.softmax(scores, dim=1)
    losses = []
    for k in range(1, scores.shape[1]):
        truth = (labels == k).float()
        if bool(truth.any()):
            losses.append(1 - (2 * (shares[:, k] * truth).sum() + 1) / (shares[:, k].sum() + truth.sum() + 1))
    return torch.stack(losses).mean() if losses else scores.sum() * 0.0


def _look_tiles(data: datasets.Segmented, held: Sequence[int], size: int, seed: int) -> tuple[Image, Image]:
    """Up to 192 tiles of the pictures held out, and their masks: those with defects first, then others."""
    images, masks = [], []
    for i in held:
        grid = tiles.plan(np.ones(data.masks[i].shape, np.bool_), (size, size))
        images.append(tiles.cut(data.images[i], grid))
        masks.append(tiles.cut(data.masks[i], grid)[..., 0])
    every_image, every_mask = np.concatenate(images), np.concatenate(masks)
    order = np.random.default_rng(seed).permutation(len(every_image))
    full = [int(i) for i in order if every_mask[i].any()][:144]
    empty = [int(i) for i in order if not every_mask[i].any()][: 192 - len(full)]
    return every_image[full + empty], every_mask[full + empty]


def _proof_tiles(looked: tuple[Image, Image]) -> list[Image]:
    """The first tile of each class (where its class has most pixels among the first tiles), and one without any."""
    picks = [int(np.argmax((looked[1] == k).sum(axis=(1, 2)))) for k in np.unique(looked[1]) if k > 0]
    empty = [i for i in range(len(looked[1])) if not looked[1][i].any()][:1]
    return [looked[0][i] for i in dict.fromkeys(picks + empty)][:8]


def _hard(order: Order, data: datasets.Segmented, kept: Sequence[int]) -> list[tuple[int, int, int]]:
    """(picture, row, column) of what `order.against` takes for defects in the pictures to train on; empty without."""
    if order.against is None:
        return []
    places = evaluate.false_places(models.load(order.against, task="segmentation"), datasets.part(data, kept))
    return [(i, *at) for i, found in zip(kept, places, strict=True) for at in found]


def _load_body(network: nn.Module, path: Path) -> None:
    """Published ResNet-101 weights (a state dict) into the body; the classifier's last layer is left out."""
    try:
        state = torch.load(path, weights_only=True)
        found = network.body.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")}, strict=False)  # type: ignore[union-attr]
    except Exception as error:  # whatever the unpickler finds, the file is at fault
        raise ConfigError("E_TRAIN_WEIGHTS", f"no weights of ResNet-101: {str(error).splitlines()[0][:200]}", file=str(path)) from error
    if found.missing_keys:
        raise ConfigError("E_TRAIN_WEIGHTS", f"no weights of ResNet-101: {len(found.missing_keys)} are missing", file=str(path))


def _samples(out: Path, model: models.Model, data: datasets.Segmented) -> None:
    """A sheet of the pictures held out, with the model's outlines and the truth's beside it."""
    shown, captions = [], []
    for name, image, mask in list(zip(data.names, data.images, data.masks, strict=True))[:15]:
        class_map, _ = evaluate.predict_maps(model, image)
        shown += [plots.overlay(image, class_map, data.classes), plots.overlay(image, mask, data.classes)]
        captions += [name, "truth"]
    plots.sheet(out.with_suffix(".samples.png"), shown, captions)
