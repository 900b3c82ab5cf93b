"""Networks made by hand, with answers that a person can foresee, and the files of a model around them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inspector.neural import model as models
from inspector.records import Image


def _model(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, Any], size: tuple[Any, Any, int], outputs: dict[str, tuple[int, list[Any]]]
) -> bytes:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    pictures = helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["n", *size])
    results = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()]
    graph = helper.make_graph(list(nodes), "by_hand", [pictures], results, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def bright_and_dark(size: int = 32, *, any_size: bool = False, down: tuple[int, int] = (1, 1)) -> bytes:
    """Segmentation: grey 200 and more is class 1, grey 20 and less class 2; the score is the distance from mid-grey, doubled.

    An answer stands for `down` rows and columns, and says this of their mean.
    """
    height, width = ("height", "width") if any_size else (size, size)
    nodes = [
        helper.make_node("Transpose", ["pictures"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["plane"], to=TensorProto.FLOAT),
        helper.make_node("AveragePool", ["plane"], ["means"], kernel_shape=down, strides=down),
        helper.make_node("Squeeze", ["means", "first"], ["seen"]),
        helper.make_node("GreaterOrEqual", ["seen", "bright"], ["is_bright"]),
        helper.make_node("LessOrEqual", ["seen", "dark"], ["is_dark"]),
        helper.make_node("Where", ["is_dark", "two", "zero"], ["map_dark"]),
        helper.make_node("Where", ["is_bright", "one", "map_dark"], ["class_map"]),
        helper.make_node("Sub", ["seen", "middle"], ["apart"]),
        helper.make_node("Abs", ["apart"], ["distance"]),
        helper.make_node("Add", ["distance", "distance"], ["doubled"]),
        helper.make_node("Clip", ["doubled", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["score_map"], to=TensorProto.UINT8),
    ]
    constants = {
        "first": np.array([1], np.int64),
        "bright": np.float32(200),
        "dark": np.float32(20),
        "middle": np.float32(127.5),
        "low": np.float32(0),
        "high": np.float32(255),
    } | {name: np.uint8(value) for name, value in (("zero", 0), ("one", 1), ("two", 2))}
    maps = (TensorProto.UINT8, ["n", "rows", "columns"] if any_size else ["n", size // down[0], size // down[1]])
    return _model(nodes, constants, (height, width, 1), {"class_map": maps, "score_map": maps})


def far_from_grey(size: int = 64) -> bytes:
    """Anomaly: how far the mean of each 8 × 8 px is from mid-grey, in tens of grey levels."""
    nodes = [
        helper.make_node("Transpose", ["pictures"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["seen"], to=TensorProto.FLOAT),
        helper.make_node("AveragePool", ["seen"], ["means"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Sub", ["means", "middle"], ["apart"]),
        helper.make_node("Abs", ["apart"], ["distance"]),
        helper.make_node("Div", ["distance", "ten"], ["scores"]),
        helper.make_node("Squeeze", ["scores", "plane"], ["score_map"]),
    ]
    constants = {"middle": np.float32(128), "ten": np.float32(10), "plane": np.array([1], np.int64)}
    return _model(nodes, constants, (size, size, 1), {"score_map": (TensorProto.FLOAT, ["n", size // 8, size // 8])})


def brightness(size: int = 16, *, scores: int = 2, kind: int = TensorProto.FLOAT) -> bytes:
    """Classification: (1 − mean / 255, mean / 255)."""
    nodes = [
        helper.make_node("Cast", ["pictures"], ["seen"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["seen"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Reshape", ["mean", "flat"], ["column"]),
        helper.make_node("Mul", ["column", "ratio"], ["bright"]),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Concat", ["dark", *["bright"] * (scores - 1)], ["joined"], axis=1),
        helper.make_node("Cast", ["joined"], ["scores"], to=kind),
    ]
    constants = {"flat": np.array([-1, 1], np.int64), "ratio": np.float32(1 / 255), "one": np.float32(1)}
    return _model(nodes, constants, (size, size, 1), {"scores": (kind, ["n", scores])})


def card(task: str, classes: Sequence[str], size: int, data: bytes, **more: Any) -> dict[str, Any]:
    """What a card says, without proof."""
    return {
        "task": task,
        "classes": list(classes),
        "input": {"height": size, "width": size, "channels": 1},
        "sha256": hashlib.sha256(data).hexdigest(),
        "licence": "Apache-2.0",
        "data": "made by hand",
        **more,
    }


def write(path: Path, data: bytes, said: dict[str, Any], picture: Image, answer: Sequence[float]) -> Path:
    """Model, card and one proof picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    cv2.imwrite(str(path.with_suffix(".proof-0.png")), picture)
    proof = [{"picture": f"{path.stem}.proof-0.png", "answer": list(answer)}]
    models.write_card(path.with_suffix(".yaml"), models.Card.model_validate({**said, "proof": proof}))
    return path


def segmenter(folder: Path, size: int = 32, *, any_size: bool = False, down: tuple[int, int] = (1, 1), **more: Any) -> Path:
    """`bright_and_dark` as a model: classes scratch (bright) and stain (dark)."""
    data = bright_and_dark(size, any_size=any_size, down=down)
    picture = np.full((size, size), 128, np.uint8)
    picture[: size // 2] = 255
    said = card("segmentation", ["scratch", "stain"], size, data, **more)
    return write(folder / "surface.onnx", data, said, picture, [0.5, 0.5, 0.0, 1.0])


def classifier(folder: Path, classes: Sequence[str] = ("dark", "bright"), size: int = 16, name: str = "classes.onnx") -> Path:
    """`brightness` as a model."""
    data = brightness(size)
    said = card("classification", classes, size, data)
    return write(folder / name, data, said, np.full((size, size), 51, np.uint8), [0.8, 0.2])


def comparer(folder: Path, size: int = 32) -> Path:
    """Compare: "more" where the picture is the brighter one, "less" where the reference is, else "good"; the box is the middle half."""
    nodes = [
        helper.make_node("Cast", ["pictures"], ["seen"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["seen"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("Gemm", ["means", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        helper.make_node("Gemm", ["means", "nothing", "middle"], ["boxes"]),
    ]
    quarter = size / 4
    constants = {
        "weights": np.array([[0, 4, -4], [0, -4, 4]], np.float32),
        "bias": np.array([4, 0, 0], np.float32),
        "nothing": np.zeros((2, 4), np.float32),
        "middle": np.array([quarter, quarter, 3 * quarter, 3 * quarter], np.float32),
    }
    data = _model(nodes, constants, (size, size, 2), {"scores": (TensorProto.FLOAT, ["n", 3]), "boxes": (TensorProto.FLOAT, ["n", 4])})
    said = card("compare", ["good", "more", "less"], size, data)
    said["input"]["channels"] = 2
    picture = np.vstack([np.full((size, size), 200, np.uint8), np.full((size, size), 100, np.uint8)])
    return write(folder / "compare.onnx", data, said, picture, [0.0, 1.0, 0.0, 0.25, 0.25, 0.75, 0.75])


def stranger(folder: Path, size: int = 64, **more: Any) -> Path:
    """An anomaly model: strange is what is far from mid-grey, from a score of 3 on."""
    data = far_from_grey(size)
    said = card("anomaly", ["anomaly"], size, data, **{"thresholds": {"anomaly": 3.0}, **more})
    return write(folder / "strange.onnx", data, said, np.full((size, size), 138, np.uint8), [1.0, 1.0])
