from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from inspector.records import ConfigError, Decision
from inspector.scene import Defect
from inspector.workshop import screen, trial
from inspector.workshop.trial import Tried, by_size, size_of, summary

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"

# The demo's cameras and drawings, without the network: gauging alone, so that no model decides this test.
GAUGED = """
version: 1
site: test
line: trial
station: belt
conveyor: {{kind: simulated, lanes: [0, 1], seed: 3}}
gate: {{count: conveyor}}
cameras:
  - id: plate
    lane: 0
    recipe: plate
    source: {{kind: simulated, lane: 0, drawing: {drawings}/plate.dxf, mm_per_px: 0.128, look: {look}}}
  - id: gear
    lane: 1
    recipe: gear
    source: {{kind: simulated, lane: 1, drawing: {drawings}/gear.dxf, mm_per_px: 0.128, look: {look}}}
recipes:
  plate:
    template: {{drawing: {drawings}/plate.dxf, scale_px_per_mm: 7.8125}}
    checks: {{outline: {{kind: outline}}, holes: {{kind: holes}}}}
  gear:
    template: {{drawing: {drawings}/gear.dxf, scale_px_per_mm: 7.8125}}
    checks: {{outline: {{kind: outline}}, holes: {{kind: holes}}}}
"""


def line(folder: Path, look: str = "{defect_ratio: 0.5, kinds: [burr, notch, missing_hole, small_hole]}") -> Path:
    path = folder / "line.yaml"
    path.write_text(GAUGED.format(drawings=CONFIG.parents[1] / "dxf_templates", look=look))
    return path


def test_gauging_finds_what_is_out_of_tolerance_and_nothing_else(tmp_path: Path) -> None:
    heard: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        tried = trial.put_on_trial(line(tmp_path), 40, seed=None, pool=pool, progress=heard.append)
        again = trial.put_on_trial(line(tmp_path), 4, seed=3, pool=pool)
        other = trial.put_on_trial(line(tmp_path), 40, seed=4, pool=pool)
    assert heard[-1] == len(tried) == 40
    assert [t.camera for t in tried] == ["plate", "gear"] * 20
    assert [(t.kind, t.size_mm, t.decision) for t in again] == [(t.kind, t.size_mm, t.decision) for t in tried[:4]]
    assert [t.size_mm for t in other] != [t.size_mm for t in tried]
    said = summary(tried)
    assert said["bad"] + said["good"] == 40
    assert 10 <= said["bad"] <= 30
    assert said["escapes"] == 0
    assert said["false_rejects"] <= 1
    assert all(t.named for t in tried if t.decision is not Decision.PASS)


def test_lines_with_other_cameras_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    path = line(tmp_path)
    first = next(row for row in path.read_text().splitlines() if "source:" in row)
    path.write_text(path.read_text().replace(first, "    source: {kind: replay, files: [pictures]}"))
    with ThreadPoolExecutor(1) as pool, pytest.raises(ConfigError, match=r"E_DEMO.*simulated"):
        trial.put_on_trial(path, 2, seed=None, pool=pool)


def tried(kind: str, size_mm: float, decision: Decision, *named: str) -> Tried:
    return Tried("plate", 0, kind, size_mm, decision, named, 20.0)


def test_kinds_are_cut_by_size_and_every_part_is_counted_once() -> None:
    parts = [tried("scratch", 0.1 * n, Decision.FAIL if n > 2 else Decision.PASS, "surface") for n in (5, 1, 4, 2, 3, 6, 7)]
    parts += [tried("good", 0.0, Decision.PASS)] * 4 + [tried("good", 0.0, Decision.UNJUDGED)]
    classes = by_size(parts)
    assert [(c.kind, round(c.low_mm, 1), round(c.high_mm, 1), c.parts, c.rejected) for c in classes] == [
        ("scratch", 0.1, 0.2, 2, 0),
        ("scratch", 0.3, 0.4, 2, 2),
        ("scratch", 0.5, 0.7, 3, 3),
        ("good", 0.0, 0.0, 5, 1),
    ]
    assert classes[1].named == {"surface": 2}
    said = summary(parts)
    assert (said["escapes"], said["false_rejects"]) == (2, 1)
    low, high = said["escapes_95"]
    assert low < 2 / 7 < high
    assert summary([])["escapes_95"] is None
    out = io.StringIO()
    screen.trial(Console(file=out, width=160), parts)
    assert "escapes 2 of 7 bad parts (28.57 %" in out.getvalue()


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        ("scratch", (12.0, 0.3), 0.3),
        ("dent", (3.0, 2.4), 2.4),
        ("burr", (2.0, 0.4), 0.4),
        ("missing_hole", (6.0, 0.0), 6.0),
        ("small_hole", (6.0, 5.5), 0.5),
        ("moved_hole", (6.0, 0.7), 0.7),
    ],
)
def test_the_size_is_what_decides_whether_it_is_seen(kind: str, size: tuple[float, float], expected: float) -> None:
    assert size_of(Defect(kind, (0.0, 0.0), size)) == pytest.approx(expected)  # type: ignore[arg-type]
