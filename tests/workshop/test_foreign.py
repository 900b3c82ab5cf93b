"""A foreign float model answers after wrapping as it did before, and what cannot be wrapped is refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner, Result

from inspector.__main__ import application
from inspector.neural import model as models
from inspector.records import ConfigError
from inspector.workshop import foreign
from tests.neural import nets

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def convolved(
    path: Path, outputs: int, *, sides: tuple[int | str, int | str] = (32, 48), step: int = 1, pooled: bool = False, opset: int = 17
) -> Path:
    """Float (1, 3, H, W) → a convolution with weights at random → (1, outputs, H/step, W/step), or (1, outputs, 1, 1) when pooled."""
    random = np.random.default_rng(7)
    weight = numpy_helper.from_array(random.normal(size=(outputs, 3, 3, 3)).astype(np.float32), "weight")
    nodes = [helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1, 1, 1, 1], strides=[step, step])]
    shape: list[int | str] = [1, outputs, *(side // step if isinstance(side, int) else f"{side}_out" for side in sides)]
    if pooled:
        nodes.append(helper.make_node("GlobalAveragePool", ["y"], ["z"]))
        shape = [1, outputs, 1, 1]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *sides])
    y = helper.make_tensor_value_info("z" if pooled else "y", TensorProto.FLOAT, shape)
    made = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], [weight]), opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )
    path.write_bytes(made.SerializeToString())
    return path


@pytest.mark.parametrize(("outputs", "classes", "step"), [(2, ("pit",), 1), (1, ("pit",), 1), (4, ("a", "b", "c"), 4)])
def test_a_segmenter_answers_as_before(tmp_path: Path, outputs: int, classes: tuple[str, ...], step: int) -> None:
    path = convolved(tmp_path / "theirs.onnx", outputs, step=step)
    model = foreign.wrap(foreign.Foreign(path, "segmentation", classes, mean=MEAN, std=STD), tmp_path / "ours.onnx")
    image = np.random.default_rng(1).integers(0, 256, (1, 32, 48, 3), np.uint8)
    class_map, score_map = model.run(image)
    x = ((image[..., ::-1] / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    logits = models.session_of(path.read_bytes(), "x").run(None, {"x": x})[0].astype(np.float64)
    if outputs == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    shares = shares.repeat(step, axis=2).repeat(step, axis=3)
    assert np.abs(score_map / 255.0 - (1 - shares[:, 0])).max() <= 0.5 / 255 + 1e-3
    assert (class_map == shares.argmax(axis=1)).mean() > 0.999


def test_a_pooled_classifier_with_dynamic_sides(tmp_path: Path) -> None:
    path = convolved(tmp_path / "theirs.onnx", 3, sides=("h", "w"), pooled=True)
    model = foreign.wrap(foreign.Foreign(path, "classification", ("a", "b", "c"), (40, 40), mean=MEAN, std=STD), tmp_path / "ours.onnx")
    assert (model.card.input.height, model.card.input.width, model.card.input.channels) == (40, 40, 3)
    (scores,) = model.run(np.zeros((2, 40, 40, 3), np.uint8)[:1])
    assert scores.sum() == pytest.approx(1.0, abs=1e-5)


def test_the_command_wraps_and_verifies(tmp_path: Path) -> None:
    path = convolved(tmp_path / "theirs.onnx", 2)
    run = CliRunner()
    ours = str(tmp_path / "ours.onnx")
    done = run.invoke(application(), ["model", "import", str(path), "--task", "segmentation", "--classes", "pit", "--out", ours])
    assert done.exit_code == 0, done.output
    assert run.invoke(application(), ["model", "verify", ours]).exit_code == 0


def changed(path: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    """The model in the file after the change."""
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def renamed(model: onnx.ModelProto) -> None:
    """Input, weights and output have names of the contract."""
    names = {"x": "pictures", "weight": "score_map", "y": "class_map"}
    graph = model.graph
    for each in (*graph.input, *graph.output, *graph.initializer):
        each.name = names[each.name]
    graph.node[0].input[:] = [names[name] for name in graph.node[0].input]
    graph.node[0].output[:] = ["class_map"]


def freed(model: onnx.ModelProto) -> None:
    """The output says nothing of its shape."""
    for number, dim in enumerate(model.graph.output[0].type.tensor_type.shape.dim):
        dim.dim_param = f"d{number}"


def after_its_classes(model: onnx.ModelProto) -> None:
    """The first output is the number of the class, the second one what it comes from."""
    model.graph.node.append(helper.make_node("ArgMax", ["y"], ["best"], axis=1))
    logits = model.graph.output.pop()
    model.graph.output.extend([helper.make_tensor_value_info("best", TensorProto.INT64, [1, 1, 32, 48]), logits])


def in_a_branch(model: onnx.ModelProto) -> None:
    """The convolution is in a branch, and takes the weights from outside it."""
    graph = model.graph
    inner = helper.make_graph([graph.node.pop()], "inner", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    other = onnx.GraphProto()
    other.CopyFrom(inner)
    graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    graph.node.append(helper.make_node("If", ["always"], ["z"], then_branch=inner, else_branch=other))
    graph.output[0].name = "z"


@pytest.mark.parametrize("change", [renamed, freed, after_its_classes, in_a_branch])
def test_whatever_its_names_shapes_and_outputs_are(tmp_path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    plain = foreign.wrap(foreign.Foreign(convolved(tmp_path / "a.onnx", 2), "segmentation", ("pit",)), tmp_path / "plain.onnx")
    other = changed(convolved(tmp_path / "b.onnx", 2), change)
    model = foreign.wrap(foreign.Foreign(other, "segmentation", ("pit",)), tmp_path / "ours.onnx")
    image = np.random.default_rng(1).integers(0, 256, (1, 32, 48, 3), np.uint8)
    for found, expected in zip(model.run(image), plain.run(image), strict=True):
        np.testing.assert_array_equal(found, expected)


def imported(path: Path, out: Path, *more: str) -> Result:
    """What the command makes of a segmentation model."""
    command = ["model", "import", str(path), "--task", "segmentation", "--out", str(out), *more]
    return CliRunner().invoke(application(), command if "--classes" in more else [*command, "--classes", "pit"])


def test_what_the_command_is_given_wrong_is_named(tmp_path: Path) -> None:
    path, out = convolved(tmp_path / "theirs.onnx", 2), tmp_path / "ours.onnx"
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "file").write_text("")
    for done, code, words in (
        (imported(path, out, "--classes", "a,a,c"), "E_LABELS", ["--classes", "'a'"]),
        (imported(path, out, "--proof", str(tmp_path / "small.png")), "E_MODEL_PROOF", ["small.png", "30 × 20", "48 × 32"]),
        (imported(path, tmp_path / "my model.onnx"), "E_MODEL_NAME", ["my model.onnx", "A-Z"]),
        (imported(path, tmp_path / "file/ours.onnx"), "E_MODEL_OUT", ["--out", "file"]),
    ):
        assert isinstance(done.exception, ConfigError)
        assert done.exception.code == code
        assert all(word in str(done.exception) for word in words), str(done.exception)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"classes": ("a", "b")}, "E_MODEL_OUTPUT"),
        ({"size_px": (64, 64)}, "E_MODEL_INPUT"),
        ({"mean": (0.5, 0.5)}, "E_MODEL_INPUT"),
        ({"std": (0.0,)}, "E_MODEL_INPUT"),
        ({"layout": "nhwc"}, "E_MODEL_INPUT"),
        ({"task": "classification"}, "E_MODEL_OUTPUT"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, given: dict[str, object], code: str) -> None:
    path = convolved(tmp_path / "theirs.onnx", 2)
    wish = foreign.Foreign(**{"path": path, "task": "segmentation", "classes": ("pit",), **given})  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        foreign.wrap(wish, tmp_path / "ours.onnx")
    assert caught.value.code == code


def test_what_is_no_float_model_or_reaches_outside_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs.onnx"
    wish = foreign.Foreign(path, "segmentation", ("pit",))
    for content, code in ((nets.brightness(), "E_MODEL_INPUT"), (b"text", "E_MODEL_PARSE")):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=code):
            foreign.wrap(wish, tmp_path / "ours.onnx")
    old = onnx.load(convolved(path, 2, opset=11))
    old.graph.node.append(helper.make_node("NoSuchOperator", ["y"], ["z"]))
    path.write_bytes(old.SerializeToString())
    with pytest.raises(ConfigError, match="E_MODEL_OP"):
        foreign.wrap(wish, tmp_path / "ours.onnx")
    several = onnx.load(convolved(path, 2))
    several.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    path.write_bytes(several.SerializeToString())
    with pytest.raises(ConfigError, match=r"E_MODEL_INPUT .*4 pictures at a time; allowed: 1"):
        foreign.wrap(wish, tmp_path / "ours.onnx")
    made = onnx.load(convolved(path, 2))
    onnx.save(made, path, save_as_external_data=True, size_threshold=0, location="weights.bin")
    with pytest.raises(ConfigError, match="E_MODEL_EXTERNAL"):
        foreign.wrap(wish, tmp_path / "ours.onnx")


def halved(path: Path) -> None:
    """Input, weights and answers of 16 bits."""
    made = onnx.load(path)
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    weight = made.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    path.write_bytes(made.SerializeToString())


@pytest.mark.parametrize("half", [False, True])
def test_an_old_opset_is_raised_and_halves_are_cast(tmp_path: Path, half: bool) -> None:
    """Squeeze took its axes otherwise in opset 11."""
    path = convolved(tmp_path / "theirs.onnx", 2, opset=17 if half else 11)
    if half:
        halved(path)
    else:
        made = onnx.load(path)
        made.graph.node[0].output[0] = "conv"
        made.graph.node.append(helper.make_node("Unsqueeze", ["conv"], ["more"], axes=[0]))
        made.graph.node.append(helper.make_node("Squeeze", ["more"], ["y"], axes=[0]))
        path.write_bytes(made.SerializeToString())
    model = foreign.wrap(foreign.Foreign(path, "segmentation", ("pit",), mean=MEAN, std=STD), tmp_path / "ours.onnx")
    assert len(model.card.proof) == 2


def test_one_of_several_outputs_is_taken_by_its_name(tmp_path: Path) -> None:
    path = convolved(tmp_path / "theirs.onnx", 2)
    made = onnx.load(path)
    made.graph.node.append(helper.make_node("Neg", ["y"], ["aux"]))
    made.graph.output.append(helper.make_tensor_value_info("aux", TensorProto.FLOAT, [1, 2, 32, 48]))
    path.write_bytes(made.SerializeToString())

    def found(**given: str) -> models.Model:
        return foreign.wrap(foreign.Foreign(path, "segmentation", ("pit",), **given), tmp_path / "ours.onnx")  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=r"E_MODEL_OUTPUT .*--output: 2 float outputs; one can be wrapped; there are y, aux"):
        found()
    with pytest.raises(ConfigError, match=r"no float output 'z'; there are y, aux"):
        found(output="z")
    image = np.random.default_rng(1).integers(0, 256, (1, 32, 48, 3), np.uint8)
    main, other = (found(output=name).run(image)[0] for name in ("y", "aux"))
    assert (main != other).mean() > 0.9
    made.graph.node[0].output[0] = made.graph.node[1].input[0] = made.graph.output[0].name = "out"
    path.write_bytes(made.SerializeToString())
    np.testing.assert_array_equal(found().run(image)[0], main)


def exported(path: Path, network: object, size: int, *, dynamic: bool = False) -> Path:
    """As PyTorch writes it: float NCHW in, logits out."""
    torch = pytest.importorskip("torch")
    axes = {"image": {0: "n", 2: "h", 3: "w"}, "logits": {0: "n", 2: "h", 3: "w"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, size, size),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes=axes,
        )
    return path


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_deeplab_on_resnet101_as_pytorch_writes_it(tmp_path: Path, dynamic: bool) -> None:
    torch = pytest.importorskip("torch")
    from inspector.workshop import networks

    torch.manual_seed(0)
    network = torch.nn.Sequential(networks.DeepLabV3Plus(3, 1), torch.nn.Upsample(scale_factor=4, mode="bilinear")).eval()
    with torch.no_grad():  # batch statistics as after some training, so that answers differ from place to place
        network[0].decode[-1].weight.mul_(30)
        network.train()
        network(torch.randn(2, 3, 256, 256))
        network.eval()
    path = exported(tmp_path / "deeplab.onnx", network, 256, dynamic=dynamic)
    norm = ["--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD)), "--out", str(tmp_path / "ours.onnx")]
    command = ["model", "import", str(path), "--task", "segmentation", "--classes", "pitting", "--size", "256x256", *norm]
    done = CliRunner().invoke(application(), command)
    assert done.exit_code == 0, done.output
    image = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (256, 256, 3), np.uint8), (0, 0), 3)
    class_map, score_map = models.load(tmp_path / "ours.onnx").run(np.asarray(image, np.uint8)[None])
    x = ((image[None, ..., ::-1] / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        shares = torch.softmax(network(torch.from_numpy(x)), dim=1).numpy()
    assert shares[:, 1].std() > 1e-3
    assert np.abs(score_map / 255.0 - shares[:, 1]).max() <= 0.5 / 255 + 1e-3
    sure = np.abs(shares[:, 1] - 0.5) > 1e-3
    assert ((class_map == 1) == (shares[:, 1] > 0.5))[sure].all()


def test_a_cnn_as_pytorch_writes_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from inspector.workshop import networks

    torch.manual_seed(0)
    network = networks.CNN(3, 4, 16).eval()
    path = exported(tmp_path / "cnn.onnx", network, 64)
    model = foreign.wrap(foreign.Foreign(path, "classification", ("a", "b", "c", "d"), mean=MEAN, std=STD), tmp_path / "ours.onnx")
    image = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), np.uint8)
    x = ((image[..., ::-1] / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        shares = torch.softmax(network(torch.from_numpy(x)), dim=1).numpy()
    assert np.abs(model.run(image)[0] - shares).max() <= 1e-3
