"""A model loads only if it is the card's, whole, within its file, of the contract, and answers its proofs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from inspector.neural import model as models
from inspector.neural import onnxfile
from inspector.records import ConfigError
from tests.neural import nets


def refused(act: Callable[[], object]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        act()
    return caught.value


def test_a_model_of_the_contract_answers(tmp_path: Path) -> None:
    model = models.load(nets.segmenter(tmp_path))
    picture = np.full((1, 32, 32, 1), 128, np.uint8)
    picture[0, 3, 5] = 250
    class_map, score_map = model.run(picture)
    assert class_map.dtype == score_map.dtype == np.uint8
    assert np.argwhere(class_map[0]).tolist() == [[3, 5]]
    assert score_map[0, 3, 5] == 245
    assert model.name_and_hash == ("surface", model.card.sha256)


@pytest.mark.parametrize("any_size", [False, True])
def test_an_answer_may_stand_for_several_pixels(tmp_path: Path, any_size: bool) -> None:
    model = models.load(nets.segmenter(tmp_path, down=(4, 4), any_size=any_size))
    assert model.down == 4
    assert model.run(np.zeros((1, 32, 32, 1), np.uint8))[0].shape == (1, 8, 8)
    assert model.sized(48, 64).down == 4
    assert models.load(nets.segmenter(tmp_path)).down == 1


@pytest.mark.parametrize("down", [(4, 2), (2, 4)])
def test_an_answer_stands_for_a_square(tmp_path: Path, down: tuple[int, int]) -> None:
    path = nets.segmenter(tmp_path, down=down)
    assert refused(lambda: models.load(path)).code == "E_MODEL_OUTPUT"


def test_several_pictures_go_through_at_once(tmp_path: Path) -> None:
    model = models.load(nets.classifier(tmp_path))
    batch = np.stack([np.full((16, 16, 1), grey, np.uint8) for grey in (0, 255)])
    np.testing.assert_allclose(model.run(batch)[0], [[1, 0], [0, 1]], atol=1e-6)


def test_another_task_than_needed_is_refused(tmp_path: Path) -> None:
    path = nets.classifier(tmp_path)
    assert refused(lambda: models.load(path, task="segmentation")).code == "E_MODEL_TASK"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "E_MODEL_OPEN"),
        (b"", "E_MODEL_OPEN"),
        (b"this is a text and no model\n" * 40, "E_MODEL_PARSE"),
        (b"\x00" * 64, "E_MODEL_PARSE"),
        (nets.brightness()[:-9], "E_MODEL_PARSE"),
        (nets.brightness()[: len(nets.brightness()) // 2], "E_MODEL_PARSE"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes | None, code: str) -> None:
    path = nets.classifier(tmp_path)
    path.unlink() if content is None else path.write_bytes(content)
    error = refused(lambda: models.load(path))
    assert error.code == code
    assert str(path) in str(error)


def test_a_folder_in_place_of_a_model(tmp_path: Path) -> None:
    assert refused(lambda: models.load(tmp_path)).code == "E_MODEL_OPEN"


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/hostname"])
@pytest.mark.parametrize("place", ["initializer", "constant", "inner graph", "sparse"])
def test_a_tensor_outside_the_file_is_refused_before_the_runtime_sees_it(tmp_path: Path, location: str, place: str) -> None:
    made = onnx.load_from_string(nets.brightness())
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "far_away")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    if place == "initializer":
        made.graph.initializer.append(tensor)
    elif place == "constant":
        made.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))
    elif place == "sparse":
        made.graph.sparse_initializer.add().values.CopyFrom(tensor)
    else:
        inner = helper.make_graph([helper.make_node("Identity", ["far_away"], ["out"])], "inner", [], [], [tensor])
        made.graph.node.append(helper.make_node("If", ["pictures"], ["unused"], then_branch=inner, else_branch=inner))
    path = nets.classifier(tmp_path)
    path.write_bytes(made.SerializeToString())
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    error = refused(lambda: models.load(path))
    assert error.code == "E_MODEL_EXTERNAL"
    assert "far_away" in str(error)


def test_a_hard_link_does_not_help(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(16))
    os.link(secret, tmp_path / "weights.bin")
    test_a_tensor_outside_the_file_is_refused_before_the_runtime_sees_it(tmp_path / "m", "weights.bin", "initializer")


def test_loops_and_unknown_operators_are_refused() -> None:
    for operator, domain, code in (("Loop", "", "TIMEOUT"), ("Scan", "", "TIMEOUT"), ("Relu", "com.example", "OP")):
        made = onnx.load_from_string(nets.brightness())
        made.graph.node.append(helper.make_node(operator, ["pictures"], ["unused"], domain=domain))
        data = made.SerializeToString()
        error = refused(lambda data=data: onnxfile.inspect(data, "x.onnx"))  # type: ignore[misc]
        assert error.code == f"E_MODEL_{code}"
        assert operator in str(error)


def test_an_operator_that_nobody_knows(tmp_path: Path) -> None:
    made = onnx.load_from_string(nets.brightness())
    made.graph.node[0].op_type = "Frobnicate"
    error = refused(lambda: models.session_of(made.SerializeToString(), "x.onnx"))
    assert error.code == "E_MODEL_OP"


def test_the_hash_is_the_cards(tmp_path: Path) -> None:
    path = nets.classifier(tmp_path)
    path.write_bytes(nets.brightness(kind=TensorProto.FLOAT) + b"")
    models.load(path)
    made = onnx.load_from_string(path.read_bytes())
    made.producer_name = "somebody"
    path.write_bytes(made.SerializeToString())
    assert refused(lambda: models.load(path)).code == "E_MODEL_HASH"


def test_a_card_is_needed_and_read_strictly(tmp_path: Path) -> None:
    path = nets.classifier(tmp_path)
    card = path.with_suffix(".yaml")
    text = card.read_text()
    for bad, code in (
        (text.replace("classes:", "clases:"), "E_MODEL_CARD"),
        (text.replace("- dark", "- bright"), "E_LABELS"),
        (text.replace("- dark", '- "a\\u0007"'), "E_LABELS"),
        (text.replace("height: 16", "height: sixteen"), "E_MODEL_CARD"),
        (text + "\t- {", "E_MODEL_CARD"),
        ("a: &a [1]\nb: *a\n", "E_MODEL_CARD"),
        ("", "E_MODEL_CARD"),
        ("!!python/object:os.system {}", "E_MODEL_CARD"),
    ):
        card.write_text(bad)
        assert refused(lambda: models.load(path)).code == code
    card.unlink()
    assert refused(lambda: models.load(path)).code == "E_MODEL_CARD"


def test_inputs_and_outputs_keep_the_contract(tmp_path: Path) -> None:
    path = nets.classifier(tmp_path)
    for data, said, code in (
        (nets.brightness(24), nets.card("classification", ["dark", "bright"], 16, nets.brightness(24)), "E_MODEL_INPUT"),
        (nets.brightness(scores=3), nets.card("classification", ["dark", "bright"], 16, nets.brightness(scores=3)), "E_MODEL_OUTPUT"),
        (nets.brightness(), nets.card("segmentation", ["dark", "bright"], 16, nets.brightness()), "E_MODEL_OUTPUT"),
        (
            nets.brightness(kind=TensorProto.DOUBLE),
            nets.card("classification", ["dark", "bright"], 16, nets.brightness(kind=TensorProto.DOUBLE)),
            "E_MODEL_OUTPUT",
        ),
    ):
        nets.write(path, data, said, np.zeros((16, 16), np.uint8), [0.0, 1.0])
        assert refused(lambda: models.load(path)).code == code


def test_a_proof_that_fails_says_what_came(tmp_path: Path) -> None:
    data = nets.brightness()
    said = nets.card("classification", ["dark", "bright"], 16, data)
    path = nets.write(tmp_path / "x.onnx", data, said, np.full((16, 16), 51, np.uint8), [0.2, 0.8])
    error = refused(lambda: models.load(path))
    assert error.code == "E_MODEL_PROOF"
    assert "[0.800, 0.200]" in str(error)
    (tmp_path / "x.proof-0.png").unlink()
    assert refused(lambda: models.load(path)).code == "E_IMG_OPEN"


@given(st.binary(max_size=400))
def test_no_bytes_upset_the_walk(data: bytes) -> None:
    try:
        onnxfile.inspect(data, "x.onnx")
    except ConfigError as error:
        assert error.code.startswith("E_MODEL_")  # noqa: PT017 - most bytes are refused, some are a model


@given(st.data())
def test_no_flipped_byte_upsets_the_walk(data: st.DataObject) -> None:
    content = bytearray(nets.brightness())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        onnxfile.inspect(bytes(content), "x.onnx")
    except ConfigError as error:
        assert error.code.startswith("E_MODEL_")  # noqa: PT017 - as above
