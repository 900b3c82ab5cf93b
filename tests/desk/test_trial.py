from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.config import Kind, RecipeSettings
from inspector.desk import trial
from inspector.desk.recipes import Recipes, views_of
from inspector.desk.trial import Trial
from inspector.geometry import calibrate, polygon, raster
from inspector.geometry.coverage import coverage
from inspector.records import Calibration, ConfigError, DeviceError, Floats, Pose
from tests.desk.events import board, config, csrf_of, png
from tests.desk.test_app import Scene

HERE = {"origin": "http://127.0.0.1:8080"}
MODEL = Path(__file__).parents[2] / "models" / "surface.onnx"
POSE = Pose(90.0, 420.0, 0.2, 4.0, 1.0, 0.0)


def clock() -> Iterator[int]:
    return iter(range(0, 1 << 62, 1_000_000))


def trial_of(**recipes: RecipeSettings) -> Trial:
    settings, ticks = config(), clock()
    if recipes:
        cameras = [settings.cameras[0].model_copy(update={"recipe": name}) for name in recipes]
        settings = settings.model_copy(update={"recipes": recipes, "cameras": cameras})
    return Trial(Recipes(settings), clock=lambda: next(ticks))


def photo(*, without: str = "") -> bytes:
    """The plate of the drawing on a dark ground, as `POSE` says; one hole may be missing."""
    outlines = [raster.to_picture(c.points_mm, POSE) for c in views_of(config())["plate", ""].contours if c.name != without]
    image = 50 + 120 * cv2.GaussianBlur(coverage(outlines, (600, 700)), (0, 0), 0.8)
    return cv2.imencode(".png", image.round().astype(np.uint8))[1].tobytes()


@pytest.fixture(scope="module")
def plates() -> Trial:
    return trial_of()


def test_a_good_part_passes_where_it_lies(plates: Trial) -> None:
    found = plates.run(plates.choices()[0], photo())
    assert found.part is not None
    assert found.part.passed, found.part.reason_text
    assert found.part.pose is not None
    assert abs(found.part.pose["x_px"] - POSE.x_px) < 1
    assert len(found.drawn.outlines) == len(views_of(config())["plate", ""].contours)
    assert found.spent_ms > 0


def test_behind_a_slanted_camera_the_drawing_lies_on_the_part_as_it_was_photographed(tmp_path: Path) -> None:
    """The picture is of OpenCV's own projection; what is drawn over it comes from judging it turned to the front."""
    matrix, lens = np.array([[900.0, 0, 350], [0, 900, 300], [0, 0, 1]]), np.array([-0.15, 0.0, 0.0, 0.0, 0.0])
    turn = cv2.Rodrigues(np.array([0.45, 0.0, 0.0]))[0] @ cv2.Rodrigues(np.array([0.0, 0.2, 0.0]))[0] @ np.diag([1.0, -1.0, -1.0])
    away = np.array([0.0, 0.0, 220.0])
    to_px = matrix @ np.column_stack([turn[:, 0], turn[:, 1], away])
    to_mm = np.linalg.inv(to_px) / np.linalg.inv(to_px)[2, 2]
    right, left = raster.apply(to_mm, [(350.0, 299.5), (349.0, 299.5)])
    scale = float(np.hypot(*(right - left)))
    camera = Calibration("cam0", scale, matrix, lens, 0.0, 1_800_000_000 * 10**9, (600, 700), tuple(to_mm.ravel()))
    calibrate.write(camera, tmp_path / "cam0.yaml", "by hand")
    plate = config().recipes["plate"]
    assert plate.template is not None
    template = plate.template.model_copy(update={"scale_px_per_mm": None, "calibration": tmp_path / "cam0.yaml"})
    made = trial_of(plate=plate.model_copy(update={"template": template}))

    def seen(points_mm: Floats) -> Floats:
        around = polygon.finely(points_mm, 1.0) - (50.0, 35.0)
        lying = np.column_stack([around @ np.array([[0.96, 0.28], [-0.28, 0.96]]), np.zeros(len(around))])
        return np.asarray(cv2.projectPoints(lying, cv2.Rodrigues(turn)[0], away, matrix, lens)[0].reshape(-1, 2), np.float64)

    truth = {c.name: seen(c.points_mm) for c in views_of(config())["plate", ""].contours}
    image = 50 + 120 * cv2.GaussianBlur(coverage(list(truth.values()), (600, 700)), (0, 0), 0.8)
    found = made.run(made.choices()[0], cv2.imencode(".png", image.round().astype(np.uint8))[1].tobytes())
    assert found.part is not None
    assert found.part.passed, found.part.reason_text
    for outline in found.drawn.outlines:
        drawn = np.array([tuple(map(float, xy.split())) for xy in re.findall(r"[-\d.]+ [-\d.]+", outline.path)])
        line = truth[outline.name].astype(np.float32)
        assert max(abs(cv2.pointPolygonTest(line, point.tolist(), measureDist=True)) for point in drawn) < 1.0, outline.name
        back = drawn.astype(np.float32)
        assert max(abs(cv2.pointPolygonTest(back, point.tolist(), measureDist=True)) for point in truth[outline.name]) < 1.0, outline.name


def test_a_missing_hole_is_found_and_marked(plates: Trial) -> None:
    found = plates.run(plates.choices()[0], photo(without="hole-3"))
    assert found.part is not None
    assert not found.part.passed
    assert "hole-3" in {f.feature for f in found.part.failed}
    assert any(o.bad for o in found.drawn.outlines if o.name == "hole-3")
    assert found.drawn.close_ups


