"""Compiled templates kept on the disk: a drawing of a thousand holes is ready in a tenth of the time the second time.

A file is an `.npz` without pickles: the arrays, and JSON that says which of a fixed list of classes they make up. Its name is a digest of
what it was made from (drawing, side file, settings), of this package's own code and of the libraries' versions: what another version kept
is never taken. A digest over the whole content stands inside; a file that does not hold it, that others may write to, or that is no such
file is made anew, with a line in the log. Files are replaced whole, and those used longest ago go first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inspector.geometry import coarse, gauge, measure, oblique, runs, shape, spin, twins
from inspector.geometry.locate import Locator
from inspector.records import Contour, Distance, Template

MOST_BYTES = 1 << 29
_SPOILT = (
    *(OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, RuntimeError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)
_KNOWN = {
    each.__name__: each
    for each in (
        Template, Contour, Distance, Locator, coarse.Directions, coarse.Silhouette, gauge.Grid, gauge.Holes, measure.Scaled,
        oblique.Whitened, runs.Runs, shape.Profiles, shape.Rows, shape.Samples, shape.Shape, spin.Spin, twins.Twins,
    )
}  # fmt: skip
_NOT_KEPT: dict[str, Any] = {"_blurred": {}, "_rings": []}  # what is only needed while compiling, and large


def kept(folder: Path, made_of: Callable[[], str], make: Callable[[], tuple[Template, Locator]]) -> tuple[Template, Locator]:
    """What `make` makes of what the digest `made_of` stands for: read from the folder where it lies there, else made and kept there.

    Nothing is kept where the digest is another one after making than before. A folder that cannot be written to costs a line in the log.
    """
    before = made_of()
    file = folder / f"{hashlib.sha256(f'{before} {_version()}'.encode()).hexdigest()}.npz"
    try:
        found = _read(file)
    except FileNotFoundError:
        found = None
    except _SPOILT as error:
        logging.getLogger(__name__).warning("%s is not taken (%s): the template is compiled anew", file, error)
        found = None
    if found is not None:
        return found
    made = make()
    try:
        if made_of() == before:
            _write(file, made)
    except OSError as error:
        logging.getLogger(__name__).warning("%s is not kept: %s", file, error)
    return made


def user_folder() -> Path:
    """Where commands keep what can be made anew: `$XDG_CACHE_HOME/inspector/templates`, `~/.cache/…` without it."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if Path(named).is_absolute() else Path.home() / ".cache") / "inspector" / "templates"


@cache
def _version() -> str:
    """A digest of the code that compiles templates and reads them."""
    here = Path(__file__).parent
    code = hashlib.sha256(f"{np.__version__} {cv2.__version__} {version('ezdxf')}".encode())
    for file in sorted([*here.glob("*.py"), here.parent / "records.py"]):
        code.update(file.read_bytes())
    return code.hexdigest()


def _write(file: Path, made: tuple[Template, Locator]) -> None:
    packing = _Packing()
    root = packing.pack(made)
    text = json.dumps({"root": root, "objects": packing.objects}).encode()
    arrays = {"text": np.frombuffer(text, np.uint8)} | {f"a{i}": array for i, array in enumerate(packing.arrays)}
    held = io.BytesIO()
    np.savez(held, allow_pickle=False, digest=np.frombuffer(_digest(text, packing.arrays), np.uint8), **arrays)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    number, temporary = tempfile.mkstemp(dir=file.parent, suffix=".part")  # 0600
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(held.getbuffer())
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    left = MOST_BYTES
    for _, size, each in sorted(((s.st_mtime_ns, s.st_size, e) for e in file.parent.glob("*.npz") for s in (e.stat(),)), reverse=True):
        left -= size
        if left < 0 and each != file:
            each.unlink(missing_ok=True)


def _read(file: Path) -> tuple[Template, Locator]:
    with file.open("rb") as stream:
        status = os.fstat(stream.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise ValueError("others can write to it")
        with np.load(stream, allow_pickle=False) as data:
            text = data["text"].tobytes()
            arrays = [data[f"a{i}"] for i in range(len(data.files) - 2)]
            if data["digest"].tobytes() != _digest(text, arrays):
                raise ValueError("its content is not what was written")
    for array in arrays:
        array.setflags(write=False)
    os.utime(file)
    said = json.loads(text)
    template, locator = _unpacked(said["root"], said["objects"], arrays, {})
    return template, locator


def _digest(text: bytes, arrays: Sequence[np.ndarray[Any, Any]]) -> bytes:
    whole = hashlib.sha256(text)
    for array in arrays:
        whole.update(f"{array.dtype.str} {array.shape}".encode())
        whole.update(np.ascontiguousarray(array).data if array.size else b"")
    return whole.digest()


class _Packing:
    """Objects and arrays, each once, however often they are referred to."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray[Any, Any]] = []
        self.objects: list[Any] = []
        self._seen: dict[int, Any] = {}

    def pack(self, value: Any) -> Any:
        """The value as JSON: plain ones as they are, others as a list of what they are and where or what it is."""
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, tuple | list):
            return ["tuple" if isinstance(value, tuple) else "list", [self.pack(each) for each in value]]
        if isinstance(value, dict):
            return ["dict", [[self.pack(key), self.pack(each)] for key, each in value.items()]]
        if id(value) not in self._seen:
            self._seen[id(value)] = self._packed(value)
        return self._seen[id(value)]

    def _packed(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            self.arrays.append(value)
            return ["array", len(self.arrays) - 1]
        if _KNOWN.get(type(value).__name__) is not type(value):
            raise TypeError(f"{type(value).__name__} is nothing that a template is made of")
        names = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else list(vars(value))
        state = {name: self.pack(_NOT_KEPT.get(name, getattr(value, name))) for name in names}
        self.objects.append([type(value).__name__, state])
        return ["object", len(self.objects) - 1]


def _unpacked(said: Any, objects: Sequence[Any], arrays: Sequence[Any], made: dict[int, Any]) -> Any:
    if not isinstance(said, list):
        return said
    kind, what = said
    if kind == "array":
        return arrays[what]
    if kind == "object":
        if what not in made:
            name, state = objects[what]
            made[what] = object.__new__(_KNOWN[name])
            for key, value in state.items():
                object.__setattr__(made[what], key, _unpacked(value, objects, arrays, made))
        return made[what]
    if kind == "dict":
        return {_unpacked(key, objects, arrays, made): _unpacked(value, objects, arrays, made) for key, value in what}
    values = [_unpacked(each, objects, arrays, made) for each in what]
    return tuple(values) if kind == "tuple" else values
