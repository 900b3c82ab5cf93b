"""A recipe: everything that a verdict depends on is prepared, has one digest, and is refused as a whole with the lines that name it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from inspector import config, recipe
from inspector.__main__ import application
from inspector.commands import check
from inspector.config import Strict
from inspector.gate import security
from inspector.judge import judge
from inspector.records import ConfigError, ConfigErrors, Decision, Finding, Frame, Plan, Stamp, View
from tests.contracts import REPOSITORY
from tests.neural import nets
from tests.test_bad_inputs import CALIBRATION


class Settings(Strict):
    limit: float = Field(default=300.0, gt=0)
    model: Path | None = None
    threads: int = 1


class Brightness:
    """A check of its own: the mean grey of the picture."""

    models = (("net", "ab" * 32),)

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings, self.name = settings, name

    def __call__(self, views: Sequence[View]) -> list[tuple[Finding, ...]]:
        return [(Finding(self.name, "mean", float(v.image.mean()), 0, self.settings.limit, "grey"),) for v in views]


def build(settings: Settings, name: str, plan: Plan) -> Brightness:
    if settings.limit == 13:
        raise ConfigError("E_CFG_RANGE", "13 brings bad luck", key=f"{name}.limit")
    if settings.limit == 14 and settings.model is not None:
        settings.model.write_text("another one by now")
    return Brightness(settings, name)


@pytest.fixture(autouse=True)
def _brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    """One kind of check that needs no network, beside those that there are."""
    module: Any = SimpleNamespace(Settings=Settings, build=build, NEEDS_RASTER=True, __name__="brightness")
    known, plugin = config.known_kinds, config.plugin
    monkeypatch.setattr(config, "known_kinds", lambda folder: (*known(folder), "brightness"))
    for where in (config, recipe):
        monkeypatch.setattr(where, "plugin", lambda folder, kind: module if kind == "brightness" else plugin(folder, kind))


LINE = """\
version: 1
site: plant-a
line: line1
station: station1
cameras:
  - {id: top, lane: 0, recipe: plate, source: {kind: replay, files: [pictures]}}
  - {id: side, lane: 1, recipe: plate, source: {kind: replay, files: [pictures]}}
  - {id: end, lane: 2, recipe: bare, source: {kind: replay, files: [pictures]}}
vision: {network_threads: 3}
recipes:
  plate:
    template:
      drawing: plate.dxf
      scale_px_per_mm: 6
    checks:
      light: {kind: brightness, limit: 200}
  bare:
    checks:
      light: {kind: brightness}
      again: {kind: brightness}
