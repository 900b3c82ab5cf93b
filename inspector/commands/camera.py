"""`inspector camera`: what an integrator needs to set a camera up, before there is a line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from inspector.interfaces import Conveyor, Source
    from inspector.records import Image, Stamp
    from inspector.sources._genicam import Found

BRIGHT_GREY = 230.0
"""Where tuning puts the brightest hundredth of a picture: as light as it gets without losing anything."""
CLOSE_ENOUGH = 0.05
LARGEST_STEP = 8.0
MOST_ROUNDS = 8
SETTLING = 2
TEXT = (str, str | None, Path, Path | None)

Words = Annotated[
    list[str],
    typer.Argument(metavar="CONFIG CAMERA | KIND KEY=VALUE...", help="A camera of a configuration, or a kind with its settings."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@dataclass(slots=True)
class Chosen:
    """The camera that is meant: its kind, its settings, and the belt under it."""

    name: str
    kind: str
    module: Any
    settings: Any
    given: dict[str, Any]
    conveyor: Conveyor

    def built(self) -> Source:
        """The source, open."""
        from inspector import config

        source: Source = config.built(self.module, self.settings, self.name, time.monotonic_ns, self.conveyor)
        return source


@dataclass(frozen=True, slots=True)
class Figures:
    """What a picture shows, in the words of the daemon's own metrics; `bright_grey` is where its brightest hundredth begins."""

    exposure_grey: float
    contrast_grey: float
    focus_ratio: float
    saturated_ratio: float
    bright_grey: float


