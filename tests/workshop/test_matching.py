"""The command: JSON for scripts, words for people, an overlay to believe, and clear refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.geometry import calibrate, dxf, template
from inspector.geometry.raster import to_picture
from inspector.records import Calibration, ConfigError, Contour, Pose
from inspector.workshop import matching
from inspector.workshop.rendered import BACK_LIT, placed, render

DRAWING = Path(__file__).parents[2] / "dxf_templates" / "plate.dxf"
SIZE, SCALE = (800, 640), 6.0


@pytest.fixture(autouse=True)
def _kept_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def contours() -> tuple[Contour, ...]:
    return template.build(dxf.read(DRAWING)).contours


@pytest.fixture(scope="module")
def true(contours: tuple[Contour, ...]) -> Pose:
    return placed(contours, SIZE, 0.5, SCALE, (12.0, -7.0))


@pytest.fixture(scope="module")
def pictures(contours: tuple[Contour, ...], true: Pose, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good part, one without its largest hole, and nothing."""
    folder = tmp_path_factory.mktemp("pictures")
    largest = max((c for c in contours if c.circle), key=lambda c: c.circle[2] if c.circle else 0.0)
    shown = {"good": contours, "bad": tuple(c for c in contours if c is not largest), "empty": ()}
    for name, outlines in shown.items():
        cv2.imwrite(str(folder / f"{name}.png"), render([c.points_mm for c in outlines], true, SIZE, BACK_LIT, 1))
    return {name: folder / f"{name}.png" for name in shown}


def said(*arguments: str | Path) -> list[dict[str, object]]:
    result = CliRunner().invoke(application(), ["match", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_good_part_passes_with_the_pose_as_documented(pictures: dict[str, Path], true: Pose, contours: tuple[Contour, ...]) -> None:
    (found,) = said(DRAWING, pictures["good"], "--mm-per-px", str(1 / SCALE))
    assert found["found"] is True
    assert found["decision"] == "pass", [f for f in found["findings"] if not f["ok"]]  # type: ignore[attr-defined]
    pose = Pose(found["x_px"], found["y_px"], math.radians(found["angle_deg"]), found["scale_px_per_mm"], 1.0, 0.0)  # type: ignore[arg-type]
    points = contours[0].points_mm
    assert np.abs(to_picture(points, pose) - to_picture(points, true)).max() < 0.05
    assert set(found["spent_ms"]) == {"locate", "gauge", "total"}  # type: ignore[call-overload]
    assert {"image", "part", "score_ratio", "residual_mm", "findings"} <= set(found)


def test_a_missing_hole_is_a_finding_and_several_pictures_are_several_lines(pictures: dict[str, Path]) -> None:
    good, bad, empty = said(DRAWING, pictures["good"], pictures["bad"], pictures["empty"], "--mm-per-px", str(1 / SCALE))
    assert good["decision"] == "pass"
    assert bad["decision"] == "fail"
    out = [f for f in bad["findings"] if not f["ok"] and f["check"] == "outline"]  # type: ignore[attr-defined]
    assert [(f["feature"], f["value"], f["unit"]) for f in out] == [("hole-5", 0.0, "count")]
    assert empty["found"] is False


@pytest.mark.parametrize("scale", [[], ["--scale-range", "4", "9"], ["--mm-per-px", "0.15", "--scale-range", "0.8", "1.2"]])
def test_the_scale_is_searched(pictures: dict[str, Path], scale: list[str]) -> None:
    (found,) = said(DRAWING, pictures["good"], *scale)
    assert found["scale_px_per_mm"] == pytest.approx(SCALE, rel=2e-4)


def test_a_template_is_compiled_once_and_found_on_the_disk_from_then_on(pictures: dict[str, Path], tmp_path: Path) -> None:
    arguments = (DRAWING, pictures["good"], "--mm-per-px", str(1 / SCALE))
    first, again = ([{**one, "spent_ms": None} for one in said(*arguments)] for _ in range(2))
    assert first == again
    assert len(list((tmp_path / "inspector/templates").glob("*.npz"))) == 1


def test_words_and_overlay(pictures: dict[str, Path], tmp_path: Path) -> None:
    overlay = tmp_path / "seen.png"
    result = CliRunner().invoke(
        application(), ["match", str(DRAWING), str(pictures["bad"]), "--mm-per-px", str(1 / SCALE), "--overlay", str(overlay)]
    )
    assert "FAIL" in result.output
    assert "OUT outline hole-5: 0.0000 count" in result.output
    painted = cv2.imread(str(overlay))
    plain = cv2.imread(str(pictures["bad"]))
    assert painted is not None
    assert plain is not None
    assert painted.shape == plain.shape
    assert 500 < (painted != plain).any(axis=2).sum() < 0.1 * plain.shape[0] * plain.shape[1]


def test_a_recipe_says_which_checks_and_tolerances(pictures: dict[str, Path], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"template: {{drawing: {DRAWING}}}\nchecks:\n  edges: {{kind: outline, run: 9}}\n")
    (found,) = said(DRAWING, pictures["good"], "--mm-per-px", str(1 / SCALE), "--recipe", recipe)
    assert {f["check"] for f in found["findings"]} == {"edges"}  # type: ignore[attr-defined]


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ConfigError, match="E_IMG"):
        next(matching.judge(matching.prepare(DRAWING), torn))
    with pytest.raises(ConfigError, match="E_IMG"):
        next(matching.judge(matching.prepare(DRAWING), tmp_path / "none.png"))
    with pytest.raises(ConfigError, match="E_SCALE"):
        matching.scale_of(None, (3.0, 2.0))
    with pytest.raises(ConfigError, match="E_SCALE"):
        matching.prepare(DRAWING, scale=0.01)


def test_slots_and_distances_are_measured(contours: tuple[Contour, ...], true: Pose, tmp_path: Path) -> None:
    """The slot is 0.1 mm wider, its ends 0.1 mm farther; the hole beside the seat lies 0.12 mm too far left."""
    drawing = tmp_path / "plate.dxf"
    drawing.write_bytes(DRAWING.read_bytes())
    drawing.with_suffix(".yaml").write_text(
        "distances:\n"
        "  - {name: pitch, between: [hole-7, hole-5], minus_mm: -0.05, plus_mm: 0.05}\n"
        "  - {name: across, between: [[30, 0], [30, 70]], minus_mm: -0.05, plus_mm: 0.05}\n"
    )
    slot, moved = next(c for c in contours if c.name == "hole-8"), next(c for c in contours if c.name == "hole-7")
    t = np.linspace(-math.pi / 2, math.pi / 2, 300)
    end = np.column_stack([9.0 + 3.05 * np.cos(t), 3.05 * np.sin(t)])
    changed = {slot.name: np.concatenate([end, -end]) + np.array((54.0, 12.0)), moved.name: moved.points_mm - (0.12, 0.0)}
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), render([changed.get(c.name, c.points_mm) for c in contours], true, SIZE, BACK_LIT, 3))
    (found,) = said(drawing, picture, "--mm-per-px", str(1 / SCALE))
    findings = {f["feature"]: f for f in found["findings"] if f["check"] != "outline"}  # type: ignore[attr-defined]
    assert findings["hole-8.width"]["value"] == pytest.approx(6.1, abs=0.01)
    assert findings["hole-8.length"]["value"] == pytest.approx(24.1, abs=0.015)
    assert findings["hole-8.position"]["value"] < 0.01
    assert findings["across"]["value"] == pytest.approx(70.0, abs=0.01)
    assert findings["across"]["ok"]
    (x0, y0, _), (x1, y1, _) = (next(c.circle for c in contours if c.name == n) or (0, 0, 0) for n in ("hole-7", "hole-5"))
    assert findings["pitch"]["value"] == pytest.approx(math.hypot(x0 - 0.12 - x1, y0 - y1), abs=0.01)
    assert not findings["pitch"]["ok"]


