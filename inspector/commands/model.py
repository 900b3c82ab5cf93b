"""`inspector train`, `evaluate`, `predict` and `inspector model …`: from data to a network that the line can trust."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from inspector.records import ConfigError

if TYPE_CHECKING:
    from inspector.neural.model import Model

Trainable = Literal["segmentation", "classification", "compare", "anomaly"]


def add(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(train)
    app.command()(evaluate)
    app.command()(predict)
    app.command()(quantise)
    app.command()(label)
    group = typer.Typer(help="Models: import, verify and list them.", no_args_is_help=True)
    group.command("import")(import_model)
    group.command()(verify)
    group.command()(tune)
    group.command("list")(list_models)
    app.add_typer(group, name="model")


def train(
    task: Annotated[Trainable, typer.Argument(help="What the network is to do.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The folder with the data set (plain folders, see README).")],
    out: Annotated[Path, typer.Option(help="The model's file, x.onnx; its card and pictures lie beside it.")],
    arch: Annotated[str | None, typer.Option(help="unet (default), deeplabv3plus-resnet101 or glance; cnn.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.05, help="How long; the schedule is laid out to fit.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Exactly so many steps: with the same seed the same bytes.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Split, weights and order of the pictures.")] = 0,
    test: Annotated[Path | None, typer.Option(help="Another set of the same kind; its figures go on the card.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Published weights of ResNet-101 for deeplabv3plus-resnet101.")] = None,
    against: Annotated[Path | None, typer.Option(help="A segmentation model; its false detections are shown more often.")] = None,
    size: Annotated[int | None, typer.Option(min=16, max=2048, help="Side of the network's input in pixels, a multiple of 16.")] = None,
    width: Annotated[int | None, typer.Option(min=8, max=256, help="Channels of the first stage, a multiple of 8.")] = None,
    licence: Annotated[str, typer.Option(help="The licence that the card states for the weights.")] = "unknown",
    about: Annotated[str, typer.Option(help="What the card says of the data; the folder's name when not given.")] = "",
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads of the training.")] = 2,
    false_rejects: Annotated[
        float | None, typer.Option(min=1e-4, max=0.5, help="anomaly: the ratio of good parts that may be rejected, 0.01 when not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with the card at the end.")] = False,
) -> None:
    """Train a network on a folder of data and write it as a model with its card. What was stopped goes on when called again.

    Example: inspector train segmentation pictures/raster --out models/surface.onnx --minutes 10
    """
    if minutes is not None and steps is not None:
        raise typer.BadParameter("--minutes and --steps: one of them", param_hint="--steps")
    if out.suffix != ".onnx":
        raise typer.BadParameter(f"{str(out)!r}; the name of a model ends in .onnx", param_hint="--out")
    if false_rejects is not None and task != "anomaly":
        raise typer.BadParameter(f"{false_rejects:g} is of no use to {task}; allowed for anomaly", param_hint="--false-rejects")
    workshop = _workshop({"compare": "train_compare", "anomaly": "train_anomaly"}.get(task, "train"))
    from inspector.workshop import places
    from inspector.workshop.fit import Schedule

    order = _workshop("train").Order(
        data, out, Schedule(seed, steps, minutes), arch, test, weights, against, size, width, licence, about, threads, false_rejects or 0.01
    )
    with places.written(out):
        model: Model = getattr(workshop, task)(order, lambda text: typer.echo(text, err=True))
    _say(model, as_json)


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model, x.onnx.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A data set of the model's kind that it has not seen.")],
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a page with the figures and the worst cases there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with every figure.")] = False,
) -> None:
    """Measure a model on a data set: figures with 95 % intervals, and the time of a picture on one thread.

    Of a segmentation, mask_miou and mask_iou_CLASS are of the masks that inspector predict writes, at the card's thresholds; miou and
    iou_CLASS are of each pixel's likeliest class, whatever the thresholds.

    Example: inspector evaluate models/surface.onnx test/raster --report seen
    """
    import json

    from inspector.neural import model as models
    from inspector.workshop import evaluate as workshop
    from inspector.workshop import places
    from inspector.workshop import report as page

    loaded = models.load(model)
    if report is not None:
        places.folder(report, "--report")
    seen, figures = workshop.measure(loaded, data)
    if report is not None:
        typer.echo(str(page.write(report, loaded, seen, figures)), err=True)
    if as_json:
        typer.echo(json.dumps({"model": str(model), "data": str(data), "task": loaded.card.task, **figures}))
        return
    say_figures(figures)


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model, x.onnx.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures.")],
    out: Annotated[Path, typer.Option(help="Where masks and overlays go.")],
    reference: Annotated[list[Path] | None, typer.Option(help="For a model that compares: one for all, or one for each picture.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each picture.")] = False,
) -> None:
    """Show what a model sees in pictures: classes, boxes, masks, and overlays to look at.

    Example: inspector predict models/surface.onnx part.png --out seen --json
    """
    import json

    from inspector.neural import model as models
    from inspector.workshop import predict as workshop

    for found in workshop.predict(models.load(model), images, reference or [], out):
        if as_json:
            typer.echo(json.dumps(found))
        else:
            best = found["classes"][0]
            typer.echo(f"{found['image']}: {best['name']} {best['score']:.2f}, {len(found['boxes'])} boxes, {found['overlay']}")


def quantise(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The FP32 model, x.onnx; x.int8.onnx is written beside it.")],
    data: Annotated[Path, typer.Option(help="A data set of its kind; half sets the ranges, the other half measures.")],
    seed: Annotated[int, typer.Option(min=0, help="Which half.")] = 0,
    reduce_range: Annotated[bool | None, typer.Option(help="7-bit weights, safe on every CPU; by this CPU when not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with quality and speed of both.")] = False,
) -> None:
    """Make the INT8 twin of a model, and measure on this machine whether it is worth having.

    Example: inspector quantise models/surface.onnx --data test/raster
    """
    import json

    from inspector.workshop import places

    with places.written(model, "MODEL"):
        report = _workshop("quantise").quantise(model, data, seed=seed, reduce_range=reduce_range)
    if as_json:
        typer.echo(json.dumps(report))
        return
    for name in ("fp32", "int8"):
        typer.echo(
            f"{name}: {report['measure']} {report[name]['quality']:.4f}, {report[name]['ms']:.3f} ms, {report[name]['bytes'] / 1e6:.2f} MB"
        )
    typer.echo(f"{report['model']}: " + ("recommended" if report["recommended"] else f"not recommended, {report['why']}"))


def label(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="A folder of photographs, or one.")],
    out: Annotated[Path, typer.Option(help="Where masks/, cut/ and sheet.png go.")],
    method: Annotated[Literal["canny", "grabcut", "mirror", "model", "combined"], typer.Option(help="How the part is found.")] = "combined",
    model: Annotated[Path | None, typer.Option(help="A segmentation model, for model and combined.")] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Rough boxes around what is meant: STEM.txt with x1 y1 x2 y2 class, or masks STEM.png."),
    ] = None,
    truth: Annotated[Path | None, typer.Option(metavar="MASKS", help="True masks STEM.png: says the IoU with them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each photograph; with --truth a last one for all.")] = False,
) -> None:
    """Draw first masks of parts in photographs, cut the parts out with alpha, and show all on one sheet.

    With boxes, what is in them is marked, such as a defect. Example: inspector label photos --out labelled --method combined
    """
    import json

    from inspector.neural import model as models
    from inspector.neural import pictures
    from inspector.workshop import label as workshop

    files = [images] if images.is_file() else sorted(p for p in images.glob("*") if p.suffix.lower() in pictures.SUFFIXES)
    if not files:
        raise ConfigError("E_DATA_EMPTY", "no pictures here", file=str(images))
    loaded = None if model is None else models.load(model, task="segmentation")
    ious, empty = [], []
    for made in workshop.label(files, out, method, loaded, workshop.Hints(boxes, truth)):
        ious += [made["iou"]] if "iou" in made else []
        empty += [] if made["share"] else [Path(made["image"]).name]
        against = f", IoU {made['iou']:.3f}" if "iou" in made else ""
        typer.echo(json.dumps(made) if as_json else f"{made['image']}: {made['share']:.1%} of the picture, {made['mask']}{against}")
    if ious:
        mean = workshop.mean_iou(ious)
        shown = f"mean IoU {mean['miou']:.3f} ({mean['interval'][0]:.3f} to {mean['interval'][1]:.3f}) of {mean['pictures']}"
        typer.echo(json.dumps({"method": method, **mean}) if as_json else shown)
    if empty:
        typer.echo(f"nothing found in {len(empty)} of {len(files)} pictures: {', '.join(empty)}", err=True)
    typer.echo(f"look at {out / 'sheet.png'}", err=True)


def import_model(
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="A float model of another maker.")],
    out: Annotated[Path, typer.Option(help="The wrapped model's file, x.onnx.")],
    task: Annotated[Literal["segmentation", "classification"], typer.Option(help="What it does.")],
    classes: Annotated[str, typer.Option(metavar="NAME,...", help="Its classes in order; for segmentation without the background.")],
    mean: Annotated[str, typer.Option(metavar="F[,F,F]", help="Of a colour's ratio 0 … 1; ImageNet's are 0.485,0.456,0.406.")] = "0",
    std: Annotated[str, typer.Option(metavar="F[,F,F]", help="Likewise; ImageNet's are 0.229,0.224,0.225.")] = "1",
    layout: Annotated[Literal["nchw", "nhwc"], typer.Option(help="Order of its input's dimensions.")] = "nchw",
    colours: Annotated[Literal["rgb", "bgr"], typer.Option(help="Order of its colours.")] = "rgb",
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Where its sides are dynamic.")] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Its answers went through a soft-max or sigmoid.")] = False,
    output: Annotated[str | None, typer.Option(metavar="NAME", help="Which float output; the only one, or out, when not given.")] = None,
    proof: Annotated[
        list[Path] | None, typer.Option(help="Pictures by which it is known again, in its size; made up when not given.")
    ] = None,
    licence: Annotated[str, typer.Option(help="The licence that the card states.")] = "unknown",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with the card.")] = False,
) -> None:
    """Wrap a foreign model into the contract, in a bounded process, and prove that it answers as before, to 1e-3 (of 16 bits: 1e-2).

    Example: inspector model import deeplab.onnx --task segmentation --classes pitting --size 256x256 --out models/pitting.onnx
    """
    from inspector.neural import model as models

    workshop, apart = _workshop("foreign"), _workshop("apart")
    sides = None
    if size is not None:
        width, cross, height = size.partition("x")
        if not (cross and width.isdecimal() and height.isdecimal()):
            raise typer.BadParameter(f"{size!r} is not WxH, such as 256x256", param_hint="--size")
        sides = (int(height), int(width))
    numbers = [_numbers(text, option) for text, option in ((mean, "--mean"), (std, "--std"))]
    names = tuple(name.strip() for name in classes.split(","))
    foreign = workshop.Foreign(
        file, task, names, sides, *numbers, layout, colours, probabilities, output, licence, f"imported from {file.name}"
    )
    apart.run(workshop.wrap_only, foreign, out, proof or [], about=file)
    _say(models.load(out), as_json)


def verify(
    files: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Models, x.onnx.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each model.")] = False,
) -> None:
    """Load models as the line does: structure, hash, contract and proof pictures on this machine. Says every error, not the first only.

    Each is loaded in a bounded process of its own: one that takes all memory or never ends is refused like any other.

    Example: inspector model verify models/*.onnx
    """
    import json

    from inspector.neural import model as models
    from inspector.workshop import apart

    refused = []
    for path in files:
        try:
            card = apart.run(models.proven_card, path, about=path)
        except ConfigError as error:
            refused.append(error)
            if as_json:
                typer.echo(json.dumps({"model": str(path), "ok": False, "code": error.code, "error": str(error)}))
            else:
                typer.echo(str(error), err=True)
            continue
        if as_json:
            typer.echo(json.dumps({"model": str(path), "ok": True, "task": card.task, "sha256": card.sha256}))
        else:
            typer.echo(f"{path}: {card.task} of {', '.join(card.classes)}; {len(card.proof)} proofs given")
    if refused:
        raise typer.Exit(78)


def tune(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model, x.onnx; x.tune.yaml is written beside it.")],
    threads: Annotated[list[int] | None, typer.Option(min=1, max=64, help="Try only so many threads; may be given again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with everything measured.")] = False,
) -> None:
    """Find the fastest engine for a model on this machine: provider, precision (with the twin of `inspector quantise`) and threads.

    What gives the model's proof pictures' answers and is fastest is taken from now on, on this machine only. The OpenVINO provider is
    there where the package onnxruntime-openvino stands in place of onnxruntime.

    Example: inspector model tune models/surface.onnx --threads 1
    """
    import json

    from inspector.workshop import places
    from inspector.workshop import tune as workshop

    with places.written(model, "MODEL"):
        found = workshop.tune(model, threads)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for row in found["measured"]:
        what = f"{row['ms']:.3f} ms, {row['cpu_ms']:.3f} of CPU" if row["ok"] else f"refused, {row['why']}"
        mark = "→" if {name: row[name] for name in found["engine"]} == found["engine"] else " "
        typer.echo(f"{mark} {row['provider']:9} {row['precision']} {row['threads']:2} threads: {what}")
    typer.echo(f"{found['file']}, for {found['machine']}")


def list_models(
    folder: Annotated[Path, typer.Argument(help="Where models lie.")] = Path("models"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each model.")] = False,
) -> None:
    """List the models of a folder by their cards, without loading them.

    Example: inspector model list models
    """
    import json

    from inspector.neural import model as models

    if not folder.is_dir():
        raise ConfigError("E_MODEL_OPEN", "no such folder", file=str(folder))
    for path in sorted(folder.glob("*.onnx")):
        card = models.read_card(path.with_suffix(".yaml"))
        if as_json:
            typer.echo(json.dumps({"model": str(path), **json.loads(card.model_dump_json(exclude={"proof"}))}))
        else:
            size = f"{card.input.width} × {card.input.height} × {card.input.channels}"
            typer.echo(f"{path}: {card.task}, {size}, {', '.join(card.classes)}; {path.stat().st_size / 1e6:.2f} MB; {card.licence}")


def _workshop(name: str) -> Any:
    """The workshop's module of that name; E_EXTRA_MISSING where PyTorch is not installed."""
    from importlib import import_module

    try:
        return import_module(f"inspector.workshop.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("torch", "onnx"):
            raise
        raise ConfigError("E_EXTRA_MISSING", f"{error.name} is not installed; pip install 'inspector[train]'") from error


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}; numbers with commas between", param_hint=option) from error


def say_figures(figures: dict[str, Any]) -> None:
    """A line for each figure, with its interval where it has one; a dash where it is not defined."""
    for name, value in figures.items():
        if isinstance(value, dict):
            typer.echo(f"{name:24} {_shown(value['value'])}  ({_shown(value['interval'][0])} to {_shown(value['interval'][1])})")
        else:
            typer.echo(f"{name:24} {value}")


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _say(model: Model, as_json: bool) -> None:
    """The model's card as JSON, or its figures as a line."""
    import json

    card = model.card
    if as_json:
        typer.echo(json.dumps({"model": str(model.path), **json.loads(card.model_dump_json(exclude={"proof"}))}))
        return
    held = card.metrics.get("held_out", {})
    shown = ", ".join(f"{name} {value}" for name, value in held.items() if isinstance(value, (int, float)))
    typer.echo(f"{model.path}: {card.task} of {', '.join(card.classes)}" + (f"; held out: {shown}" if shown else ""))