"""


@pytest.fixture
def line(tmp_path: Path) -> Path:
    for name in ("plate.dxf", "plate.yaml"):
        shutil.copy(REPOSITORY / "dxf_templates" / name, tmp_path / name)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "part.png").touch()
    (tmp_path / "line.yaml").write_text(LINE)
    return tmp_path / "line.yaml"


def edited(line: Path, old: str, new: str) -> Path:
    assert old in line.read_text()
    line.write_text(line.read_text().replace(old, new))
    return line


def test_cameras_of_one_recipe_share_what_was_prepared(line: Path) -> None:
    made = recipe.prepare(config.read(line))
    assert set(made.plans) == {"top", "side", "end"}
    assert made.plans["top"].camera == "top"
    assert made.plans["top"].template is made.plans["side"].template
    assert made.plans["top"].checks[0][1] is made.plans["side"].checks[0][1]
    assert made.plans["top"].raster
    assert made.plans["end"].template is None
    assert not made.plans["end"].raster
    assert made.reasons == ("locate", "light", "again")
    assert made.models == (("net", "ab" * 32),)
    light: Any = made.plans["end"].checks[0][1]
    assert light.settings.threads == 3, "what a network's check does not say itself, vision says"


def test_a_prepared_recipe_judges(line: Path) -> None:
    made = recipe.prepare(config.read(line))
    frame = Frame(Stamp("end", 1, 1, None, (4, 4)), np.full((4, 4), 7, np.uint8))
    (inspection,) = judge([frame], made, lambda: 0)
    assert inspection.decision is Decision.PASS
    assert inspection.recipe == made.digest


def test_the_digest_is_of_what_a_verdict_depends_on_and_of_nothing_else(line: Path, tmp_path: Path) -> None:
    first = recipe.prepare(config.read(line)).digest
    assert recipe.prepare(config.read(line)).digest == first
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in (*tmp_path.glob("plate.*"), line):
        shutil.copy(path, moved)
    assert recipe.prepare(config.read(moved / "line.yaml")).digest == first, "the place of the files is no part of it"
    edited(line, "line: line1", "line: line2\ngate: {lease_ms: 200, hb_ms: 50}")
    assert recipe.prepare(config.read(line)).digest == first
    seen = {first}
    changes: list[Callable[[], object]] = [
        lambda: edited(line, "limit: 200", "limit: 201"),
        lambda: edited(line, "scale_px_per_mm: 6", "scale_px_per_mm: 7"),
        lambda: edited(tmp_path / "plate.yaml", "tolerance_mm: 0.15", "tolerance_mm: 0.16"),
        lambda: edited(tmp_path / "plate.dxf", "EOF", "EOF\n"),
        lambda: edited(line, "id: side, lane: 1, recipe: plate", "id: side, lane: 1, recipe: bare"),
    ]
    for change in changes:
        change()
        seen.add(recipe.prepare(config.read(line)).digest)
    assert len(seen) == 6


def test_what_is_wrong_is_told_at_once_with_its_line(line: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.dxf").write_text("no drawing")
    edited(line, "drawing: plate.dxf", "drawing: broken.dxf")
    edited(line, "light: {kind: brightness}", "light: {kind: brightness, limt: 3}")
    edited(line, "again: {kind: brightness}", "again: {kind: brightness, limit: 13}")
    with pytest.raises(ConfigErrors) as raised:
        recipe.prepare(config.read(line))
    said = [str(e) for e in raised.value.errors]
    assert len(said) == 3
    assert said[0].startswith(f"E_DXF_FORMAT {line}:13: recipes.plate.template.drawing: {tmp_path}/broken.dxf: ")
    assert said[1].startswith(f"E_CFG_UNKNOWN {line}:19: recipes.bare.checks.light.limt: ")
    assert "did you mean limit?" in said[1]
    assert said[2] == f"E_CFG_RANGE {line}:20: recipes.bare.checks.again.limit: 13 brings bad luck"


def test_a_file_that_settings_name_belongs_to_the_digest(line: Path, tmp_path: Path) -> None:
    edited(line, "again: {kind: brightness}", "again: {kind: brightness, model: net.onnx}")
    with pytest.raises(ConfigErrors, match=r"E_CFG_OPEN .*:20: recipes.bare.checks.again: .*net.onnx: No such file"):
        recipe.prepare(config.read(line))
    (tmp_path / "net.onnx").write_bytes(b"one")
    one = recipe.prepare(config.read(line)).digest
    (tmp_path / "net.yaml").write_text("threshold: 0.5")
    assert recipe.prepare(config.read(line)).digest != one, "a model's card is part of the model"


def test_digest_of_a_folder_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    first = recipe.digest(tmp_path / "a")
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    second = recipe.digest(tmp_path / "a")
    (tmp_path / "a" / "y").write_text("2")
    assert len({first, second, recipe.digest(tmp_path / "a")}) == 3


def run(*arguments: str) -> Any:
    app = typer.Typer()
    app.callback()(lambda: None)
    check.add(app)
    return CliRunner().invoke(app, ["check", *arguments])


def test_check_prints_the_digest(line: Path) -> None:
    ended = run(str(line))
    assert ended.exit_code == 0
    assert ended.stdout.splitlines()[-1] == f"recipe {recipe.prepare(config.read(line)).digest}"
    assert "top" in ended.stdout
    as_json = run(str(line), "--json")
    told = json.loads(as_json.stdout)
    assert told["ok"]
    assert [c["camera"] for c in told["cameras"]] == ["top", "side", "end"]


def test_check_prints_every_error_and_ends_with_78(line: Path) -> None:
    edited(line, "site: plant-a", "site: Plant A")
    edited(line, "limit: 200", "limit: 0")
    edited(line, "files: [pictures]}}\n  - {id: end", "fils: [pictures]}}\n  - {id: end")
    ended = run(str(line))
    assert ended.exit_code == 78
    assert [text.split()[0] for text in ended.stderr.splitlines()] == [
        "E_CFG_NAME",
        "E_CFG_MISSING",
        "E_CFG_UNKNOWN",
        "E_CFG_RANGE",
        "4",
    ]
    as_json = [json.loads(text) for text in run(str(line), "--json").stdout.splitlines()]
    assert {e["code"] for e in as_json} == {"E_CFG_NAME", "E_CFG_UNKNOWN", "E_CFG_MISSING", "E_CFG_RANGE"}
    assert all(e["file"] == str(line) and e["line"] for e in as_json)


def said_by_check(path: Path) -> list[str]:
    """Code, line and key of each error that `check` prints."""
    ended = run(str(path), "--json")
    assert ended.exit_code == 78, ended.output
    return [f"{e['code']} {e['line']} {e['key']}" for e in map(json.loads, ended.stdout.splitlines())]


def test_check_looks_at_models_and_drawings_whatever_else_is_wrong(line: Path) -> None:
    edited(line, "site: plant-a", "site: Plant A")
    edited(line, "drawing: plate.dxf", "drawing: nowhere.dxf\n      calibration: nowhere.yaml")
    edited(line, "light: {kind: brightness, limit: 200}", "light: {kind: brightness, limit: 0}\n      edge: {kind: outline}")
    edited(line, "      edge", "      class: {kind: classify, model: nowhere.onnx, accept: [bright]}\n      edge")
    edited(line, "id: side, lane: 1, recipe: plate", "id: side, lane: 1, recipe: pla")
    assert said_by_check(line) == [
        "E_CFG_NAME 2 site",
        "E_CFG_CLASH 7 cameras[1].recipe",
        "E_DXF_FORMAT 13 recipes.plate.template.drawing",
        "E_CAL_FILE 14 recipes.plate.template.calibration",
        "E_CFG_RANGE 17 recipes.plate.checks.light.limit",
        "E_MODEL_OPEN 18 recipes.plate.checks.class.model",
    ]


def test_check_looks_at_every_file_that_is_named(line: Path, tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    edited(
        line,
        "id: top, lane: 0, recipe: plate, source: {kind: replay, files: [pictures]",
        "id: top, recipe: plate, source: {kind: simulated",
    )
    edited(line, "source: {kind: simulated", "source: {kind: simulated, drawing: nowhere.dxf")
    edited(
        line, "id: side, lane: 1, recipe: plate, source: {kind: replay, files: [pictures]", "id: side, lane: 1, recipe: plate, source: {x"
    )
    edited(line, "{x", "{kind: replay, files: ['nowhere/*.png']")
    edited(line, "vision:", "security: {server_key: keys/server.key, clients: keys/clients}\nvision:")
    edited(line, "vision:", "desk: {users: users, tls_cert: page.pem, tls_key: page.key}\nvision:")
    edited(line, "  bare:\n", "  bare:\n    proof: proof\n    challenge: challenge\n")
    assert said_by_check(line) == [
        "E_STATE_PERM 1 state_dir",
        "E_DXF_FORMAT 6 cameras[0].source.drawing",
        "E_IMG_NONE 7 cameras[1].source.files",
        "E_KEY_OPEN 9 security.server_key",
        "E_KEY_OPEN 9 security.clients",
        "E_USERS_OPEN 10 desk.users",
        "E_TLS 10 desk.tls_cert",
        "E_PROOF 20 recipes.bare.proof",
        "E_CHALLENGE 21 recipes.bare.challenge",
    ]


def test_what_only_another_user_may_read_is_left_to_them(line: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_pair(path: Path) -> None:
        raise ConfigError("E_KEY_OPEN", "Permission denied", file=str(path)) from PermissionError()

    monkeypatch.setattr(security, "read_pair", read_pair)
    (line.parent / "clients").touch()
    edited(line, "vision:", "security: {server_key: server.key, clients: clients}\nvision:")
    assert run(str(line)).exit_code == 0


def test_a_model_that_two_recipes_name_is_loaded_once(line: Path, tmp_path: Path) -> None:
    nets.classifier(tmp_path, name="net.onnx")
    kind = "{kind: classify, model: net.onnx, accept: [bright]}"
    edited(line, "light: {kind: brightness, limit: 200}", f"light: {kind}")
    edited(line, "again: {kind: brightness}", f"again: {kind}")
    made = recipe.prepare(config.read(line))
    checks: list[Any] = [made.plans["top"].checks[0][1], made.plans["end"].checks[1][1]]
    assert checks[0].model is checks[1].model
    assert {name for name, _ in made.models} == {"net"}
    assert made.plans["top"].load_model is None


def test_a_calibration_gives_the_scale_and_straightens(line: Path, tmp_path: Path) -> None:
    edited(line, "scale_px_per_mm: 6", "calibration: camera.yaml")
    (tmp_path / "camera.yaml").write_text(CALIBRATION)
    plain = recipe.prepare(config.read(line))
    assert plain.plans["top"].calibration is not None
    assert plain.plans["top"].straighten is not None, "turned to the front"
    assert not plain.plans["top"].locator.perspective
    (tmp_path / "camera.yaml").write_text(CALIBRATION + "distortion: [-0.1, 0.01, 0.0, 0.0]\n")
    bent = recipe.prepare(config.read(line))
    assert bent.plans["top"].straighten is not None
    assert bent.digest != plain.digest


def test_a_camera_may_see_another_side_of_a_recipe(line: Path) -> None:
    edited(line, "  bare:\n", "    cameras:\n      side: {checks: {edge: {kind: brightness, limit: 9}}}\n  bare:\n")
    made = recipe.prepare(config.read(line))
    assert [name for name, _ in made.plans["top"].checks] == ["light"]
    assert [name for name, _ in made.plans["side"].checks] == ["edge"]
    assert made.plans["side"].template is None
    assert {plan.recipe for plan in made.plans.values()} == {"plate", "bare"}
    assert made.plans["top"].digest != made.plans["side"].digest
    edited(line, "edge: {kind: brightness", "edge: {kind: brigthness")
    with pytest.raises(ConfigErrors, match=r"E_CFG_KIND .*recipes.plate.cameras.side.checks.edge.kind: .*did you mean brightness"):
        config.read(line)


def test_numbers_are_one_recipes_and_sides_are_of_cameras_that_there_are(line: Path) -> None:
    edited(line, "  plate:\n", "  plate:\n    number: 3\n    cameras: {sied: {checks: {light: {kind: brightness}}}}\n")
    edited(line, "  bare:\n", "  bare:\n    number: 3\n")
    with pytest.raises(ConfigErrors) as raised:
        config.read(line)
    said = [str(error) for error in raised.value.errors]
    assert any(text.endswith("recipes.bare.number: 3 is recipe plate's") for text in said)
    assert any("recipes.plate.cameras.sied: no camera sied; did you mean side?" in text for text in said)


def test_what_is_chosen_counts_and_what_lies_on_the_shelf_is_not_made_again(line: Path) -> None:
    settings, shelf = config.read(line), recipe.Shelf(8)
    chosen = {"top": "bare"}
    assert recipe.identity(settings, chosen, shelf) is None
    first = recipe.prepare(settings, chosen=chosen, shelf=shelf)
    assert {camera: plan.recipe for camera, plan in first.plans.items()} == {"top": "bare", "side": "plate", "end": "bare"}
    assert recipe.identity(settings, chosen, shelf) == first.digest
    second = recipe.prepare(settings, chosen=chosen, shelf=shelf)
    assert second.digest == first.digest
    assert second.plans["side"].locator is first.plans["side"].locator
    assert recipe.prepare(settings, shelf=shelf).digest != first.digest
    drawing = line.parent / "plate.dxf"
    drawing.write_text(drawing.read_text().replace("EOF", "EOF\n"))
    assert recipe.identity(settings, chosen, shelf) is None
    assert recipe.prepare(settings, chosen=chosen, shelf=shelf).digest != first.digest


def test_templates_wait_on_the_disk_for_the_next_start(line: Path, tmp_path: Path) -> None:
    settings, folder = config.read(line), tmp_path / "state" / "templates"
    first = recipe.prepare(settings, shelf=recipe.Shelf(folder=folder))
    files = {file: file.read_bytes() for file in folder.glob("*.npz")}
    assert files
    second = recipe.prepare(settings, shelf=recipe.Shelf(folder=folder))
    assert second.digest == first.digest
    assert {file: file.read_bytes() for file in folder.glob("*.npz")} == files
    template = second.plans["side"].template
    assert template is not None
    assert template.digest == first.plans["side"].template.digest  # type: ignore[union-attr]


def test_only_the_plans_in_use_make_the_digest(line: Path) -> None:
    alone = dict.fromkeys(("top", "side", "end"), "plate")
    before = recipe.prepare(config.read(line), chosen=alone).digest
    edited(line, "again: {kind: brightness}", "again: {kind: brightness, limit: 5}")
    assert recipe.prepare(config.read(line), chosen=alone).digest == before


def test_a_file_that_changes_while_it_is_read_is_refused(line: Path, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"one")
    edited(line, "again: {kind: brightness}", "again: {kind: brightness, limit: 14, model: net.onnx}")
    with pytest.raises(ConfigErrors, match=r"E_CFG_MOVED .*recipes.bare: .*changed while it was read"):
        recipe.prepare(config.read(line))
    recipe.prepare(config.read(line))  # the next time it is whole


def test_recipes_are_listed_by_their_numbers(line: Path) -> None:
    edited(line, "  plate:\n", "  plate:\n    number: 3\n")
    ran = CliRunner().invoke(application(), ["recipe", "list", str(line), "--json"])
    assert ran.exit_code == 0, ran.output
    rows = json.loads(ran.stdout)
    assert [(row["number"], row["name"], row["cameras"]) for row in rows] == [(3, "plate", ["top", "side"]), (None, "bare", ["end"])]


DATA = Path(os.environ.get("INSPECTOR_DATA", REPOSITORY.parent / "shared" / "data"))
SHIPPED = sorted((REPOSITORY / "configs").glob("*.yaml"))


@pytest.mark.data
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_configuration_makes_a_recipe(path: Path) -> None:
    if "INSPECTOR_DATA" in path.read_text() and not DATA.is_dir():
        pytest.skip(f"the real pictures are not at {DATA}; INSPECTOR_DATA says where they are")
    found = config.read(path, environment={**os.environ, "INSPECTOR_DATA": str(DATA.resolve())})
    made = recipe.prepare(found)
    assert set(made.plans) == {camera.id for camera in found.cameras}
    assert len(made.reasons) == len(set(made.reasons)) >= 2
