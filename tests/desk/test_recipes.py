"""The page knows the recipes that the daemon has taken since it was started."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from inspector import config as settings_of
from inspector.desk.acts import Acts
from inspector.desk.audit import Audit
from inspector.desk.recipes import Recipes
from inspector.desk.trial import Trial
from inspector.records import ConfigError
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


def test_what_cannot_be_read_leaves_what_is_known(line: Path) -> None:
    config = settings_of.read(line)
    recipes = Recipes(config, line)
    in_force.keep(config.state_dir, "recipes: [")
    recipes.look()
    assert (list(recipes.contours), recipes.changes, recipes.config) == (["plate"], 0, config)
