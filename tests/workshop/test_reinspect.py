"""Stored pictures judged again: the same recipe gives the same, bit for bit; another one exactly what it would have said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from inspector import __main__ as command_line
from inspector import config, recipe
from inspector.config.document import text_of
from inspector.geometry import dxf, template
from inspector.judge import judge
from inspector.outputs import archive
from inspector.outputs.archive import Archive, Stored
from inspector.records import ConfigError, Decision, Evidence, Finding, Frame, Inspection, Plan, Pose, Recipe, Stamp
from inspector.scene import Look, draw
from inspector.workshop import reinspect
from tests.contracts import REPOSITORY
from tests.smoke.test_daemon import until

DRAWINGS = REPOSITORY / "dxf_templates"
BEGAN_NS = 1_795_224_268 * 10**9
MM_PER_PX = 0.2


class AtOnce(Executor):
    """Does it here and now, and hands over what a process would hand over."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **named))
        except BaseException as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)
        return future


def line(folder: Path) -> Path:
    """Two cameras on one lane, which see the same parts."""
    template_ = {"drawing": str(DRAWINGS / "plate.dxf"), "scale_px_per_mm": 1 / MM_PER_PX}
    checks = {"outline": {"kind": "outline"}, "holes": {"kind": "holes"}}
    cameras = [{"id": name, "recipe": "plate", "source": {"kind": "replay", "files": ["x"]}} for name in ("top", "side")]
    settings = {
        "version": 1, "site": "s", "line": "l", "station": "c", "gate": {"count": "conveyor", "window_counts": 5}, "cameras": cameras,
        "recipes": {"plate": {"number": 1, "template": template_, "checks": checks}},
    }  # fmt: skip
    path = folder / "line.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[tuple[str, Any, Inspection]]]:
    """(configuration, archive, [(camera, picture, inspection)]): eight parts, judged and stored as the line does it."""
    folder = tmp_path_factory.mktemp("day")
    path = line(folder)
    made = recipe.prepare(config.read(path))
    plate = template.build(dxf.read(DRAWINGS / "plate.dxf"))
    ticks = iter(range(BEGAN_NS, BEGAN_NS + 10**12, 10**6))
    kept = Archive(config.Archive(every_nth_pass=1), folder / "pictures", utc_ns=lambda: next(ticks))
    told = []
    for seq in range(1, 9):
        for camera in ("top", "side"):
            look = Look(defect_ratio=0.5)
            image = np.ascontiguousarray(draw(plate, seed=(seq, len(camera)), size_px=(800, 640), mm_per_px=MM_PER_PX, look=look).image)
            frame = Frame(Stamp(camera, seq, 40 * seq, 100 * seq + len(camera), image.shape), image)
            (inspection,) = judge([frame], made, lambda: 0)
            reference = kept.wanted(frame, inspection.decision)
            assert reference is not None
            record = archive.stored(inspection, made, at_utc_ns=BEGAN_NS + seq, lane=0, judged=True)
            kept.put(reference, frame, archive.encode(record))
            kept.step(0)
            told.append((camera, frame, inspection))
    return path, folder / "pictures", told


