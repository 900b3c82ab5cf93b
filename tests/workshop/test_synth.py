from __future__ import annotations

import errno
import json
import os
import warnings
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.geometry import dxf, template
from inspector.records import ConfigError, ConfigErrors
from inspector.scene import SURFACE, Look
from inspector.workshop import outlines, synth

DRAWINGS = Path(__file__).parents[2] / "dxf_templates"


class Here(Executor):
    """Draws at once, in this process."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def job(out: Path, **given: Any) -> synth.Job:
    base: dict[str, Any] = {
        "drawings": (DRAWINGS / "plate.dxf", DRAWINGS / "gear.dxf"),
        "count": 18,
        "seed": 5,
        "size_px": (320, 256),
        "mm_per_px": None,
        "look": Look(defect_ratio=0.9, most_defects=2),
        "raster": True,
    }
    return synth.Job(out=out, **(base | given))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.real
def test_the_bytes_are_the_same_whoever_draws(tmp_path: Path) -> None:
    synth.synthesise(job(tmp_path / "here"), Here())
    with ThreadPoolExecutor(3) as pool:
        synth.synthesise(job(tmp_path / "threads"), pool)
    with synth.executor(2, None) as processes:
        synth.synthesise(job(tmp_path / "processes"), processes)
    expected = files(tmp_path / "here")
    assert len(expected) == 18 * 5 + 5
    assert files(tmp_path / "threads") == expected
    assert files(tmp_path / "processes") == expected


def test_every_list_says_the_same(tmp_path: Path) -> None:
    heard: list[int] = []
    counts = synth.synthesise(job(tmp_path / "set"), Here(), heard.append)
    assert heard == sorted(heard)
    assert (len(heard), heard[-1]) == (3, 18)
    out = tmp_path / "set"
    truth = [json.loads(line) for line in (out / "truth.jsonl").read_text().splitlines()]
    coco = json.loads((out / "coco.json").read_text())
    assert [t["drawing"] for t in truth] == ["plate.dxf", "gear.dxf"] * 9
    assert [i["file_name"] for i in coco["images"]] == [t["image"] for t in truth]
    names = {c["id"]: c["name"] for c in coco["categories"]}
    assert counts["pictures"] == 18
    assert counts["good"] == sum(t["good"] for t in truth)
    assert sum(n for k, n in counts.items() if k in synth.KINDS) == sum(len(t["defects"]) for t in truth) > 10
    for number, line in enumerate(truth):
        stem = line["image"].removesuffix(".png")
        image, mask = (cv2.imread(str(out / folder / line["image"]), cv2.IMREAD_UNCHANGED) for folder in ("images", "masks"))
        assert image is not None
        assert mask is not None
        assert image.shape == mask.shape == (256, 320)
        there = [a for a in coco["annotations"] if a["image_id"] == number]
        assert [names[a["category_id"]] for a in there] == [d["kind"] for d in line["defects"]]
        assert [a["bbox"] for a in there] == [d["bbox_px"] for d in line["defects"]]
        yolo = [row.split() for row in (out / "labels" / f"{stem}.txt").read_text().splitlines()]
        assert [synth.KINDS[int(row[0])] for row in yolo] == [d["kind"] for d in line["defects"]]
        for row, defect in zip(yolo, line["defects"], strict=True):
            x, y, w, h = defect["bbox_px"]
            assert [float(v) for v in row[1:]] == pytest.approx([(x + w / 2) / 320, (y + h / 2) / 256, w / 320, h / 256], abs=1e-6)
        kinds = {1 + SURFACE.index(d["kind"]) for d in line["defects"] if d["kind"] in SURFACE}
        assert set(np.unique(mask)) - {0} <= kinds
        part = template.build(dxf.read(DRAWINGS / line["drawing"]))
        rectified = cv2.imread(str(out / "raster/images" / line["image"]), cv2.IMREAD_UNCHANGED)
        assert rectified is not None
        assert rectified.shape == part.sdf_mm.shape
    assert (out / "classes.txt").read_text().split() == list(SURFACE)


def test_coco_areas_are_the_masks_areas(tmp_path: Path) -> None:
    synth.synthesise(job(tmp_path / "set", look=Look(defect_ratio=1.0, kinds=("stain",)), raster=False), Here())
    coco = json.loads((tmp_path / "set" / "coco.json").read_text())
    for annotation in coco["annotations"]:
        mask = cv2.imread(str(tmp_path / "set" / "masks" / coco["images"][annotation["image_id"]]["file_name"]), cv2.IMREAD_UNCHANGED)
        assert mask is not None
        assert annotation["area"] == (mask > 0).sum() > 0
        drawn = np.zeros(mask.shape, np.uint8)
        for polygon in annotation["segmentation"]:
            outlines.fill(drawn, np.array(polygon, np.float64).reshape(-1, 2), 1)
        np.testing.assert_array_equal(drawn > 0, mask > 0)


def test_a_folder_with_pictures_is_not_drawn_into(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ConfigError, match="E_SYNTH_OUT"):
        synth.synthesise(job(tmp_path), Here())
    with pytest.raises(ConfigError, match="E_DXF"):
        synth.synthesise(job(tmp_path / "new", drawings=(tmp_path / "no.dxf",)), Here())
    assert not (tmp_path / "new").exists()


def test_a_part_that_does_not_fit_leaves_no_folder(tmp_path: Path) -> None:
    for look in (Look(), Look(margin_px=200.0)):
        with pytest.raises(ConfigError, match=r"E_SCENE_SIZE .*plate\.dxf: --mm-per-px: "):
            synth.synthesise(job(tmp_path / "new", mm_per_px=0.03, look=look), Here())
    with pytest.raises(ConfigError, match=r"E_SCENE_SIZE .*plate\.dxf: a picture of 320 × 256 px has no room"):
        synth.synthesise(job(tmp_path / "new", look=Look(margin_px=200.0)), Here())
    assert not (tmp_path / "new").exists()
    assert synth.synthesise(job(tmp_path / "new", count=1), Here())["pictures"] == 1


def refuse() -> None:
    raise ConfigError("E_SCENE_SIZE", "too large", file="plate.dxf", key="--mm-per-px")


@pytest.mark.real
def test_what_a_worker_refuses_is_said() -> None:
    with synth.executor(1, None) as pool, pytest.raises(ConfigError, match=r"^E_SCENE_SIZE plate\.dxf: --mm-per-px: too large$"):
        pool.submit(refuse).result()


def test_a_folder_that_cannot_be_and_a_full_disk_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for out in (Path("/proc/x"), tmp_path / "file"):
        with pytest.raises(ConfigError, match=r"E_OUT .*--out: no folder can be made there"):
            synth.synthesise(job(out), Here())

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ConfigError, match=rf"E_OUT {tmp_path}/new: --out: cannot be written: No space left"):
        synth.synthesise(job(tmp_path / "new"), Here())


def test_a_defect_that_no_pixel_shows_is_none(tmp_path: Path) -> None:
    coarse = {"mm_per_px": 8.0, "raster": False, "drawings": (DRAWINGS / "plate.dxf",)}
    drawn = synth.synthesise(job(tmp_path / "set", look=Look(defect_ratio=1.0, kinds=("pit",), margin_px=0.0), **coarse), Here())
    assert drawn["not_drawn"] == 18 - drawn.get("pit", 0) > 0
    assert drawn["good"] == drawn["not_drawn"]
    coco = json.loads((tmp_path / "set" / "coco.json").read_text())
    assert all(a["area"] > 0 for a in coco["annotations"])
    assert "missed" not in (tmp_path / "set" / "truth.jsonl").read_text()


def test_a_look_comes_from_a_file_and_from_options(tmp_path: Path) -> None:
    file = tmp_path / "look.yaml"
    file.write_text("defect_ratio: 0.5\nblur_px: [0.5, 0.6]\n")
    assert synth.look_of(file, {"defect_ratio": 0.1}) == Look(defect_ratio=0.1, blur_px=(0.5, 0.6))
    file.write_text("defect_ratio: 0.5\nblurpx: [0.5, 0.6]\n")
    with pytest.raises(ConfigErrors, match=r"E_CFG_UNKNOWN .*look\.yaml:2: blurpx: .*blur_px"):
        synth.look_of(file, {})
    with pytest.raises(ConfigErrors, match="kinds"):
        synth.look_of(None, {"kinds": ["scrach"]})
    with pytest.raises(ConfigErrors, match="least, most"):
        synth.look_of(None, {"blur_px": [2, 1]})
    for name, wrong in {"part_grey": -1, "blur_px": -1, "distortion_ratio": 5, "dent_radius_mm": -1, "scratch_length_mm": 0}.items():
        with pytest.raises(ConfigErrors, match=rf"E_CFG_RANGE.*{name}.*{wrong}; allowed"):
            synth.look_of(None, {name: [wrong, wrong]})


def test_no_dask_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"E_EXTRA_MISSING.*inspector\[cluster\]"), synth.executor(1, "tcp://127.0.0.1:1"):
        pass


@pytest.mark.real
def test_a_cluster_draws_the_same_bytes(tmp_path: Path) -> None:
    """A scheduler and two workers of Dask, each a process of its own on this machine, against one drawing here."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'inspector[cluster]'")
    size = ["--count", "20", "--size", "320x256", "--seed", "5", "--defect-ratio", "0.5"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, worker_dashboard_address=None
        ) as cluster:
            for name, more in (("here", ["--workers", "1"]), ("there", ["--scheduler", cluster.scheduler_address])):
                done = CliRunner().invoke(
                    application(), ["synth", str(DRAWINGS / "gasket.dxf"), "--out", str(tmp_path / name), *size, *more]
                )
                assert done.exit_code == 0, done.output
    files = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*") if path.is_file())
    assert len(files) > 60
    assert all((tmp_path / "here" / file).read_bytes() == (tmp_path / "there" / file).read_bytes() for file in files)


@pytest.mark.real
def test_the_command_says_what_it_drew(tmp_path: Path) -> None:
    arguments = [
        "synth",
        str(DRAWINGS / "gasket.dxf"),
        "--out",
        str(tmp_path / "set"),
        "--count",
        "3",
        "--size",
        "320x256",
        "--workers",
        "1",
    ]
    result = CliRunner().invoke(application(), [*arguments, "--json", "--kinds", "stain", "--defect-ratio", "1"])
    assert "not drawn" not in result.stderr
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["pictures"] == said["stain"] == 3
    assert len(list((tmp_path / "set" / "images").iterdir())) == 3
    assert CliRunner().invoke(application(), [*arguments[:-4], "--size", "big"]).exit_code == 2
    arguments[3] = str(tmp_path / "good")
    result = CliRunner().invoke(application(), [*arguments, "--kinds", "pit", "--defect-ratio", "1", "--mm-per-px", "20"])
    assert result.exit_code == 0, result.output
    assert "3 defects were not drawn: no kind of pit fits or shows at this resolution" in result.stderr
