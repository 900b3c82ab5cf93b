"""Pictures on which a recipe in shadow said something else, from the archive to the page of changeover."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspector.desk.disagreements import LOOK_EVERY_NS, Disagreements
from inspector.outputs import archive
from inspector.outputs.archive import Judgement, Stored
from inspector.records import Decision, Stamp
from tests.desk.events import POSE, board, png
from tests.desk.test_app import Scene

BEGAN_NS = 1_795_224_268_000_000_000
EVIDENCE = {"class_name": "scratch", "score": 0.9, "threshold": 0.5, "bbox_px": [150.0, 140.0, 30.0, 20.0], "area_mm2": 3.0}


def judgement(recipe: str, decision: Decision, value: float | str) -> Judgement:
    bad = decision is Decision.FAIL
    finding = {"check": "outline", "feature": "hole-1", "value": value, "low": -0.1, "high": 0.1, "unit": "mm", "at_mm": [12.0, 30.0]}
    text = f"outline hole-1: {value} mm" if bad else ""
    return Judgement(
        "ab" * 32, "p", recipe, 1, decision, 101 if bad else 0, None, text, (finding | {"evidence": EVIDENCE if bad else None},), POSE
    )


def keep(folder: Path, n: int, letter: str = "s", day: str = "20261121") -> str:
    """A stored picture: recipe plate passes it, and gear, in shadow where it is one, does not."""
    reference = f"{day}-{BEGAN_NS + n:016x}-{letter}-cam0-{n}"
    (folder / day).mkdir(parents=True, exist_ok=True)
    shadow = judgement("gear", Decision.FAIL, "nan" if n == 3 else 0.2) if letter == "s" else None
    stamp = Stamp("cam0", n, 1, 1, (400, 600))
    record = Stored(BEGAN_NS + n, 0, "0", stamp, True, judgement("plate", Decision.PASS, 0.01), shadow)
    (folder / day / f"{reference}.json").write_bytes(archive.encode(record))
    (folder / day / f"{reference}.png").write_bytes(png())
    return reference


def test_the_newest_are_found_and_new_ones_after_a_while(tmp_path: Path) -> None:
    now = [0]
    found = Disagreements(tmp_path, clock=lambda: now[0])
    for n, day in enumerate(("20261120", "20261121", "20261121"), 1):
        keep(tmp_path, n, day=day)
    keep(tmp_path, 9, "r")
    assert [each.parts[0].exposures[0].frame_id for each in found.last(10)] == [3, 2, 1]
    assert [each.parts[0].exposures[0].frame_id for each in found.last(2)] == [3, 2]
    keep(tmp_path, 4)
    assert len(found.last(10)) == 3, "it does not look again at once"
    now[0] += LOOK_EVERY_NS + 1
    newest = found.last(10)[0]
    assert newest.parts[0].exposures[0].frame_id == 4
    assert found.of(newest.key) == newest
    assert found.of("x" * 22) is None
    present, shadow = newest.parts
    assert (present.recipe_name, present.passed, [f.ok for f in present.findings]) == ("plate", True, [True])
    assert (shadow.recipe_name, shadow.passed, [f.ok for f in shadow.findings]) == ("gear", False, [False])
    assert shadow.defects[0].bbox_px == (150.0, 140.0, 30.0, 20.0)


def test_what_cannot_be_read_or_is_gone_is_left_out(tmp_path: Path) -> None:
    assert Disagreements(tmp_path / "none", clock=lambda: 0).last(5) == []
    for n in (1, 2, 3):
        reference = keep(tmp_path, n)
    (tmp_path / "20261121" / f"{reference}.json").unlink()
    (tmp_path / "20261121" / "20261121-zzz-s-cam0-9.png").write_bytes(b"")
    (tmp_path / "lost+found").mkdir()
    assert [each.parts[0].exposures[0].frame_id for each in Disagreements(tmp_path, clock=lambda: 0).last(5)] == [2, 1]


def test_what_is_no_number_is_shown_as_none(tmp_path: Path) -> None:
    keep(tmp_path, 3)
    (found,) = Disagreements(tmp_path, clock=lambda: 0).last(5)
    assert (found.parts[1].findings[0].value, found.parts[1].findings[0].ok) == (None, False)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    keep(tmp_path / "pictures", 1)
    return Scene(board(("cam0", 0), ("cam1", 1)), folder=tmp_path)


def test_the_page_shows_both_words_and_the_picture(scene: Scene) -> None:
    with scene.client() as client:
        changeover = client.get("/changeover").text
        assert "Where they disagreed" in changeover
        assert "plate → gear" in changeover
        (link,) = {part.split('"')[0] for part in changeover.split('href="')[1:] if part.startswith("/shadow/")}
        page = client.get(link).text
        assert "Present: plate" in page
        assert "In shadow: gear" in page
        assert "outline hole-1: 0.2 mm" in page
        assert client.get(f"{link}/picture").content == png()
        assert client.get(f"{link}/thumb").headers["content-type"] == "image/jpeg"
        assert client.get("/shadow/" + "x" * 22).status_code == 404
        assert client.get("/shadow/..%2f..%2fetc").status_code in (400, 404)


def test_a_picture_that_the_archive_let_go_is_said_to_be_gone(scene: Scene) -> None:
    with scene.client() as client:
        link = "/shadow/" + client.get("/changeover").text.split('href="/shadow/')[1].split('"')[0]
        for path in (scene.folder / "pictures").glob("*/*.png"):
            path.unlink()
        assert "The picture is no longer kept." in client.get(link).text
        assert client.get(f"{link}/picture").status_code == 404
        assert client.get(f"{link}/thumb").status_code == 404
