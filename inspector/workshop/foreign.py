"""A foreign float model is wrapped into the contract once: uint8 pictures in, class maps or scores out, the same answers as before.

Around the foreign graph come: uint8 (N, H, W, C) blue-green-red → the order of its colours, its layout, (x / 255 − mean) / std; and behind
it what the contract wants from its logits (or probabilities): for segmentation (N, K, h, w) with the background first, or one channel
for a single class; for classification (N, K) or (N, K, 1, 1). Dynamic sides become those that are asked for; N stays free where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from inspector.neural import model as models
from inspector.neural import onnxfile, pictures
from inspector.records import ConfigError, Image
from inspector.workshop import export

LEAST_OPSET = 13
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
PREFIX = "theirs/"
"""Before every name of the foreign graph, so that none is one of the contract's."""
TOLERANCE, HALF_TOLERANCE = 1e-3, 1e-2
"""A model of 16-bit numbers says no more than three digits, and the runtime rounds it elsewhere when it is wrapped."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """What must be known of the model: task and classes (for segmentation without the background), `size_px` (h, w) where it is dynamic,
    `mean` and `std` of x / 255 by channel, `layout` and `colours` of its input, whether its answers are probabilities already, and which
    float `output` they are (None: the only one, or the one named "out").
    """

    path: Path
    task: models.Task
    classes: tuple[str, ...]
    size_px: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str = "nchw"
    colours: str = "rgb"
    probabilities: bool = False
    output: str | None = None
    licence: str = "unknown"
    about: str = "imported"


def wrap(foreign: Foreign, out: Path, proofs: Sequence[Path] = ()) -> models.Model:
    """Write the wrapped model with its card, after its answers were found to be the foreign one's to 1e-3 (of 16 bits: 1e-2) on `proofs`
    (none: made up).

    Raises `ConfigError`: E_MODEL_OPEN, _PARSE, _EXTERNAL, _OP, _SIZE, _INPUT, _OUTPUT, _PROOF, _NAME, _OUT, E_IMG_*, E_IMPORT_SAME,
    E_LABELS.
    """
    where = str(foreign.path)
    export.place(out)
    if wrong := models.wrong_names(foreign.classes):
        raise ConfigError("E_LABELS", wrong, key="--classes")
    data = models.read_bytes(foreign.path)
    onnxfile.inspect(data, where)
    try:
        theirs = onnx.load_from_string(data)
    except Exception as error:  # protobuf's own errors have no common root
        raise ConfigError("E_MODEL_PARSE", f"not an ONNX model: {type(error).__name__}", file=where) from error
    opset = max((o.version for o in theirs.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < LEAST_OPSET:
        theirs = _raised(theirs, opset, where)
    size = _size(theirs, foreign)
    output = _float_output(theirs, foreign)
    session = models.session_of(data, where)
    shape = (size.height, size.width, size.channels)
    dims = _answer(session, output, np.zeros(shape, np.uint8), foreign).shape
    ours = _wrapped(theirs, output, dims, foreign, size)
    card: dict[str, Any] = {
        "task": foreign.task,
        "classes": list(foreign.classes),
        "input": size.model_dump(),
        "licence": foreign.licence,
        "data": foreign.about,
        "training": {"imported_from": foreign.path.name, "mean": list(foreign.mean), "std": list(foreign.std)},
    }
    random = np.random.default_rng(0)
    seen = [_proof(path, size) for path in proofs] or [
        random.integers(0, 256, shape, np.uint8),
        np.repeat(np.linspace(0, 255, size.width).astype(np.uint8)[None, :, None], size.height, 0).repeat(size.channels, 2),
    ]
    _same_answers(session, output, ours, foreign, seen)
    return export.save(out, ours, seen, card)


def _raised(theirs: onnx.ModelProto, opset: int, where: str) -> onnx.ModelProto:
    """The same model in the least opset that can be wrapped; that it answers alike is proven later. Raises E_MODEL_OP."""
    try:
        return version_converter.convert_version(theirs, LEAST_OPSET)
    except Exception as error:  # the converter's own errors have no common root
        text = f"opset {opset}; {LEAST_OPSET} and later can be wrapped, and it cannot be raised: {str(error).splitlines()[0][:200]}"
        raise ConfigError("E_MODEL_OP", text, file=where) from error


def wrap_only(foreign: Foreign, out: Path, proofs: Sequence[Path] = ()) -> None:
    """`wrap` for another process, which cannot hand a loaded model over."""
    wrap(foreign, out, proofs)


def _proof(path: Path, size: models.Input) -> Image:
    """The proof picture uint8 (H, W, C). Raises E_IMG_*, and E_MODEL_PROOF where it has another size."""
    image = pictures.read(path, size.channels)
    if image.shape[:2] != (size.height, size.width):
        text = f"{image.shape[1]} × {image.shape[0]} px; the model takes {size.width} × {size.height}"
        raise ConfigError("E_MODEL_PROOF", text, file=str(path), key="--proof")
    return np.ascontiguousarray(image).reshape(size.height, size.width, size.channels)


def _size(theirs: onnx.ModelProto, foreign: Foreign) -> models.Input:
    """Height, width and channels of the foreign input. Raises E_MODEL_INPUT."""
    where, known = str(foreign.path), {tensor.name for tensor in theirs.graph.initializer}
    inputs = [value for value in theirs.graph.input if value.name not in known]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type not in FLOATS:
        raise ConfigError("E_MODEL_INPUT", f"{len(inputs)} inputs; one of float32 or float16 can be wrapped", file=where)
    dims = [d.dim_value if d.HasField("dim_value") else 0 for d in inputs[0].type.tensor_type.shape.dim]
    if len(dims) != 4:
        raise ConfigError("E_MODEL_INPUT", f"an input of {len(dims)} dimensions; 4 are needed", file=where)
    if dims[0] > 1:
        raise ConfigError("E_MODEL_INPUT", f"it takes {dims[0]} pictures at a time; allowed: 1, or as many as are given", file=where)
    channels, height, width = (dims[1], dims[2], dims[3]) if foreign.layout == "nchw" else (dims[3], dims[1], dims[2])
    wanted = foreign.size_px or (height, width)
    if any(seen and seen != want for seen, want in zip((height, width), wanted, strict=True)):
        raise ConfigError("E_MODEL_INPUT", f"it takes {width} × {height} px, not {wanted[1]} × {wanted[0]}", file=where, key="--size")
    channels = channels or max(len(foreign.mean), len(foreign.std))
    if min(wanted) < 8 or channels not in (1, 3):
        text = f"{wanted[1]} × {wanted[0]} px of {channels} channels; give --size where it is dynamic; channels are 1 or 3"
        raise ConfigError("E_MODEL_INPUT", text, file=where)
    if any(len(values) not in (1, channels) for values in (foreign.mean, foreign.std)) or min(foreign.std) <= 0:
        raise ConfigError("E_MODEL_INPUT", f"mean and std have one number or {channels}, and std is positive", file=where, key="--mean")
    return models.Input(height=wanted[0], width=wanted[1], channels=channels)


def _float_output(theirs: onnx.ModelProto, foreign: Foreign) -> str:
    """The name of the float output that is wrapped, see `Foreign`. Raises E_MODEL_OUTPUT."""
    outputs = [str(value.name) for value in theirs.graph.output if value.type.tensor_type.elem_type in FLOATS]
    wanted = foreign.output or (outputs[0] if len(outputs) == 1 else "out")
    if wanted not in outputs:
        seen = f"no float output {foreign.output!r}" if foreign.output else f"{len(outputs)} float outputs; one can be wrapped"
        known = f"; there are {', '.join(outputs)}" if outputs else ""
        raise ConfigError("E_MODEL_OUTPUT", seen + known, file=str(foreign.path), key="--output")
    return wanted


def _wrapped(theirs: onnx.ModelProto, output: str, dims: Sequence[int], foreign: Foreign, size: models.Input) -> bytes:
    """The ONNX bytes of the contract around the foreign graph, whose `output` has the shape `dims`. Raises E_MODEL_OUTPUT."""
    known = {tensor.name for tensor in theirs.graph.initializer}
    graph = compose.add_prefix_graph(theirs.graph, PREFIX, name_map={name: PREFIX + name for name in known})
    given = next(value for value in theirs.graph.input if value.name not in known)
    made = _Maker()
    mean, std = (np.broadcast_to(np.array(v, np.float32), (size.channels,)) for v in (foreign.mean, foreign.std))
    x = made.add("Cast", ["pictures"], to=TensorProto.FLOAT)
    if size.channels == 3 and foreign.colours == "rgb":
        x = made.add("Gather", [x, made.constant(np.array([2, 1, 0], np.int64))], axis=3)
    x = made.add("Mul", [x, made.constant((1.0 / (255.0 * std)).astype(np.float32))])
    x = made.add("Sub", [x, made.constant((mean / std).astype(np.float32))])
    if foreign.layout == "nchw":
        x = made.add("Transpose", [x], perm=[0, 3, 1, 2])
    before = [*made.nodes, helper.make_node("Cast", [x], [PREFIX + given.name], to=given.type.tensor_type.elem_type)]
    made.nodes.clear()
    tail = _segmentation_tail if foreign.task == "segmentation" else _classification_tail
    results = tail(made, made.add("Cast", [PREFIX + output], to=TensorProto.FLOAT), dims, foreign, size)
    pictures = helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["n", size.height, size.width, size.channels])
    nodes, constants = [*before, *graph.node, *made.nodes], [*graph.initializer, *made.constants]
    renamed = helper.make_graph(nodes, "wrapped", [pictures], results, constants)
    whole = helper.make_model(
        renamed, opset_imports=list(theirs.opset_import), ir_version=min(theirs.ir_version, 10), functions=theirs.functions
    )
    return bytes(whole.SerializeToString())


class _Maker:
    """Nodes and constants with names that no graph has."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._count = 0

    def _name(self) -> str:
        self._count += 1
        return f"inspector.contract.{self._count}"

    def add(self, operator: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """One node; the name of its output."""
        name = output or self._name()
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        """The name of a constant of this value."""
        name = self._name()
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


def _segmentation_tail(made: _Maker, answer: str, dims: Sequence[int], foreign: Foreign, size: models.Input) -> list[onnx.ValueInfoProto]:
    """Logits or probabilities (N, K, h, w) to class_map and score_map."""
    channels = dims[1] if len(dims) == 4 and foreign.layout == "nchw" else dims[3] if len(dims) == 4 else 0
    alone = channels == 1
    if channels not in ((1, 2) if len(foreign.classes) == 1 else (1 + len(foreign.classes),)):
        text = (
            f"answers of shape {list(dims)}; {1 + len(foreign.classes)} channels are needed for {list(foreign.classes)} and the background"
        )
        raise ConfigError("E_MODEL_OUTPUT", text, file=str(foreign.path))
    x = answer if foreign.layout == "nchw" else made.add("Transpose", [answer], perm=[0, 3, 1, 2])
    if alone:
        score = x if foreign.probabilities else made.add("Sigmoid", [x])
        classes = made.add("GreaterOrEqual", [score, made.constant(np.float32(0.5))])
    else:
        shares = x if foreign.probabilities else made.add("Softmax", [x], axis=1)
        ends = [made.constant(np.array([v], np.int64)) for v in (0, 1, 1)]
        score = made.add("Sub", [made.constant(np.float32(1)), made.add("Slice", [shares, *ends])])
        classes = made.add("ArgMax", [x], axis=1, keepdims=1)
    scaled = made.add("Mul", [score, made.constant(np.float32(255))])
    rounded = made.add("Floor", [made.add("Add", [scaled, made.constant(np.float32(0.5))])])
    results = []
    for name, value in (("class_map", made.add("Cast", [classes], to=TensorProto.FLOAT)), ("score_map", rounded)):
        full = np.array([size.height, size.width], np.int64)
        front = made.add("Slice", [made.add("Shape", [value]), *[made.constant(np.array([v], np.int64)) for v in (0, 2)]])
        shape = made.add("Concat", [front, made.constant(full)], axis=0)
        sized = made.add(
            "Resize", [value, "", "", shape], mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"
        )
        flat = made.add("Squeeze", [sized, made.constant(np.array([1], np.int64))])
        made.add("Cast", [flat], name, to=TensorProto.UINT8)
        results.append(helper.make_tensor_value_info(name, TensorProto.UINT8, ["n", size.height, size.width]))
    return results


def _classification_tail(made: _Maker, answer: str, dims: Sequence[int], foreign: Foreign, size: models.Input) -> list[onnx.ValueInfoProto]:
    """Logits or probabilities (N, K[, 1, 1]) to scores."""
    count = len(foreign.classes)
    if len(dims) not in (2, 4) or count not in dims[1:] or any(d > 1 for d in dims[1:] if d != count):
        raise ConfigError(
            "E_MODEL_OUTPUT", f"answers of shape {list(dims)}; (N, {count}) or (N, {count}, 1, 1) is needed", file=str(foreign.path)
        )
    x = made.add("Reshape", [answer, made.constant(np.array([-1, count], np.int64))])
    made.add("Identity" if foreign.probabilities else "Softmax", [x], "scores", **({} if foreign.probabilities else {"axis": 1}))
    return [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", count])]


def _answer(session: Any, output: str, image: Image, foreign: Foreign) -> NDArray[np.float64]:
    """The foreign model's output for a picture uint8 (H, W, C), its surroundings in NumPy. Raises E_MODEL_INPUT."""
    seen = image[None, ..., ::-1] if image.shape[2] == 3 and foreign.colours == "rgb" else image[None]
    x = (seen.astype(np.float64) / 255.0 - np.array(foreign.mean)) / np.array(foreign.std)
    x = np.ascontiguousarray(x.transpose(0, 3, 1, 2) if foreign.layout == "nchw" else x, np.float32)
    given = session.get_inputs()[0]
    x = x.astype(np.float16) if given.type == "tensor(float16)" else x
    return np.asarray(_run(session, [output], {given.name: x}, foreign)[0], np.float64)


def _run(session: Any, outputs: list[str] | None, given: dict[str, NDArray[Any]], foreign: Foreign) -> Any:
    try:
        return session.run(outputs, given)
    except Exception as error:  # the runtime exports no root of its exceptions
        raise ConfigError("E_MODEL_INPUT", f"it does not run: {str(error).splitlines()[0][:300]}", file=str(foreign.path)) from error


def _same_answers(theirs: Any, output: str, after: bytes, foreign: Foreign, seen: Sequence[Image]) -> None:
    """Run both on pictures uint8 (H, W, C). Raises E_IMPORT_SAME where they differ by more than 1e-3, of 16-bit numbers 1e-2."""
    where = str(foreign.path)
    half = any(each.type == "tensor(float16)" for each in (*theirs.get_inputs(), *theirs.get_outputs()))
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    ours = models.session_of(after, where)
    for image in seen:
        found = _run(ours, None, {"pictures": image[None]}, foreign)
        apart = _apart(_answer(theirs, output, image, foreign), found, foreign, tolerance)
        if not apart <= tolerance:
            raise ConfigError("E_IMPORT_SAME", f"the wrapped model's answers are {apart:.4f} away from the foreign model's", file=where)


def _apart(answer: NDArray[np.float64], found: Sequence[NDArray[Any]], foreign: Foreign, tolerance: float) -> float:
    """The largest difference of scores (ratio); half a grey level of a map is its rounding, and equal classes may fall either way."""
    squash: Callable[[NDArray[np.float64]], NDArray[np.float64]] = _identity if foreign.probabilities else _softmax
    if foreign.task == "classification":
        return float(np.abs(squash(answer.reshape(len(answer), -1)) - found[0]).max())
    x = answer if foreign.layout == "nchw" else answer.transpose(0, 3, 1, 2)
    if x.shape[1] == 1:
        p = x if foreign.probabilities else 1.0 / (1.0 + np.exp(-x))
        x, squash = np.concatenate([1 - p, p], axis=1), _identity
    shares = squash(x)
    rows, columns = (np.arange(full) * part // full for full, part in zip(found[1].shape[1:], shares.shape[2:], strict=True))
    shares = shares[:, :, rows[:, None], columns]
    apart = float(np.abs(255.0 * (1 - shares[:, 0]) - found[1]).max() - 0.5) / 255.0
    sorted_shares = np.sort(shares, axis=1)
    sure = sorted_shares[:, -1] - sorted_shares[:, -2] > tolerance
    return max(apart, float((shares.argmax(axis=1) != found[0])[sure].any()))


def _identity(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x


def _softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = e / e.sum(axis=1, keepdims=True)
    return shares
