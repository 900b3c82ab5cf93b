"""A model and its card: the one contract that every network of the line keeps, and the check that it does so on this machine.

Contract. An ONNX graph takes `pictures` uint8 (N, H, W, C) and returns what a check needs; normalising, layout, soft-max and arg-max
are inside the graph. C is fixed; N is free (or 1). H and W are fixed, or, in a segmentation model that takes any multiple of 16, free and
called `height` and `width`: such a model runs on tiles that fit the part (`Model.sized`). By `task` of the card:

    segmentation     class_map uint8 (N, H/d, W/d), 0 background and 1…K the classes; score_map uint8 (N, H/d, W/d),
                     255·(1 − p(background)); each answer stands for d × d px, with d of the model's own choice (`Model.down`)
    classification   scores float32 (N, K), a soft-max over the K classes
    compare          scores float32 (N, K) over the K classes, the first of which is "good"; boxes float32 (N, 4), x0 y0 x1 y1 in px
                     of the input; C is 2: the picture, the reference; or 4: and what the check's `regions` says of them
    anomaly          score_map float32 (N, h, w), distance to the good parts on a coarse grid (larger is stranger)

Card. Beside `x.onnx` stands `x.yaml`; `Card` says what is in it. `load` refuses a model that is not the card's (sha256), that reaches
outside its file, that does not keep the contract, or that does not give its proof pictures' answers on this CPU, with the engine that
`inspector model tune` has found for this machine (`engines`), within bounds of memory.
"""

from __future__ import annotations

import hashlib
import json
import re
import resource
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
import yaml
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, ValidationError, field_validator

from inspector.config import Strict
from inspector.neural import engines, limits, onnxfile, pictures
from inspector.neural.engines import Engine
from inspector.records import ConfigError, Image

LARGEST_MODEL_BYTES = 512 << 20
LARGEST_CARD_BYTES = 1 << 20
MOST_MEMORY_BYTES = 4 << 30
"""So much address space a model may take while it is made ready and proved."""

_FREE = (b"\x12\x06height", b"\x12\x05width")  # a dimension with a name, as a file of ONNX has it
_binding = threading.Lock()
SIZE_STEP_PX = 16
"""A model whose size is free takes multiples of this."""

Task = Literal["segmentation", "classification", "compare", "anomaly"]
OUTPUTS: dict[str, tuple[tuple[str, str, int], ...]] = {
    "segmentation": (("class_map", "tensor(uint8)", 3), ("score_map", "tensor(uint8)", 3)),
    "classification": (("scores", "tensor(float)", 2),),
    "compare": (("scores", "tensor(float)", 2), ("boxes", "tensor(float)", 2)),
    "anomaly": (("score_map", "tensor(float)", 3),),
}


class Input(Strict):
    """The size of a picture that the network takes."""

    height: int = Field(ge=8, le=8192)
    width: int = Field(ge=8, le=8192)
    channels: int = Field(ge=1, le=4)


class Proof(Strict):
    """A picture beside the model and the numbers that the model must give for it (see `answer`), each within `tolerance`."""

    picture: str = Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")
    answer: list[float] = Field(min_length=1, max_length=256)
    tolerance: float = Field(default=0.02, gt=0, le=1)


def wrong_names(classes: Sequence[str]) -> str:
    """What is wrong with the names of classes; empty where nothing is."""
    bad = [name for name in classes if not re.fullmatch(r"[^\x00-\x1f\x7f]{1,64}", name)]
    twice = sorted({name for name in classes if classes.count(name) > 1})
    return f"{(bad or twice)[:3]!r}: names of 1 to 64 printable characters, none twice" if bad or twice else ""


