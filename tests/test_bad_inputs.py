"""Files that people bring, wrong in every way that the table of bad inputs knows (I22 to I28, I31, I32, I36, I37): exit code 78 and a text.

Each row goes the whole way through the command line. The texts are compared to `golden/bad_inputs.txt` (`INSPECTOR_ACCEPT=1` writes it);
none is a traceback, and the worst of them stay small in a process of their own.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from inspector import __main__ as command_line
from inspector.workshop import matching  # noqa: F401  loaded here, so that no row pays for it
from tests.contracts import REPOSITORY
from tests.neural import nets

GOLDEN = Path(__file__).parent / "golden" / "bad_inputs.txt"
LARGEST_RSS_KIB = 512 << 10

HEAD = """\
version: 1
site: plant-a
line: line1
station: station1
cameras: [{id: top, recipe: part, source: {kind: simulated_lines}}]
recipes:
  part:
"""
WITH_MODEL = HEAD + "    checks:\n      class: {kind: classify, model: net.onnx, accept: [bright]}\n"
WITH_DRAWING = HEAD + "    template: {drawing: part.dxf}\n    checks:\n      outline: {kind: outline}\n"


# --- models ------------------------------------------------------------------------------------------------------------


def edited(change: Callable[[onnx.ModelProto], object]) -> bytes:
    """The network of the tests after a change."""
    made = onnx.load_from_string(nets.brightness())
    change(made)
    return bytes(made.SerializeToString())


def external(location: str) -> Callable[[onnx.ModelProto], object]:
    def change(made: onnx.ModelProto) -> None:
        tensor = numpy_helper.from_array(np.zeros(4, np.float32), "far_away")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location
        made.graph.initializer.append(tensor)

    return change


def node(operator: str, domain: str = "") -> Callable[[onnx.ModelProto], object]:
    return lambda made: made.graph.node.append(helper.make_node(operator, ["pictures"], ["unused"], domain=domain))


def huge(made: onnx.ModelProto) -> None:
    """A constant of 4 TiB that a few bytes describe."""
    made.graph.initializer.append(numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "sides"))
    made.graph.node.insert(0, helper.make_node("ConstantOfShape", ["sides"], ["expanded"]))
    made.graph.node.insert(1, helper.make_node("ReduceMean", ["expanded"], ["small"], keepdims=0))
    for each in made.graph.node:
        if each.op_type == "Mul":
            each.input[1] = "small"


def two_inputs(made: onnx.ModelProto) -> None:
    made.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def float_input(made: onnx.ModelProto) -> None:
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def opset(made: onnx.ModelProto) -> None:
    made.opset_import[0].version = 999


MODELS: dict[str, Callable[[], bytes | None]] = {
    "I22 model missing": lambda: None,
    "I22 model empty": lambda: b"",
    "I22 model is text": lambda: b"this is a text and no model\n" * 40,
    "I22 model cut short": lambda: nets.brightness()[:-9],
    "I23 external data above": lambda: edited(external("../weights.bin")),
    "I23 external data absolute": lambda: edited(external("/etc/passwd")),
    "I23 external data beside": lambda: edited(external("weights.bin")),
    "I25 unknown operator": lambda: edited(lambda made: setattr(made.graph.node[0], "op_type", "Frobnicate")),
    "I25 unknown domain": lambda: edited(node("Relu", "com.example")),
    "I25 opset too new": lambda: edited(opset),
    "I26 two inputs": lambda: edited(two_inputs),
    "I26 float input": lambda: edited(float_input),
    "I26 another size": lambda: nets.brightness(24),
    "I26 another name": lambda: nets.brightness().replace(b"pictures", b"portrait"),
    "I27 three scores for two classes": lambda: nets.brightness(scores=3),
    "I28 loop": lambda: edited(node("Loop")),
    "I28 4 TiB": lambda: edited(huge),
}


def model_row(folder: Path, data: bytes | None) -> list[str]:
    """Settings that name a model with this content, with a card that says that it is the right one."""
    nets.classifier(folder, name="net.onnx")
    (folder / "net.onnx").unlink()
    if data is not None:
        (folder / "net.onnx").write_bytes(data)
        said = nets.card("classification", ["dark", "bright"], 16, data)
        nets.write(folder / "net.onnx", data, said, np.full((16, 16), 51, np.uint8), [0.8, 0.2])
    (folder / "line.yaml").write_text(WITH_MODEL)
    return ["check", str(folder / "line.yaml")]


# --- drawings ----------------------------------------------------------------------------------------------------------


def tags(*pairs: tuple[int, object]) -> str:
    return "".join(f"{code}\n{value}\n" for code, value in pairs)


def line(x0: object, y0: object, x1: object, y1: object) -> str:
    return tags((0, "LINE"), (8, "CUT"), (5, "2F"), (10, x0), (20, y0), (11, x1), (21, y1))


def drawing(entities: str, *, blocks: str = "", units: int = 4, end: str = "0\nENDSEC\n0\nEOF\n") -> bytes:
    """A DXF file of the oldest kind."""
    head = tags((0, "SECTION"), (2, "HEADER"), (9, "$ACADVER"), (1, "AC1009"), (9, "$INSUNITS"), (70, units), (0, "ENDSEC"))
    if blocks:
        head += tags((0, "SECTION"), (2, "BLOCKS")) + blocks + tags((0, "ENDSEC"))
    return (head + tags((0, "SECTION"), (2, "ENTITIES")) + entities + end).encode()


def block(name: str, content: str) -> str:
    return tags((0, "BLOCK"), (8, "0"), (2, name), (70, 0), (10, 0), (20, 0), (3, name)) + content + tags((0, "ENDBLK"), (8, "0"))


def insert(name: str, x: float = 0, columns: int = 1, rows: int = 1) -> str:
    return tags((0, "INSERT"), (8, "0"), (2, name), (10, x), (20, 0), (70, columns), (71, rows), (44, 1), (45, 1))


SQUARE = line(0, 0, 10, 0) + line(10, 0, 10, 10) + line(10, 10, 0, 10) + line(0, 10, 0, 0)


def nested(levels: int = 8, copies: int = 16) -> str:
    blocks = block("B0", SQUARE)
    for level in range(1, levels):
        blocks += block(f"B{level}", "".join(insert(f"B{level - 1}", 20 * i) for i in range(copies)))
    return blocks


DRAWINGS: dict[str, Callable[[], bytes | None]] = {
    "I36 missing": lambda: None,
    "I36 empty": lambda: b"",
    "I36 no drawing": lambda: b"hello\n" * 100,
    "I36 DWG renamed": lambda: b"AC1027" + bytes(200),
    "I36 nothing to cut": lambda: drawing(""),
    "I36 nested blocks": lambda: drawing(insert("B7"), blocks=nested()),
    "I36 array of 32767 × 32767": lambda: drawing(insert("B0", 0, 32767, 32767), blocks=block("B0", SQUARE)),
    "I36 block in itself": lambda: drawing(insert("A"), blocks=block("A", SQUARE + insert("A"))),
    "I36 coordinates NaN": lambda: drawing(SQUARE + line("nan", 0, 5, 5)),
    "I36 coordinates 1e300": lambda: drawing(SQUARE + line(1e300, 0, 5, 5)),
    "I36 open contour": lambda: drawing(line(0, 0, 10, 0) + line(10, 0, 10, 10) + line(10, 10, 0, 10)),
    "I36 cut within the entities": lambda: drawing(SQUARE, end=""),
    "I36 no units": lambda: drawing(SQUARE, units=0),
}


def drawing_row(folder: Path, data: bytes | None) -> list[str]:
    """Settings that name a drawing with this content."""
    folder.mkdir(parents=True, exist_ok=True)
    if data is not None:
        (folder / "part.dxf").write_bytes(data)
    (folder / "line.yaml").write_text(WITH_DRAWING)
    return ["check", str(folder / "line.yaml")]


# --- calibrations ------------------------------------------------------------------------------------------------------

CALIBRATION = """\
version: 1
camera: top
method: board
shape_px: [1024, 1280]
mm_per_px: 0.125
camera_matrix: [[2000.0, 0.0, 640.0], [0.0, 2000.0, 512.0], [0.0, 0.0, 1.0]]
homography: [0.125, 0.0, 0.0, 0.0, 0.125, 0.0, 0.0, 0.0, 1.0]
rms_px: 0.1
taken_utc_ns: 1700000000000000000
"""


def calibration(old: str, new: str) -> Callable[[], bytes]:
    """A calibration with one line changed."""
    assert old in CALIBRATION
    return lambda: CALIBRATION.replace(old, new).encode()


CALIBRATIONS: dict[str, Callable[[], bytes | None]] = {
    "I37 missing": lambda: None,
    "I37 no YAML": lambda: b"a: [",
    "I37 scale 0": calibration("mm_per_px: 0.125", "mm_per_px: 0.0"),
    "I37 scale negative": calibration("mm_per_px: 0.125", "mm_per_px: -0.125"),
    "I37 scale NaN": calibration("mm_per_px: 0.125", "mm_per_px: .nan"),
    "I37 camera matrix": calibration("[[2000.0, 0.0", "[[-2000.0, 0.0"),
    "I37 singular": calibration("[0.125, 0.0, 0.0, 0.0, 0.125,", "[0.125, 0.0, 0.0, 0.0, 0.0,"),
    "I37 unknown key": calibration("rms_px: 0.1", "rms_px: 0.1\nrms: 3"),
    "I37 too old": calibration("rms_px: 0.1", "rms_px: 0.1\nmax_age_days: 30.0"),
}


def calibration_row(folder: Path, data: bytes | None) -> list[str]:
    """Settings that name a calibration with this content."""
    drawing_row(folder, drawing(SQUARE))
    if data is not None:
        (folder / "camera.yaml").write_bytes(data)
    (folder / "line.yaml").write_text(WITH_DRAWING.replace("part.dxf}", "part.dxf, calibration: camera.yaml}"))
    return ["check", str(folder / "line.yaml")]


# --- pictures ----------------------------------------------------------------------------------------------------------


def png(width: int, height: int, *, rows: int | None = None) -> bytes:
    """A black PNG of 8 bits that says this size and has so many rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(width + 1)) for _ in range(height if rows is None else rows)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def encoded(kind: str, depth: type[np.generic] = np.uint8) -> bytes:
    picture = np.random.default_rng(1).integers(0, 255, (64, 64)).astype(depth)
    return bytes(cv2.imencode(kind, picture)[1])