def figures(image: Image) -> Figures:
    """Of a picture, uint8 (H, W) or (H, W, 3)."""
    import numpy as np

    from inspector.runtime.quality import ROWS, look

    grey = image if image.ndim == 2 else image[..., 1]
    rows = np.ascontiguousarray(grey[:: max(1, grey.shape[0] // ROWS)])
    sample = np.ascontiguousarray(rows[:, ::2])
    seen = look(rows, sample)
    return Figures(*(round(float(value), 4) for value in (*seen, np.percentile(sample, 99))))


def better_exposure_us(exposure_us: float, bright_grey: float) -> float:
    """The exposure that should bring the brightest hundredth to `BRIGHT_GREY`; where that is lost in white, a third of it to begin with."""
    if bright_grey >= 253:
        return exposure_us / 3
    return exposure_us * min(LARGEST_STEP, BRIGHT_GREY / max(1.0, bright_grey))


def _chosen(words: list[str]) -> Chosen:
    import yaml

    from inspector import config
    from inspector.conveyor.timed import Timed
    from inspector.records import ConfigError

    first, *rest = words
    if Path(first).suffix in (".yaml", ".yml"):
        found = config.read(Path(first))
        camera = next((camera for camera in found.cameras if camera.id == (rest or [""])[0]), None)
        if camera is None:
            known = ", ".join(camera.id for camera in found.cameras)
            raise ConfigError("E_CFG_UNKNOWN", f"no camera {(rest or [''])[0]!r}; there is {known}", file=first, key="cameras")
        if rest[1:]:
            raise typer.BadParameter(f"{' '.join(rest[1:])}: a camera of a configuration has its settings there; allowed: CONFIG CAMERA")
        module = config.plugin("sources", camera.source.kind)
        settings = config.settings_of("sources", camera.source, module.Settings)
        conveyor = config.build("conveyor", found.conveyor, "conveyor")
        conveyor.start(time.monotonic_ns())
        return Chosen(camera.id, camera.source.kind, module, settings, dict(camera.source.model_extra or {}), conveyor)
    module = config.plugin("sources", first)
    given: dict[str, Any] = {}
    for word in rest:
        key, equals, value = word.partition("=")
        if not equals:
            raise typer.BadParameter(f"{word!r} is not KEY=VALUE")
        if key in given:
            raise typer.BadParameter(f"{key} is given twice; allowed: once")
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"{word!r}: {value!r} is no YAML value") from error
        field = module.Settings.model_fields.get(key)
        if field is not None and field.annotation in TEXT and not isinstance(given[key], str):
            given[key] = value  # a serial number of digits is no number, and keeps its zeros
    settings = config.settings_of("sources", config.Kind.model_validate({"kind": first, **given}), module.Settings)
    return Chosen("camera", first, module, settings, given, Timed(1000.0, time.monotonic_ns()))


def _list(as_json: AsJson = False) -> None:
    """List the cameras that answer now, of every kind that can look for its own, and say which libraries are missing.

    Example: inspector camera list
    """
    from inspector.records import ConfigError, DeviceError

    found = 0
    for kind, looking in _looking():
        try:
            devices = looking()
        except (ConfigError, DeviceError) as error:
            typer.echo(json.dumps({"kind": kind, "missing": str(error)}) if as_json else f"{kind}: {error}")
            continue
        for device in devices:
            found += 1
            line = f"{kind}: {device.vendor} {device.model} {device.serial} at {device.address or '-'}"
            source = _yaml({"kind": kind, **device.select})
            typer.echo(json.dumps(asdict(device)) if as_json else f"{line}    source: {source}")
    if not found and not as_json:
        typer.echo("no camera answers")


def _looking() -> Iterator[tuple[str, Callable[[], list[Found]]]]:
    """For each kind that can look for its cameras how that is done; for foreign producers one by one, each in a process of its own."""
    from inspector import config
    from inspector.commands import _producer
    from inspector.records import ConfigError

    for kind in config.known_kinds("sources"):
        module = config.plugin("sources", kind)
        if hasattr(module, "devices"):
            yield kind, module.devices
        elif hasattr(module, "producers"):
            try:
                yield from [(kind, partial(_producer.devices, producer)) for producer in module.producers()]
            except ConfigError as error:
                yield kind, partial(_raise, error)


def _raise(error: Exception) -> NoReturn:
    raise error


def _yaml(source: dict[str, Any]) -> str:
    """A mapping on one line, as YAML reads it, without anybody's password."""
    import yaml

    from inspector.records import without_login

    text: str = yaml.safe_dump(source, default_flow_style=True, sort_keys=False, width=10_000)
    return without_login(text.strip())


def _show(
    words: Words,
    only: Annotated[str, typer.Option(metavar="TEXT", help="Only features whose name or category has this in it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show a camera's features, their values and what they may be; nothing is set. Other cameras show a picture's figures.

    Example: inspector camera show aravis serial=22345678 --only Exposure

    Example: inspector camera show configs/line.example.yaml top
    """
    from inspector.config.document import nearest
    from inspector.records import ConfigError

    chosen = _chosen(words)
    if not hasattr(chosen.module, "features"):
        with _pictures(chosen, 10.0) as shots:
            for stamp, image in shots:
                seen = {"shape": list(stamp.shape), **asdict(figures(image))}
                typer.echo(json.dumps(seen) if as_json else "  ".join(f"{key} {value}" for key, value in seen.items()))
                return
        _nothing(chosen)
    category, features = "", chosen.module.features(chosen.settings)
    shown = [feature for feature in features if only.lower() in f"{feature.category} {feature.name}".lower()]
    if not shown:
        near = nearest(only, [feature.name for feature in features])
        raise ConfigError("E_CAM_FEATURE", f"none of {len(features)} features has {only!r} in its name or category{near}", key="--only")
    for feature in shown:
        if as_json:
            typer.echo(json.dumps(asdict(feature)))
            continue
        if feature.category != category:
            category = feature.category
            typer.echo(f"{category}:")
        allowed = f"  [{feature.allowed}]" if feature.allowed else ""
        typer.echo(f"  {feature.name}: {feature.value} {feature.unit}".rstrip() + allowed + (" (command)" * (feature.kind == "command")))


@contextmanager
def _pictures(chosen: Chosen, longest_s: float) -> Iterator[Iterator[tuple[Stamp, Image]]]:
    """The exposures as they come, damaged ones too, for so long or until there are no more; the picture is good until the next one."""
    import numpy as np

    from inspector.interfaces import EndOfPictures

    source = chosen.built()
    into = np.empty(source.max_bytes, np.uint8)
    until_s = time.monotonic() + longest_s

    def shots() -> Iterator[tuple[Stamp, Image]]:
        with suppress(EndOfPictures):
            while time.monotonic() < until_s:
                stamp = source.read(into, 0.2)
                if stamp is not None:
                    yield stamp, into[: int(np.prod(stamp.shape))].reshape(stamp.shape)

    try:
        yield shots()
    finally:
        source.close()


def _nothing(chosen: Chosen) -> NoReturn:
    from inspector.records import DeviceError

    raise DeviceError(f"{chosen.kind} {_yaml(chosen.given)}: no picture came; a camera that waits for its trigger needs one")


def _grab(
    words: Words,
    out: Annotated[Path, typer.Option(help="The folder for the pictures (PNG).")],
    count: Annotated[int, typer.Option(min=1, help="So many pictures.")] = 10,
    longest_s: Annotated[float, typer.Option("--for", min=0.1, help="Give up after so many seconds.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Keep some pictures, with what they show (exposure, contrast, focus) and what was lost on the way.

    Example: inspector camera grab aravis address=192.168.10.21 exposure_us=800.0 --out out/grabbed --count 20

    Example: inspector camera grab configs/demo.yaml plate --out out/grabbed
    """
    from inspector.neural import pictures
    from inspector.workshop import places

    chosen = _chosen(words)
    kept = incomplete = lost = 0
    first_ns = last_ns = first_seq = last_seq = 0
    places.folder(out)
    with _pictures(chosen, longest_s) as shots:
        for stamp, image in shots:
            first_ns, last_ns, first_seq = first_ns or stamp.at_ns, stamp.at_ns, first_seq or stamp.seq
            lost += max(0, stamp.seq - last_seq - 1) if last_seq else 0
            last_seq = max(last_seq, stamp.seq)
            line: dict[str, Any] = {"seq": stamp.seq, "shape": list(stamp.shape), "complete": stamp.complete}
            if stamp.complete:
                path = out / f"{chosen.name}-{stamp.seq:06d}.png"
                pictures.write(path, image)
                line = {"file": str(path), **line, **asdict(figures(image))}
                kept += 1
            incomplete += not stamp.complete
            typer.echo(json.dumps(line) if as_json else "  ".join(f"{key} {value}" for key, value in line.items()))
            if kept == count:
                break
    if not kept:
        _nothing(chosen)
    rate_hz = (last_seq - first_seq) / ((last_ns - first_ns) / 1e9) if last_ns > first_ns else None
    account = {"kept": kept, "lost": lost, "incomplete": incomplete, "rate_hz": None if rate_hz is None else round(rate_hz, 3)}
    typer.echo(json.dumps(account) if as_json else "  ".join(f"{key} {value}" for key, value in account.items()))


def _tune(
    words: Words,
    longest_us: Annotated[float, typer.Option(min=1, help="No longer exposure than this: 1 px of motion, or less.")] = 20_000.0,
    focus_s: Annotated[float, typer.Option("--focus", min=0, help="Then show the focus for so many seconds, to turn the lens by.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Find the exposure, show the focus while somebody turns the lens, and print the YAML to paste.

    The exposure is the one that brings the brightest hundredth of the picture to grey 230: lay the brightest part under the camera.

    Example: inspector camera tune aravis serial=22345678 exposure_us=1000.0 --longest-us 800
    """
    from rich.console import Console

    from inspector.records import without_login

    console = Console(stderr=as_json, highlight=False)

    def say(line: dict[str, Any]) -> None:
        typer.echo(json.dumps(line)) if as_json else console.print("  ".join(f"{key} {value}" for key, value in line.items()))

    chosen = _chosen(words)
    advice = (
        _expose(chosen, longest_us, say)
        if hasattr(chosen.settings, "exposure_us")
        else "this kind of camera has no exposure_us: set its light"
    )
    best = 0.0
    if focus_s:
        with _pictures(chosen, focus_s) as shots:
            said_s = 0.0
            for stamp, image in shots:
                if not stamp.complete or time.monotonic() - said_s < 0.25:
                    continue
                said_s, seen = time.monotonic(), figures(image)
                best = max(best, seen.focus_ratio)
                bar = "█" * round(40 * seen.focus_ratio / best) if best else ""
                say({"focus_ratio": seen.focus_ratio, "best": best} | ({} if as_json else {"": bar}))
    source = {"kind": chosen.kind, **chosen.given}
    if as_json:
        typer.echo(without_login(json.dumps({"source": source, "advice": advice, "best_focus_ratio": best})))
    else:
        typer.echo(f"{advice}\nsource: {_yaml(source)}")


def _expose(chosen: Chosen, longest_us: float, say: Callable[[dict[str, Any]], None]) -> str:
    """Set the exposure round by round; the camera is opened anew each time, as the daemon does it. Returns what is to be said."""
    exposure_us = chosen.settings.exposure_us or min(longest_us, 1_000.0)
    for _ in range(MOST_ROUNDS):
        chosen.given["exposure_us"] = exposure_us = round(min(exposure_us, longest_us), 1)
        chosen.settings = chosen.settings.model_copy(update={"exposure_us": exposure_us})
        with _pictures(chosen, 15.0) as shots:
            seen = next((figures(image) for n, (stamp, image) in enumerate(shots) if stamp.complete and n >= SETTLING), None)
        if seen is None:
            _nothing(chosen)
        say({"exposure_us": exposure_us, **asdict(seen)})
        better_us = better_exposure_us(exposure_us, seen.bright_grey)
        if abs(better_us / exposure_us - 1) <= CLOSE_ENOUGH:
            return f"exposure {exposure_us:g} µs is good"
        if better_us > longest_us <= exposure_us:
            step = better_us / exposure_us
            at_least = "at least " if step == LARGEST_STEP else ""
            return f"too dark at {longest_us:g} µs by a factor of {at_least}{step:.1f}: more light, a wider aperture, or gain"
        exposure_us = better_us
    return f"the exposure does not settle: something flickers, or the camera does not do what it is told; last {exposure_us:g} µs"


def add(app: typer.Typer) -> None:
    """Register the group."""
    group = typer.Typer(help="Find cameras, show and try them, set them up.", no_args_is_help=True)
    group.command("list")(_list)
    group.command("show")(_show)
    group.command("grab")(_grab)
    group.command("tune")(_tune)
    app.add_typer(group, name="camera")
