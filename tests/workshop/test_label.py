"""First masks find a part that stands out, by every method, and say nothing where there is nothing."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.neural import model as models
from inspector.records import ConfigError
from inspector.workshop import label
from tests.neural import nets

METHODS: tuple[label.Method, ...] = ("canny", "grabcut", "mirror", "combined")


def photo(side: int = 120) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """An ellipse of warm grey on noisy blue, and where it is."""
    truth = np.zeros((side, side + 40), np.uint8)
    cv2.ellipse(truth, (75, 60), (45, 30), 20, 0, 360, 1, -1)
    image = np.where(truth[..., None] > 0, (120, 190, 210), (120, 60, 40)).astype(np.float64)
    image += np.random.default_rng(0).normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8), truth > 0


def iou(a: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], b: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("method", METHODS)
def test_a_part_that_stands_out_is_found(method: label.Method) -> None:
    image, truth = photo()
    assert iou(label.solid(label.masks_of(image, method, None)), truth) > (0.85 if method == "canny" else 0.93)


@pytest.mark.parametrize("method", METHODS)
def test_a_large_picture_is_judged_small(method: label.Method) -> None:
    image, truth = photo()
    large = cv2.resize(image, None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
    truth_large = cv2.resize(truth.astype(np.uint8), None, fx=6, fy=6, interpolation=cv2.INTER_NEAREST) > 0
    assert iou(label.solid(label.masks_of(large, method, None)), truth_large) > 0.8


def test_the_mirrored_picture_has_the_mirrored_mask() -> None:
    image, _ = photo()
    np.testing.assert_array_equal(label.mirror(np.ascontiguousarray(image[:, ::-1])), label.mirror(image)[:, ::-1])


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_found_in_one_colour(method: label.Method) -> None:
    assert not label.solid(label.masks_of(np.full((60, 80, 3), 90, np.uint8), method, None)).any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("turned", [False, True])
def test_a_part_that_touches_the_border_is_found(method: label.Method, turned: bool) -> None:
    truth = np.zeros((150, 200), np.bool_)
    truth[30:, :90] = True
    truth = truth[::-1, ::-1] if turned else truth
    grey = np.random.default_rng(1).normal(np.where(truth, 160, 60), 6).clip(0, 255).astype(np.uint8)
    assert iou(label.solid(label.masks_of(np.dstack([grey] * 3), method, None)), truth) > 0.95


def test_what_shows_nothing_is_named(tmp_path: Path) -> None:
    for name, image in (("plain", np.full((60, 80, 3), 90, np.uint8)), ("part", photo()[0])):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    done = CliRunner().invoke(application(), ["label", str(tmp_path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "nothing found in 1 of 2 pictures: plain.png" in done.stderr


def test_crumbs_go_and_small_holes_are_filled() -> None:
    soft = np.zeros((100, 100), np.float32)
    soft[20:80, 20:80] = 1
    soft[50, 50] = 0
    soft[5, 5] = 1
    expected = np.zeros((100, 100), np.bool_)
    expected[20:80, 20:80] = True
    np.testing.assert_array_equal(label.solid(soft), expected)


def test_a_models_mask_counts(tmp_path: Path) -> None:
    model = models.load(nets.segmenter(tmp_path))
    image = np.full((64, 64), 128, np.uint8)
    image[10:40, 10:40] = 250
    np.testing.assert_array_equal(label.solid(label.masks_of(image, "model", model)), image == 250)


def test_the_command_writes_masks_cuts_and_a_sheet(tmp_path: Path) -> None:
    image, truth = photo()
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), image)
    done = CliRunner().invoke(application(), ["label", str(photos), "--out", str(tmp_path / "out"), "--method", "mirror", "--json"])
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert made["share"] == pytest.approx(truth.mean(), abs=0.02)
    assert np.asarray(cv2.imread(made["cut"], cv2.IMREAD_UNCHANGED)).shape == (120, 160, 4)
    assert (tmp_path / "out" / "sheet.png").is_file()


def test_what_cannot_be_labelled_is_refused(tmp_path: Path) -> None:
    for suffix in (".png", ".bmp"):
        cv2.imwrite(str(tmp_path / f"a{suffix}"), photo()[0])
    run = CliRunner()
    for arguments, code in (([str(tmp_path)], "E_DATA_PAIR"), ([str(tmp_path / "a.png"), "--method", "model"], "E_LABEL_MODEL")):
        done = run.invoke(application(), ["label", *arguments, "--out", str(tmp_path / "out")])
        assert isinstance(done.exception, ConfigError)
        assert done.exception.code == code


def test_masks_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), photo()[0])
    (tmp_path / "out/masks/a.png").mkdir(parents=True)
    for out in (Path("/proc/x"), tmp_path / "a.png", tmp_path / "out"):
        done = CliRunner().invoke(application(), ["label", str(tmp_path / "a.png"), "--out", str(out), "--method", "canny"])
        assert isinstance(done.exception, ConfigError)
        assert done.exception.code == "E_OUT"


def pits() -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """Two dark pits on noisy metal with bright stripes, and where they are."""
    random = np.random.default_rng(3)
    image = 150 + 30 * np.sin(np.arange(240) / 6)[None, :, None] + random.normal(0, 8, (180, 240, 3))
    truth = np.zeros((180, 240), np.uint8)
    for centre, axes in (((60, 50), (14, 9)), ((170, 120), (9, 12))):
        cv2.ellipse(truth, centre, axes, 30, 0, 360, 1, -1)
    image[truth > 0] *= 0.35
    return image.clip(0, 255).astype(np.uint8), truth > 0


def test_what_is_in_a_box_is_marked_and_measured(tmp_path: Path) -> None:
    image, truth = pits()
    for name, picture in (("photos", image), ("truth", truth.astype(np.uint8) * 255)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), picture)
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "a.txt").write_text("42 35 80 66 1\n156 104 184 136 1\n")
    for boxes in ("boxes", "truth"):
        done = CliRunner().invoke(
            application(),
            [
                "label",
                str(tmp_path / "photos"),
                "--out",
                str(tmp_path / "out"),
                "--boxes",
                str(tmp_path / boxes),
                "--json",
                f"--truth={tmp_path / 'truth'}",
            ],
        )
        assert done.exit_code == 0, done.output
        one, whole = (json.loads(line) for line in done.stdout.splitlines())
        assert one["iou"] == whole["miou"] > 0.6
        assert (whole["method"], whole["pictures"]) == ("combined", 1)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_marked_beyond_the_boxes(method: label.Method) -> None:
    image, _ = pits()
    found = label.in_boxes(image, np.array([[42, 35, 80, 66]]), method, None)
    assert found[35:66, 42:80].any()
    found[33:68, 40:82] = False  # a pixel of the window is more than one of the picture
    assert not found.any()


def test_a_box_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 2 3\n")
    with pytest.raises(ConfigError, match="E_DATA_BOX"):
        label._boxes_of(tmp_path, "a", (20, 20))