def again(path: Path, source: Path, recipe_name: str | None = None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    settings = config.read(path)
    changes: list[dict[str, Any]] = []
    work = reinspect.find(settings, source, recipe_name)
    text = text_of(path)
    summary = reinspect.reinspect(path, settings, text, work, AtOnce(), progress=lambda done: None, tell=changes.append)
    return changes, summary


def test_the_same_recipe_says_the_same_bit_for_bit(day: tuple[Path, Path, list[Any]]) -> None:
    path, folder, told = day
    assert {i.decision for _, _, i in told} == {Decision.PASS, Decision.FAIL}
    changes, summary = again(path, folder)
    assert changes == []
    assert (summary["pictures"], summary["identical"], summary["same_recipe"]) == (16, 16, 16)
    assert summary["parts"]["judged"] == 8, "two cameras, one part"
    assert summary["parts"]["changed"] == 0


def test_another_tolerance_changes_exactly_what_it_must(day: tuple[Path, Path, list[Any]], tmp_path: Path) -> None:
    _, folder, told = day
    side = yaml.safe_load((DRAWINGS / "plate.yaml").read_text())
    (tmp_path / "plate.dxf").write_bytes((DRAWINGS / "plate.dxf").read_bytes())
    (tmp_path / "plate.yaml").write_text(yaml.safe_dump(tighter(side)))
    tight = tmp_path / "tight.yaml"
    tight.write_text(line(tmp_path).read_text().replace(str(DRAWINGS / "plate.dxf"), str(tmp_path / "plate.dxf")))
    made = recipe.prepare(config.read(tight))
    must = {}
    for camera, frame, was in told:
        (now,) = judge([frame], made, lambda: 0)
        if now.decision is not was.decision:
            must[camera, frame.stamp.seq] = (was.decision.value, now.decision.value)
    assert must, "the tolerance is tight enough to reject some parts"
    changes, summary = again(tight, folder)
    assert {(c["camera"], c["exposure"]): (c["was"]["decision"], c["now"]["decision"]) for c in changes} == must
    assert summary["verdicts_changed"] == len(must)
    assert summary["confusion"].get("pass → fail") == sum(said == ("pass", "fail") for said in must.values())
    assert sum(summary["reasons"].values()) == len(must)
    assert summary["same_recipe"] == 0
    parts = {seq: [i.decision for _, f, i in told if f.stamp.seq == seq] for seq in range(1, 9)}
    then = {seq: [must.get((c, seq), (0, i.decision.value))[1] for c, f, i in told if f.stamp.seq == seq] for seq in range(1, 9)}
    turned = sum(all(d is Decision.PASS for d in parts[s]) != all(d == "pass" for d in then[s]) for s in parts)
    assert summary["parts"]["changed"] == turned


def tighter(value: Any) -> Any:
    """Every limit of a side file, a fifth as wide."""
    if isinstance(value, dict):
        limits = ("tolerance_mm", "inward_mm", "outward_mm")
        return {key: each / 5 if key in limits else tighter(each) for key, each in value.items()}
    return [tighter(each) for each in value] if isinstance(value, list) else value


def test_processes_say_what_one_says(day: tuple[Path, Path, list[Any]]) -> None:
    path, folder, _ = day
    ran = CliRunner().invoke(command_line.application(), ["reinspect", str(path), str(folder), "--json", "--workers", "2"])
    assert ran.exit_code == 0, ran.output
    summary = json.loads(ran.stdout.splitlines()[-1])["summary"]
    assert (summary["pictures"], summary["identical"], summary["verdicts_changed"]) == (16, 16, 0)


def test_what_cannot_be_read_is_told_and_the_rest_judged(day: tuple[Path, Path, list[Any]], tmp_path: Path) -> None:
    path, folder, _ = day
    for n, each in enumerate(archive.pictures_in(folder)[:4]):
        (tmp_path / each.name).write_bytes(each.read_bytes()[: -20 if n == 0 else None])
        if n != 1:
            (tmp_path / each.with_suffix(".json").name).write_bytes(each.with_suffix(".json").read_bytes())
    changes, summary = again(path, tmp_path)
    assert (summary["pictures"], summary["unreadable"], summary["left_out"]) == (3, 1, {"no_record": 1})
    assert "E_IMG_TRUNC" in changes[0]["error"]


@pytest.mark.parametrize(
    ("source", "forced", "code"), [("nowhere", None, "E_ARCHIVE_OPEN"), (".", None, "E_ARCHIVE_NONE"), (".", "plat", "E_RECIPE")]
)
def test_what_a_person_must_change_is_said(tmp_path: Path, source: str, forced: str | None, code: str) -> None:
    with pytest.raises(ConfigError) as raised:
        reinspect.find(config.read(line(tmp_path)), tmp_path / source, forced)
    assert raised.value.code == code


def test_a_record_gives_every_number_back(tmp_path: Path) -> None:
    findings = (
        Finding("a", "b", float("nan"), None, 1 / 3, "mm", (0.1, -1e-300), Evidence("c", 0.1 + 0.2, 0.5, (1.0, 2.0, 3.0, 4.0), 1e17 / 3)),
        Finding("a", "c", float("inf"), -0.1, None, "mm"),
        Finding("a", "d", float(np.float32(0.1)), 0, 1, "count"),
    )
    pose = Pose(1 / 7, 2.0, 3.0, 4.0, 0.5, 0.001, True, tuple(n / 9 for n in range(9)))
    stamp = Stamp("top", 7, 2**62, -5, (4, 6, 3), True, "part ü")
    made = Recipe("d", {"top": Plan("top", None, None, None, (), False, recipe="plate", number=3, digest="p")}, (), ("locate", "a"))
    inspection = Inspection(stamp, Decision.FAIL, 101, "why", findings, pose, "d", {})
    record = archive.stored(inspection, made, at_utc_ns=2**62 + 1, lane=4, judged=True)
    record = replace(record, shadow=record.judgement)
    path = tmp_path / "x.png"
    path.with_suffix(".json").write_bytes(archive.encode(record))
    read = archive.read(path)
    assert isinstance(read, Stored)
    assert read == record
    assert read.judgement.said == record.judgement.said
    assert read.judgement.reason_class == "a"
    assert read.judgement.findings[0]["value"] == "nan"


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_line_at_work_leaves_a_day_that_says_the_same_again(tmp_path: Path) -> None:
    """The demo's line until its archive has some pictures: these and its journal are judged again to the same, for every part."""
    free = {f"INSPECTOR__{key}": "tcp://127.0.0.1:0" for key in ("GATE__BIND", "EVENTS__BIND", "EVENTS__REPLAY_BIND")}
    free |= {f"INSPECTOR__METRICS__{key}_BIND": "127.0.0.1:0" for key in ("GATE", "VISION")}
    slowly = {"INSPECTOR__CONVEYOR__RATE_PARTS_PER_S": "2", "INSPECTOR__ARCHIVE__EVERY_NTH_PASS": "2"}
    environment = {**os.environ, **free, **slowly, "INSPECTOR_STATE": str(tmp_path), "INSPECTOR__STATE_DIR": str(tmp_path)}
    demo, pictures = str(REPOSITORY / "configs" / "demo.yaml"), tmp_path / "pictures"
    with (tmp_path / "out.txt").open("w") as out, (tmp_path / "err.txt").open("w") as err:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "inspector", "run", demo, "--allow-root", "--quiet"], env=environment, stdout=out, stderr=err
        )
        try:
            until(lambda: daemon.poll() is not None or (pictures.is_dir() and len(archive.pictures_in(pictures)) >= 12), 300)
            daemon.terminate()
            assert daemon.wait(100) == 0, (tmp_path / "err.txt").read_text()
        finally:
            daemon.kill()
            daemon.wait()
    assert (tmp_path / "out.txt").read_text().splitlines()[-1].endswith("unexplained=0")
    kept = len(archive.pictures_in(pictures))
    command = [sys.executable, "-m", "inspector", "reinspect", demo, str(tmp_path), "--json"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert said.returncode == 0, said.stderr
    (told,) = [json.loads(text) for text in said.stdout.splitlines()]
    summary = told["summary"]
    assert summary["pictures"] + sum(summary["left_out"].values()) == kept >= 12
    assert summary["identical"] == summary["same_recipe"] == summary["pictures"]
    assert summary["parts"]["changed"] == 0
