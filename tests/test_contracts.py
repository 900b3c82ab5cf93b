"""Every kind that is found in a folder keeps the folder's contract (see `contracts`); a new kind is tried without a word here."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from inspector import config
from inspector.geometry import coverage, dxf, locate, raster, template
from inspector.records import ConfigError, DeviceError, Plan, Pose
from tests import contracts
from tests.contracts import Belt

SIZE = (480, 640)


def of(folder: str) -> list[str]:
    return [kind for where, kind in contracts.kinds() if where == folder]


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    return contracts.sandbox_in(tmp_path)


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A part of our own, and how it is found."""
    drawing = dxf.read(sorted((contracts.REPOSITORY / "dxf_templates").glob("*.dxf"))[0])
    made = template.build(drawing)
    locator = locate.compile(made, scale_px_per_mm=_scale(made.sdf_mm.shape, made.mm_per_px))
    return Plan("camera", made, locator, None, (), raster=True)


def _scale(shape: tuple[int, ...], mm_per_px: float) -> float:
    """The part's raster fills two thirds of the picture."""
    return 0.66 * min(SIZE[0] / shape[0], SIZE[1] / shape[1]) / mm_per_px


def pictures(plan: Plan) -> list[NDArray[np.uint8]]:
    """The part three times, dark before a light, turned and shifted."""
    made = plan.template
    assert made is not None
    found: list[NDArray[np.uint8]] = []
    scale = _scale(made.sdf_mm.shape, made.mm_per_px)
    points_mm = np.concatenate([c.points_mm for c in made.contours])
    centre = (points_mm.min(axis=0) + points_mm.max(axis=0)) / 2
    for angle, (dx, dy) in ((0.1, (0.0, 0.0)), (0.5, (7.3, -4.2)), (-0.2, (-5.6, 3.1))):
        turned = Pose(0.0, 0.0, angle, scale, 1.0, 0.0)
        u, v = raster.to_picture(centre[None, :], turned)[0]
        pose = Pose(SIZE[1] / 2 + dx - u, SIZE[0] / 2 + dy - v, angle, scale, 1.0, 0.0)
        share = coverage.coverage([raster.to_picture(c.points_mm, pose) for c in made.contours], SIZE)
        grey = cv2.GaussianBlur(200.0 - 150.0 * share, (0, 0), 0.8)
        noise = np.random.default_rng(len(found)).normal(0, 2, SIZE)
        found.append(np.clip(grey + noise, 0, 255).astype(np.uint8))
    return found


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", of("sources"))
def test_source(kind: str, sandbox: Path) -> None:
    settings = contracts.settings("sources", kind, sandbox)
    belt = Belt()
    belt.start(time.monotonic_ns())
    try:
        source = config.plugin("sources", kind).build(settings, "top", time.monotonic_ns, belt)
    except DeviceError as error:
        pytest.skip(f"the device of the example is not here: {error}")
    except ConfigError as error:
        if error.code != "E_EXTRA":
            raise
        pytest.skip(f"the library of the source is not here: {error}")
    given = contracts.keeps_source(source, "top")
    assert given > 0, "the source gave no picture and said no reason"


@pytest.mark.parametrize("kind", of("conveyor"))
def test_conveyor(kind: str, sandbox: Path) -> None:
    settings = contracts.settings("conveyor", kind, sandbox)
    try:
        contracts.keeps_conveyor(config.plugin("conveyor", kind).build(settings, "belt"))
    except DeviceError as error:
        pytest.skip(f"the device of the example is not here: {error}")


@pytest.mark.parametrize("kind", of("checks"))
def test_check(kind: str, sandbox: Path, plan: Plan) -> None:
    module = config.plugin("checks", kind)
    settings = contracts.settings("checks", kind, sandbox)
    check = module.build(settings, "name", plan)
    views = list(contracts.views_of(plan, pictures(plan), raster=module.NEEDS_RASTER))
    contracts.provide(settings, views)
    contracts.keeps_check(check, "name", views)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", of("bridges"))
def test_bridge(kind: str, sandbox: Path) -> None:
    settings = contracts.settings("bridges", kind, sandbox)
    try:
        contracts.keeps_bridge(config.plugin("bridges", kind).build(settings, "name"))
    except ConfigError as error:
        if error.code != "E_EXTRA":
            raise
        pytest.skip(f"the library of the bridge is not here: {error}")


def test_there_are_kinds() -> None:
    found = {folder for folder, _ in contracts.kinds()}
    assert {"sources", "conveyor", "checks"} <= found
