"""What takes all memory, never ends or crashes does so in a process of its own, and is refused by name."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.neural import model as models
from inspector.records import ConfigError, ConfigErrors
from inspector.workshop import apart
from tests.neural import nets

ABOUT = Path("x.onnx")


def add(a: int, b: int) -> int:
    return a + b


def refuse() -> None:
    raise ConfigError("E_MODEL_HASH", "not this one", file="y.onnx")


def refuse_twice() -> None:
    raise ConfigErrors([ConfigError("E_A", "one", key="a"), ConfigError("E_B", "two", key="b")])


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def never_end() -> None:
    while True:
        pass


def wait_for_ever() -> None:
    signal.pause()


def take_all() -> int:
    return len(bytearray(1 << 44))


def test_a_result_and_a_refusal_come_back() -> None:
    assert apart.run(add, 2, 3, about=ABOUT) == 5
    with pytest.raises(ConfigError, match=r"E_MODEL_HASH y\.onnx: not this one"):
        apart.run(refuse, about=ABOUT)
    with pytest.raises(ConfigErrors, match=r"E_A: a: one\nE_B: b: two"):
        apart.run(refuse_twice, about=ABOUT)


def test_what_does_not_behave_is_named() -> None:
    for act, code in ((crash, "E_MODEL_PROOF"), (take_all, "E_MODEL_MEMORY")):
        with pytest.raises(ConfigError) as caught:
            apart.run(act, about=ABOUT)
        assert caught.value.code == code
    with pytest.raises(ConfigError, match="E_MODEL_TIMEOUT"):
        apart.run(never_end, about=ABOUT, cpu_s=1)
    with pytest.raises(ConfigError, match="E_MODEL_TIMEOUT"):
        apart.run(wait_for_ever, about=ABOUT, longest_s=0.5)


def four_tebibytes(folder: Path) -> Path:
    """A classifier of a few hundred bytes that expands one number to 2⁴⁰ of them."""
    nodes = [
        helper.make_node("Expand", ["one", "shape"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["total"], keepdims=0),
        helper.make_node("Cast", ["pictures"], ["seen"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["seen"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "total"], ["product"]),
        helper.make_node("Reshape", ["product", "flat"], ["column"]),
        helper.make_node("Concat", ["column", "column"], ["scores"], axis=1),
    ]
    constants = {"one": np.zeros(1, np.float32), "shape": np.array([1 << 40], np.int64), "flat": np.array([-1, 1], np.int64)}
    data = nets._model(nodes, constants, (16, 16, 1), {"scores": (TensorProto.FLOAT, ["n", 2])})
    said = nets.card("classification", ["dark", "bright"], 16, data)
    return nets.write(folder / "bomb.onnx", data, said, np.zeros((16, 16), np.uint8), [0.0, 0.0])


def test_a_model_that_wants_four_tebibytes_is_refused_and_the_process_goes_on(tmp_path: Path) -> None:
    import resource

    path = four_tebibytes(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(ConfigError, match="E_MODEL_MEMORY"):
        models.load(path)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    done = CliRunner().invoke(application(), ["model", "verify", str(path), str(nets.classifier(tmp_path)), "--json"])
    assert done.exit_code == 78
    assert [line.count('"ok": true') for line in done.stdout.splitlines()] == [0, 1]
    assert "E_MODEL_MEMORY" in done.stdout