PICTURES: dict[str, Callable[[], bytes | None]] = {
    "I31 PNG of 30000 × 30000": lambda: png(30_000, 30_000, rows=8),
    "I32 missing": lambda: None,
    "I32 empty": lambda: b"",
    "I32 40000 × 1": lambda: png(40_000, 1),
    "I32 no rows": lambda: png(8, 0),
    "I32 PNG cut short": lambda: encoded(".png")[:2000],
    "I32 JPEG cut short": lambda: encoded(".jpg")[:600],
    "I32 PNG with too few rows": lambda: png(64, 64, rows=10),
    "I32 SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "I32 text named PNG": lambda: b"no picture",
    "I32 GIF named PNG": lambda: b"GIF89a" + bytes(40),
    "I32 16 bits": lambda: encoded(".png", np.uint16),
}


def picture_row(folder: Path, data: bytes | None) -> list[str]:
    """A picture with this content, to be looked at for a part."""
    folder.mkdir(parents=True, exist_ok=True)
    if data is not None:
        (folder / "seen.png").write_bytes(data)
    return ["match", str(REPOSITORY / "dxf_templates" / "plate.dxf"), str(folder / "seen.png"), "--mm-per-px", "1.5"]


# --- the rows ----------------------------------------------------------------------------------------------------------

