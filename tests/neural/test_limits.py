from __future__ import annotations

import threading

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from inspector.neural import limits


def endless() -> ort.InferenceSession:
    """A network that counts to 2^62."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["x", "x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["times", "yes", "in"], ["out"], body=body)],
        "endless",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])],
        [helper.make_tensor("times", TensorProto.INT64, [], [1 << 62]), helper.make_tensor("yes", TensorProto.BOOL, [], [True])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_a_network_that_does_not_end_is_ended_and_another_run_is_not() -> None:
    session, watched = endless(), threading.Event()

    def watch() -> None:
        while not watched.wait(0.02):
            limits.end_older(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(2):  # the session is as good as before
            with pytest.raises(TimeoutError, match="was ended after"):
                limits.run(lambda options: session.run(None, {"in": np.ones(1, np.float32)}, options))
        assert limits.run(lambda _: 3) == 3
    finally:
        watched.set()
        watcher.join()
    assert limits.end_older(0.0) is None


def test_what_fails_by_itself_is_no_timeout() -> None:
    def fails(_: object) -> None:
        raise ValueError("shape")

    with pytest.raises(ValueError, match="shape"):
        limits.run(fails)
