"""From a trained network to a model of the contract: one ONNX file with everything inside, its card, and proof pictures."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from inspector.neural import model as models
from inspector.neural import onnxfile, pictures
from inspector.neural.engines import Engine
from inspector.records import ConfigError, Image
from inspector.workshop import places

OPSET = 17
NAME = r"[A-Za-z0-9._-]{1,100}\.onnx"
"""What a model's file may be called: its proof pictures are named after it."""
GREY_MEAN, GREY_DEVIATION = 128.0, 64.0
IMAGENET_MEAN, IMAGENET_DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""In the order red, green, blue; pictures here are blue, green, red."""


class Segmentation(nn.Module):
    """The contract of segmentation around a network that scores 1 + K classes at a fraction of the input's size.

    Made of steps that a runtime has at little cost, or all of this would take as long as the network: 1 − p(background) is had from the
    odds, the best class by comparing, and what a network says in blocks (`parts`) is shuffled when it is one byte.
    """

    def __init__(self, network: nn.Module, *, imagenet: bool = False) -> None:
        super().__init__()
        self.network, self.imagenet = network, imagenet
        self.side = int(getattr(network, "SIDE", 1))

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (N, H, W, C) to class_map, score_map uint8 (N, H/d, W/d)."""
        pictures = normalise(planes(seen), imagenet=self.imagenet)
        scores: Tensor = self.network(pictures) if self.side == 1 else self.network.parts(pictures)  # type: ignore[operator]
        background, first, *others = torch.split(scores, self.side**2, dim=1)
        named, best = (first > background).to(torch.uint8), torch.maximum(background, first)
        odds = torch.exp(first - background)
        for number, score in enumerate(others, 2):
            named = torch.where(score > best, torch.tensor(number, dtype=torch.uint8), named)
            best = torch.maximum(best, score)
            odds = odds + torch.exp(score - background)
        score_map = (255.5 - 255.0 / (1.0 + odds)).to(torch.uint8)  # of odds beyond all numbers, too
        both = torch.cat([named, score_map], dim=1)
        if self.side > 1:
            both = functional.pixel_shuffle(both, self.side)
        return both[:, 0], both[:, 1]


class Classification(nn.Module):
    """The contract of classification around a network that scores K classes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, seen: Tensor) -> Tensor:
        """uint8 (N, H, W, C) to float32 (N, K)."""
        return torch.softmax(self.network(normalise(planes(seen))), dim=1)


class Compare(nn.Module):
    """The contract of compare around a network that gives class scores and a box as ratios of the side."""

    def __init__(self, network: nn.Module, side_px: int) -> None:
        super().__init__()
        self.network, self.side_px = network, side_px

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (N, H, W, C) to float32 (N, K), float32 (N, 4) in px."""
        scores, boxes = self.network(normalise(planes(seen)))
        return torch.softmax(scores, dim=1), boxes * float(self.side_px)


def planes(seen: Tensor) -> Tensor:
    """(N, H, W, C) to (N, C, H, W); of one channel that is the same bytes, and nothing is moved."""
    return seen.squeeze(3).unsqueeze(1) if seen.shape[3] == 1 else seen.permute(0, 3, 1, 2)


def normalise(pictures: Tensor, *, imagenet: bool = False) -> Tensor:
    """Grey values (N, C, H, W) about zero; with ImageNet's statistics for networks that began with its weights."""
    if pictures.dtype == torch.uint8 and not imagenet:
        levels: Tensor = _Levels.apply(pictures)  # type: ignore[no-untyped-call]
        return levels
    seen = pictures.float()
    if not imagenet:
        return (seen - GREY_MEAN) * (1.0 / GREY_DEVIATION)
    if seen.shape[1] == 1:
        return (seen - float(np.mean(IMAGENET_MEAN))) * (1.0 / float(np.mean(IMAGENET_DEVIATION)))
    seen = seen.flip(1)
    return (seen - torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)) * (1.0 / torch.tensor(IMAGENET_DEVIATION).view(1, 3, 1, 1))