def test_with_a_calibration_findings_are_millimetres_behind_any_lens(pictures: dict[str, Path], tmp_path: Path) -> None:
    """The picture as a lens with barrel distortion shows it: only with the calibration is the part true to its drawing."""
    matrix, lens = calibrate.nominal(SIZE[1], SIZE[0]), np.array([-0.08, 0.0, 0.0, 0.0, 0.0])
    v, u = np.indices(SIZE[::-1]).reshape(2, -1).astype(np.float64)
    ideal = cv2.undistortPoints(np.column_stack([u, v])[:, None], matrix, lens, P=matrix).reshape(*SIZE[::-1], 2).astype(np.float32)
    straight = cv2.imread(str(pictures["good"]), cv2.IMREAD_GRAYSCALE)
    assert straight is not None
    bent, file = tmp_path / "bent.png", tmp_path / "cam.yaml"
    cv2.imwrite(str(bent), cv2.remap(straight, ideal[..., 0], ideal[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))
    calibrate.write(Calibration("cam", 1 / SCALE, matrix, lens, 0.1, 1, SIZE[::-1]), file, "by hand")
    (without,) = said(DRAWING, bent, "--scale-range", "5", "7")
    (found,) = said(DRAWING, bent, "--calibration", file)
    assert found["decision"] == "pass", [f for f in found["findings"] if not f["ok"]]  # type: ignore[attr-defined]
    assert found["scale_px_per_mm"] == pytest.approx(SCALE)
    assert without["decision"] == "fail"
    other = tmp_path / "other.png"
    cv2.imwrite(str(other), straight[:-2])
    with pytest.raises(ConfigError, match="E_CAL_SIZE"):
        next(matching.judge(matching.prepare(DRAWING, calibration=file), other))