def test_a_recipe_that_no_camera_begins_with_can_be_tried_too() -> None:
    settings, ticks = config(), clock()
    settings = settings.model_copy(update={"recipes": {**settings.recipes, "spare": settings.recipes["plate"]}})
    made = Trial(Recipes(settings), clock=lambda: next(ticks))
    assert [c.text for c in made.choices()] == ["recipe plate", "recipe spare"]
    found = made.run(made.choices()[1], photo())
    assert found.part is not None
    assert (found.part.passed, found.part.recipe_name) == (True, "spare")
    assert found.drawn.outlines


def test_a_picture_without_the_part_is_a_reject(plates: Trial) -> None:
    found = plates.run(plates.choices()[0], png())
    assert found.part is not None
    assert not found.part.passed
    assert found.drawn.outlines == ()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "E_IMG_FORMAT"),
        (b"GIF89a" + bytes(100), "E_IMG_FORMAT"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "E_IMG_FORMAT"),
        (png()[:-20], "E_IMG_TRUNC"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (30_000).to_bytes(4, "big") * 2 + bytes(30) + b"IEND", "E_IMG_PIXELS"),
        (cv2.imencode(".png", np.zeros((8, 8), np.uint16))[1].tobytes(), "E_IMG_MODE"),
        (cv2.imencode(".png", np.zeros((8, 8, 4), np.uint8))[1].tobytes(), "E_IMG_MODE"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_reason(plates: Trial, data: bytes, code: str) -> None:
    with pytest.raises(ConfigError) as refused:
        plates.run(plates.choices()[0], data)
    assert refused.value.code == code


def test_one_picture_at_a_time(plates: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "WAIT_S", 0.01)
    with plates._busy, pytest.raises(DeviceError, match="another picture"):
        plates.run(plates.choices()[0], png())


def test_only_the_last_results_are_kept(plates: Trial) -> None:
    first = plates.run(plates.choices()[0], png())
    for _ in range(trial.KEPT_RESULTS):
        last = plates.run(plates.choices()[0], png())
    assert plates.result(first.token) is None
    assert plates.result(last.token) == last


@pytest.mark.skipif(not MODEL.exists(), reason="models/surface.onnx is not here")
def test_a_model_shows_classes_mask_and_boxes() -> None:
    surface = RecipeSettings(checks={"surface": Kind.model_validate({"kind": "surface", "model": str(MODEL), "mm_per_px": 0.2})})
    made = trial_of(surface=surface)
    assert [c.text for c in made.choices()] == ["recipe surface", "model surface"]
    found = made.run(made.choices()[1], (MODEL.parent / "surface.proof-0.png").read_bytes())
    assert found.part is None
    assert {c.name for c in found.classes} == {"scratch", "dent", "stain"}
    assert found.mask is not None
    mask = cv2.imdecode(np.frombuffer(found.mask, np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert mask.shape == (found.drawn.height, found.drawn.width, 4)
    marked = [c for c in found.classes if c.area_px]
    assert len(found.drawn.boxes) >= len(marked)
    assert bool(mask[..., 3].any()) >= bool(marked)


def test_a_person_tries_a_picture_in_the_browser() -> None:
    scene = Scene(board(("cam0", 0)))
    with scene.client() as client:
        page = client.post(
            "/try",
            headers=HERE,
            data={"choice": "0", "csrf": csrf_of(client.get("/try").text)},
            files={"picture": ("../../etc/passwd", photo(), "text/html")},
        )
        assert page.status_code == 200
        assert [r.status_code for r in page.history] == [303]
        assert "Recipe plate" in page.text
        assert "passwd" not in page.text
        picture = client.get(f"{page.url.path}/picture")
        assert (picture.headers["content-type"], picture.content) == ("image/png", photo())
        assert client.get(f"{page.url.path}/mask").status_code == 404


@pytest.mark.parametrize(
    ("fields", "files", "status", "code"),
    [
        ({"choice": "99"}, True, 400, "E_HTTP_VALUE"),
        ({"choice": "../x"}, True, 400, "E_HTTP_VALUE"),
        ({"choice": "x" * 9}, True, 400, "E_HTTP_VALUE"),
        ({}, True, 400, "E_HTTP_VALUE"),
        ({"choice": "0"}, False, 400, "E_HTTP_VALUE"),
    ],
)
def test_bad_forms_are_refused(fields: dict[str, str], files: bool, status: int, code: str) -> None:
    with Scene(board(("cam0", 0))).client() as client:
        response = client.post(
            "/try",
            headers=HERE,
            data=fields | {"csrf": csrf_of(client.get("/try").text)},
            files={"picture": ("x.png", png())} if files else None,
        )
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_no_picture_and_broken_forms_are_refused_in_one_shape() -> None:
    with Scene(board(("cam0", 0))).client() as client:
        text = client.post(
            "/try",
            headers=HERE,
            data={"choice": "0", "csrf": csrf_of(client.get("/try").text)},
            files={"picture": ("x.png", b"no picture")},
        )
        broken = client.post("/try", headers=HERE | {"content-type": "multipart/form-data; boundary=x"}, content=b"--y\r\n")
        json = client.post("/try", headers=HERE, json={"choice": "0"})
    assert (text.status_code, text.json()["error"]["code"]) == (415, "E_IMG_FORMAT")
    assert broken.status_code == json.status_code == 400
    assert {"error"} == set(broken.json()) == set(json.json())


def test_a_body_that_grows_beyond_its_limit_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.desk.guard.LARGEST_BODY_BYTES", 10_000)
    head = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="x.png"\r\n\r\n'
    pieces = iter([head, *[bytes(1000)] * 20, b"\r\n--x--\r\n"])  # chunked: no length is told
    with Scene(board(("cam0", 0))).client() as client:
        response = client.post("/try", headers=HERE | {"content-type": "multipart/form-data; boundary=x"}, content=pieces)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "E_HTTP_SIZE")
