"""The page knows the recipes that the daemon has taken since it was started."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from inspector import config as settings_of
from inspector.desk.acts import Acts
from inspector.desk.audit import Audit
from inspector.desk.recipes import Recipes, View
from inspector.desk.trial import Trial
from inspector.geometry import calibrate
from inspector.records import Calibration, ConfigError
from inspector.runtime import in_force
from tests.desk.events import png

DRAWINGS = Path(__file__).parents[2] / "dxf_templates"

TEXT = """\
version: 1
site: site
line: line
station: station
state_dir: state
cameras:
  - {id: cam0, recipe: plate, source: {kind: replay, folder: pictures}}
recipes:
  plate: {template: {drawing: plate.dxf, scale_px_per_mm: 8}, checks: {outline: {kind: outline}}}
"""
MORE = "  spare: {template: {drawing: gear.dxf, scale_px_per_mm: 8}, checks: {outline: {kind: outline}}}\n"


@pytest.fixture
def line(tmp_path: Path) -> Path:
    for name in ("plate", "gear"):
        shutil.copy(DRAWINGS / f"{name}.dxf", tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(png())
    (tmp_path / "state").mkdir()
    path = tmp_path / "line.yaml"
    path.write_text(TEXT)
    return path


def test_what_the_daemon_takes_later_is_drawn_tried_and_selected(line: Path) -> None:
    config = settings_of.read(line)
    recipes = Recipes(config, line)
    acts, trial = Acts(recipes, Audit(config.state_dir / "desk")), Trial(recipes, clock=time.monotonic_ns)
    recipes.look()
    assert (list(recipes.contours), recipes.changes) == (["plate"], 0)
    with pytest.raises(ConfigError, match="no such recipe"):
        acts.check("switch", "spare", None)
    in_force.keep(config.state_dir, TEXT + MORE)
    recipes.look()
    assert (list(recipes.contours), recipes.changes) == (["plate", "spare"], 1)
    assert acts.check("switch", "spare", None)["recipe"] == "spare"
    assert [choice.text for choice in trial.choices()] == ["recipe plate", "recipe spare"]
    assert trial.run(trial.choices()[1], png()).part is not None
    recipes.look()
    assert recipes.changes == 1


def test_each_camera_has_its_own_drawing_and_calibration(line: Path) -> None:
    known = Calibration("cam0", 0.1, None, None, 0.0, 1_800_000_000 * 10**9, (480, 640))
    calibrate.write(known, line.parent / "cam0.yaml", "by hand")
    side = "{template: {drawing: gear.dxf, calibration: %s}, checks: {outline: {kind: outline}}}"
    own = f"cameras: {{cam1: {side % 'cam0.yaml'}, cam2: {side % 'gone.yaml'}, cam3: {{checks: {{outline: {{kind: outline}}}}}}}}"
    cameras = "".join(f"  - {{id: cam{i}, lane: {i}, recipe: plate, source: {{kind: replay, folder: pictures}}}}\n" for i in (1, 2, 3))
    text = TEXT.replace("recipes:\n", f"{cameras}recipes:\n").replace("}}}\n", f"}}}}, {own}}}\n")
    line.write_text(text)
    (line.parent / "gone.yaml").write_text("version: 2\n")
    recipes = Recipes(settings_of.read(line), line)
    others, first = recipes.view("plate", "cam0"), recipes.view("plate", "cam1")
    assert others == View(recipes.contours["plate"])
    assert first.calibration == known
    assert len(first.contours) != len(others.contours)
    assert recipes.view("plate", "cam2") == recipes.view("plate", "cam3") == recipes.view("gear", "cam0") == View()


def test_what_cannot_be_read_leaves_what_is_known(line: Path) -> None:
    config = settings_of.read(line)
    recipes = Recipes(config, line)
    in_force.keep(config.state_dir, "recipes: [")
    recipes.look()
    assert (list(recipes.contours), recipes.changes, recipes.config) == (["plate"], 0, config)