class _Levels(torch.autograd.Function):
    """Bytes about zero, which a runtime has as one step: what it calls dequantising."""

    @staticmethod
    def forward(context: Any, pictures: Tensor) -> Tensor:
        return (pictures.float() - GREY_MEAN) * (1.0 / GREY_DEVIATION)

    @staticmethod
    def symbolic(graph: Any, pictures: Any) -> Any:
        zero, step = torch.tensor(round(GREY_MEAN), dtype=torch.uint8), torch.tensor(1.0 / GREY_DEVIATION)
        return graph.op("DequantizeLinear", pictures, graph.op("Constant", value_t=step), graph.op("Constant", value_t=zero))


def to_onnx(contract: nn.Module, size: models.Input, task: models.Task, *, any_size: bool = False) -> bytes:
    """The ONNX file's bytes; N is free, and with `any_size` height and width too, for networks that are convolutions and nothing else.

    The tracing exporter gives the same bytes each time.
    """
    names = [name for name, _, _ in models.OUTPUTS[task]]
    example = torch.zeros(1, size.height, size.width, size.channels, dtype=torch.uint8)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            contract.eval().to(memory_format=torch.contiguous_format),  # type: ignore[call-overload]
            (example,),
            file,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=["pictures"],
            output_names=names,
            dynamic_axes={name: {0: "n"} for name in ["pictures", *names]},
        )
    return freed(file.getvalue()) if any_size else file.getvalue()


def freed(data: bytes) -> bytes:
    """The segmentation model with free `height` and `width`. Traced with one size: traced as free, each step would ask for it again."""
    made = onnx.load_from_string(data)
    for each in (*made.graph.input, *made.graph.output):
        for place, name in ((1, "height"), (2, "width")):
            each.type.tensor_type.shape.dim[place].dim_param = name
    del made.graph.value_info[:]
    return bytes(made.SerializeToString())


def place(path: Path) -> None:
    """Make the folder for a model's file. Raises E_MODEL_NAME for a name its proof pictures cannot have, E_MODEL_OUT."""
    if not re.fullmatch(NAME, path.name):
        text = f"{path.name!r}; allowed: 1 to 100 of the letters A-Z and a-z, digits, '.', '_' and '-', then .onnx"
        raise ConfigError("E_MODEL_NAME", text, file=str(path), key="--out")
    places.folder(path.parent, code="E_MODEL_OUT")


def save(path: Path, data: bytes, proofs: Sequence[Image], card: dict[str, Any]) -> models.Model:
    """Write model, card and proof pictures (uint8 (h, w[, C])), and load the model as the line will. `card` lacks sha256 and proof only.

    Proofs of compare are stored as their channels, one above the other. Old proof pictures of the same model are removed first.
    Raises as `place` and `models.load`, and E_OUT.
    """
    place(path)
    for old in path.parent.glob(f"{path.stem}.proof-*.png"):
        old.unlink()
    onnxfile.inspect(data, str(path))
    session = models.session_of(data, str(path))
    size, task = models.Input.model_validate(card["input"]), card["task"]
    draft = models.Card.model_validate(
        {**card, "sha256": hashlib.sha256(data).hexdigest(), "proof": [{"picture": "none", "answer": [0.0]}]}
    )
    found = []
    for number, image in enumerate(proofs):
        name = f"{path.stem}.proof-{number}.png"
        batch = np.ascontiguousarray(image).reshape(1, size.height, size.width, size.channels)
        outputs = tuple(session.run([n for n, _, _ in models.OUTPUTS[task]], {"pictures": batch}))
        found.append(models.Proof(picture=name, answer=[round(x, 5) for x in models.answer(draft, outputs)]))
        shown = np.vstack(np.moveaxis(batch[0], 2, 0)) if task == "compare" else batch[0]
        pictures.write(path.parent / name, shown)
    with places.written(path):
        path.write_bytes(data)
        models.write_card(path.with_suffix(".yaml"), draft.model_copy(update={"proof": found}))
    return models.load(path, engine=Engine())