class Card(Strict):
    """What a model is, for what it was made, and how good it was found; `x.yaml` beside `x.onnx`.

    `classes` name the outputs: for segmentation the background is not among them (class_map value k is `classes[k − 1]`), for compare
    "good" is the first. `thresholds`: least score at which a class counts, 0.5 where none is given. `margin_px`: how far from its border
    a tile's answer lacks context. `data`, `metrics`, `training` and `licence` are for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    format: Literal[1] = 1
    task: Task
    classes: list[str] = Field(min_length=1, max_length=255)
    input: Input
    mm_per_px: float | None = Field(default=None, gt=0)
    margin_px: int = Field(default=0, ge=0, le=1024)
    thresholds: dict[str, float] = Field(default_factory=dict)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    licence: str
    data: str
    metrics: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    proof: list[Proof] = Field(min_length=1, max_length=64)

    @field_validator("classes")
    @classmethod
    def _names(cls, classes: list[str]) -> list[str]:
        """Names that can stand in an event and on a page, none twice."""
        if wrong := wrong_names(classes):
            raise ValueError(f"E_LABELS: {wrong}")
        return classes

    def threshold(self, name: str) -> float:
        """The least score (ratio) at which the class counts."""
        return self.thresholds.get(name, 0.5)


@dataclass(frozen=True, slots=True)
class Model:
    """A network that has given its proof pictures' answers on this machine; `down`: each answer of a segmentation is so many px a side."""

    path: Path
    card: Card
    session: ort.InferenceSession
    outputs: tuple[str, ...]
    engine: Engine = field(default_factory=Engine)
    any_size: bool = False
    down: int = 1

    def run(self, batch: Image) -> tuple[NDArray[Any], ...]:
        """The outputs of the contract for pictures uint8 (N, H, W, C), C-contiguous. Safe from several threads.

        Raises `TimeoutError` when somebody has ended it (`limits.end_older`).
        """
        return limits.run(lambda options: tuple(self.session.run(self.outputs, {"pictures": batch}, options)))

    def sized(self, height: int, width: int) -> Model:
        """The same network for pictures of this size, multiples of `SIZE_STEP_PX`, where its file leaves that free; else itself.

        Takes a moment. Raises as `load`; E_MODEL_OUTPUT where it does not keep the contract at that size.
        """
        size = Input(height=height, width=width, channels=self.card.input.channels)
        if size == self.card.input or not self.any_size:
            return self
        data, card = _read(self.path)
        if card.sha256 != self.card.sha256:
            raise ConfigError("E_MODEL_HASH", "the file has changed since it was read", file=str(self.path))
        whole = self.card.model_copy(update={"input": size})
        with _bounded():
            session = session_of(data, str(self.path), threads=self.engine.threads, provider=self.engine.provider, size=size)
            _check_contract(session, whole, str(self.path))
            made = Model(self.path, whole, session, self.outputs, self.engine, any_size=True, down=self.down)
            try:
                shapes = {answer.shape for answer in made.run(np.zeros((1, height, width, size.channels), np.uint8))}
            except Exception as error:  # the runtime exports no root of its exceptions
                raise _refusal(error, str(self.path), f"it fails at {width} × {height} px") from error
        if shapes != {(1, height // self.down, width // self.down)}:
            raise ConfigError("E_MODEL_OUTPUT", f"at {width} × {height} px it answers {sorted(shapes)}", file=str(self.path))
        return made

    @property
    def name_and_hash(self) -> tuple[str, str]:
        """As `Recipe.models` lists it; a provider that is not ONNX Runtime's own is a part of the name."""
        return self.path.stem + ("" if self.engine.provider == "cpu" else f"@{self.engine.provider}"), self.card.sha256


def load(path: Path, *, threads: int | None = None, task: Task | None = None, engine: Engine | None = None) -> Model:
    """The model in the file, verified: structure, card, sha256, contract, proof pictures; `task` is the one that the caller needs.

    It runs on `engine`, else on the one that was tuned for it on this machine, else on ONNX Runtime's own, on one thread; `threads` come
    before what either says. Raises `ConfigError`: E_MODEL_OPEN, _SIZE, _PARSE, _EXTERNAL, _OP, _CARD, _HASH, _TASK, _INPUT, _OUTPUT, _TUNE,
    _MEMORY, _PROOF, E_LABELS. The bytes that were checked are the bytes that run.
    """
    data, card = _read(path)
    if task is not None and card.task != task:
        raise ConfigError("E_MODEL_TASK", f"a model for {card.task}; {task} is needed", file=str(path))
    how = engine or engines.chosen(path, card.sha256) or Engine()
    file = how.file(path)
    if file != path:
        whole = card
        data, card = _read(file)
        if (card.task, card.classes, card.input) != (whole.task, whole.classes, whole.input):
            raise ConfigError("E_MODEL_CARD", f"no twin of {path.name}: task, classes and input differ", file=str(file))
    if threads is not None:
        how = how.model_copy(update={"threads": threads})
    with _bounded():
        session = session_of(data, str(file), threads=how.threads, provider=how.provider, size=card.input)
        _check_contract(session, card, str(file))
        free = card.task == "segmentation" and all(name in data for name in _FREE)
        model = Model(file, card, session, tuple(name for name, _, _ in OUTPUTS[card.task]), how, any_size=free)
        shapes = prove(model)
        return replace(model, down=_down(model, shapes)) if card.task == "segmentation" else model


def proven_card(path: Path) -> Card:
    """The card of a model that loads; for another process, which cannot hand a loaded model over."""
    return load(path).card


def _read(path: Path) -> tuple[bytes, Card]:
    """File and card, looked at before any runtime sees them."""
    data = read_bytes(path)
    onnxfile.inspect(data, str(path))
    card = read_card(path.with_suffix(".yaml"))
    found = hashlib.sha256(data).hexdigest()
    if found != card.sha256:
        raise ConfigError("E_MODEL_HASH", f"sha256 {found[:12]}… is not the card's {card.sha256[:12]}…", file=str(path))
    return data, card


@contextmanager
def _bounded() -> Iterator[None]:
    """Within it the process gets at most `MOST_MEMORY_BYTES` of further address space: asking for more is an error, not its end."""
    with _binding:  # it is the process's: of two at a time the second would leave the first one's bound behind
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        taken = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
        bound = taken + MOST_MEMORY_BYTES
        if any(limit not in (-1, resource.RLIM_INFINITY) and limit < bound for limit in (soft, hard)):
            yield  # it is bounded already
            return
        resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def read_bytes(path: Path) -> bytes:
    """The file's bytes. Raises E_MODEL_OPEN, E_MODEL_SIZE."""
    try:
        size = path.stat().st_size
        if size > LARGEST_MODEL_BYTES:
            raise ConfigError("E_MODEL_SIZE", f"{size >> 20} MiB; at most {LARGEST_MODEL_BYTES >> 20}", file=str(path))
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError("E_MODEL_OPEN", error.strerror or str(error), file=str(path)) from error
    if not data:
        raise ConfigError("E_MODEL_OPEN", "the file is empty", file=str(path))
    return data


def read_card(path: Path) -> Card:
    """The card in the file. Raises E_MODEL_CARD with what is wrong, E_LABELS for the classes."""
    where = str(path)
    try:
        if path.stat().st_size > LARGEST_CARD_BYTES:
            raise ConfigError("E_MODEL_CARD", "more than 1 MiB", file=where)
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError("E_MODEL_CARD", f"a model has its card beside it: {error.strerror or error}", file=where) from error
    except UnicodeDecodeError as error:
        raise ConfigError("E_MODEL_CARD", "not UTF-8", file=where) from error
    try:
        if "&" in text and any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ConfigError("E_MODEL_CARD", "aliases have no place in a card", file=where)
        return Card.model_validate_json(json.dumps(yaml.safe_load(text)))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        code = "E_LABELS" if "E_LABELS" in first["msg"] else "E_MODEL_CARD"
        raise ConfigError(code, f"{first['msg']}; {error.error_count()} errors in all", file=where, key=key) from error
    except yaml.MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        raise ConfigError("E_MODEL_CARD", str(error.problem), file=where, line=line) from error
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError("E_MODEL_CARD", f"not a card: {type(error).__name__}", file=where) from error


def write_card(path: Path, card: Card) -> None:
    """Write the card, keys in the order of `Card`."""
    path.write_text(yaml.safe_dump(json.loads(card.model_dump_json()), sort_keys=False, allow_unicode=True, width=120), "utf-8")


def session_of(data: bytes, where: str, *, threads: int = 1, provider: str = "cpu", size: Input | None = None) -> ort.InferenceSession:
    """A session: every optimisation, and no spinning, which would take the time of the neighbours' cores; `size` where the file's is free.

    Raises E_MODEL_OP, _PARSE, _MEMORY, and _TUNE where the provider is not installed.
    """
    if provider not in engines.available():
        raise ConfigError("E_MODEL_TUNE", f"the runtime has no provider {provider}; there is {', '.join(engines.available())}", file=where)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    if size is not None:
        options.add_free_dimension_override_by_name("height", size.height)
        options.add_free_dimension_override_by_name("width", size.width)
    providers: list[Any] = [engines.PROVIDERS["cpu"]]
    if provider == "openvino":
        providers.insert(0, (engines.PROVIDERS["openvino"], {"device_type": "CPU", "num_of_threads": str(threads)}))
    try:
        return ort.InferenceSession(data, options, providers=providers)
    except Exception as error:  # the runtime exports no root of its exceptions
        raise _refusal(error, where, "ONNX Runtime refuses it") from error


def _refusal(error: Exception, where: str, what: str) -> ConfigError:
    """What the runtime says, by what it is about: E_MODEL_MEMORY, _OP or _PARSE."""
    text = (str(error).splitlines() or [type(error).__name__])[0][:300]
    if isinstance(error, MemoryError) or re.search(r"allocate memory|bad_?alloc|bad allocation|out of memory", str(error), re.IGNORECASE):
        return ConfigError("E_MODEL_MEMORY", f"it wants more than {MOST_MEMORY_BYTES >> 30} GiB: {text}", file=where)
    unknown = re.search(r"opset|not a registered|No Op registered|NOT_IMPLEMENTED|not implemented", text, re.IGNORECASE)
    return ConfigError("E_MODEL_OP" if unknown else "E_MODEL_PARSE", f"{what}: {text}", file=where)


def answer(card: Card, outputs: tuple[NDArray[Any], ...]) -> list[float]:
    """The numbers by which an answer is known again, of one picture.

    segmentation: the share of pixels of background and of each class, then the largest score (0…1); anomaly: mean and largest;
    else: the outputs, boxes as a ratio of the input's side.
    """
    if card.task == "segmentation":
        counts = np.bincount(outputs[0].ravel(), minlength=len(card.classes) + 1)
        return [float(n) / outputs[0].size for n in counts] + [float(outputs[1].max()) / 255.0]
    if card.task == "anomaly":
        return [float(outputs[0].mean()), float(outputs[0].max())]
    if card.task == "compare":
        return [float(x) for x in outputs[0].ravel()] + [float(x) / max(card.input.width, card.input.height) for x in outputs[1].ravel()]
    return [float(x) for x in outputs[0].ravel()]


def proof_of(model: Model, proof: Proof) -> Image:
    """The proof picture as the model takes it: uint8 (1, H, W, C). Raises E_IMG_*, and E_MODEL_PROOF where its size is another."""
    card, path = model.card, model.path.parent / proof.picture
    image = pictures.read(path)
    wanted = (card.input.height, card.input.width)
    if card.task == "compare" and image.shape == (card.input.channels * wanted[0], wanted[1]):  # one channel above the other
        image = np.moveaxis(image.reshape(card.input.channels, *wanted), 0, 2)
    image = image if card.task == "compare" else pictures.as_channels(image, card.input.channels)
    if image.shape[:2] != wanted:
        raise ConfigError(
            "E_MODEL_PROOF", f"{image.shape[1]} × {image.shape[0]} px; the model takes {wanted[1]} × {wanted[0]}", file=str(path)
        )
    return np.ascontiguousarray(image.reshape(1, *wanted, card.input.channels))


def prove(model: Model) -> set[tuple[int, ...]]:
    """Run the proof pictures; the shapes of all outputs.

    Raises E_MODEL_PROOF naming the picture, what came and what should have; E_MODEL_MEMORY.
    """
    shapes: set[tuple[int, ...]] = set()
    for proof in model.card.proof:
        batch, where = proof_of(model, proof), str(model.path.parent / proof.picture)
        try:
            outputs = model.run(batch)
        except Exception as error:  # as above
            refused = _refusal(error, str(model.path), "the model fails")
            raise refused if refused.code == "E_MODEL_MEMORY" else ConfigError("E_MODEL_PROOF", refused.text, file=where) from error
        got = answer(model.card, outputs)
        if len(got) != len(proof.answer) or not np.allclose(got, proof.answer, rtol=0.0, atol=proof.tolerance):
            shown = ", ".join(f"{x:.3f}" for x in got[:8])
            said = ", ".join(f"{x:.3f}" for x in proof.answer[:8])
            raise ConfigError("E_MODEL_PROOF", f"the answer is [{shown}], the card says [{said}]", file=where)
        shapes |= {output.shape for output in outputs}
    return shapes


def _down(model: Model, shapes: set[tuple[int, ...]]) -> int:
    """How many pixels a side each answer of a segmentation stands for, by the shapes of its outputs.

    Raises E_MODEL_OUTPUT where that is no whole number.
    """
    size = model.card.input
    n, rows, columns = shapes.pop()
    down = size.height // max(1, int(rows))
    if shapes or n != 1 or (rows * down, columns * down) != (size.height, size.width):
        text = f"answers of {columns} × {rows} for {size.width} × {size.height} px: each must stand for as many pixels, in both maps"
        raise ConfigError("E_MODEL_OUTPUT", text, file=str(model.path))
    return down


def _check_contract(session: ort.InferenceSession, card: Card, where: str) -> None:
    """Inputs and outputs by name, type and shape. Raises E_MODEL_INPUT, E_MODEL_OUTPUT."""
    size = (card.input.height, card.input.width, card.input.channels)
    inputs = session.get_inputs()
    shown = "; ".join(f"{x.name} {x.type} {x.shape}" for x in inputs) or "none"
    if len(inputs) != 1 or inputs[0].name != "pictures" or inputs[0].type != "tensor(uint8)" or tuple(inputs[0].shape[1:]) != size:
        raise ConfigError("E_MODEL_INPUT", f"found {shown}; needed pictures tensor(uint8) [N, {size[0]}, {size[1]}, {size[2]}]", file=where)
    if isinstance(inputs[0].shape[0], int) and inputs[0].shape[0] != 1:
        raise ConfigError("E_MODEL_INPUT", f"found {shown}; N is free or 1", file=where)
    outputs = [(x.name, x.type, len(x.shape)) for x in session.get_outputs()]
    if outputs != list(OUTPUTS[card.task]):
        raise ConfigError("E_MODEL_OUTPUT", f"found {outputs}; a {card.task} model gives {list(OUTPUTS[card.task])}", file=where)
    last = session.get_outputs()[0].shape[-1]
    if card.task in ("classification", "compare") and isinstance(last, int) and last != len(card.classes):
        raise ConfigError("E_MODEL_OUTPUT", f"{last} scores for {len(card.classes)} classes", file=where)