TABLES = ((model_row, MODELS), (drawing_row, DRAWINGS), (calibration_row, CALIBRATIONS), (picture_row, PICTURES))


def arguments(row: str, folder: Path) -> list[str]:
    """The files of a row, written, and the command line that meets them."""
    ((write, made),) = [(write, table[row]) for write, table in TABLES if row in table]
    return write(folder, made())


def refusal(given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says when it refuses these arguments."""
    monkeypatch.setattr(sys, "argv", ["inspector", *given])
    code = command_line._run()
    said = capsys.readouterr()
    assert code == 78, said
    assert "Traceback" not in said.err
    assert said.err.startswith("E_")
    return said.err


def test_texts_of_the_refusals_are_the_golden_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for number, row in enumerate(row for _, table in TABLES for row in table):
        folder = tmp_path / str(number)
        text = refusal(arguments(row, folder), monkeypatch, capsys)
        text = text.replace(str(folder), "configs").replace(str(REPOSITORY), "repository")
        words = "ONNX Runtime refuses it|the model fails|it wants more than 4 GiB"  # what follows changes with its version
        text = re.sub(rf"({words}): .*", r"\1: …", text)
        text = re.sub(r"[0-9.]+ days old", "… days old", text)
        said += [f"# {row}", *(line for line in text.splitlines() if not line.endswith("the configuration is refused")), ""]
    found = "\n".join(said)
    if os.environ.get("INSPECTOR_ACCEPT"):
        GOLDEN.write_text(found)
    assert found == GOLDEN.read_text()


@pytest.mark.real
@pytest.mark.parametrize("row", ["I28 4 TiB", "I36 nested blocks", "I36 array of 32767 × 32767", "I31 PNG of 30000 × 30000"])
def test_the_worst_stay_small(row: str, tmp_path: Path) -> None:
    # A child's high-water mark begins with its parent's at the fork, and pytest may be large by now: a small process in between.
    script = "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
    script += "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    command = [sys.executable, "-c", script, sys.executable, "-m", "inspector", *arguments(row, tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    code, most_kib = map(int, said.stdout.split()[-2:])
    assert code == 78, said.stderr
    assert "Traceback" not in said.stderr
    assert most_kib < LARGEST_RSS_KIB
