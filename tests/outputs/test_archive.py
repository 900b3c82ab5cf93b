"""What is kept, in which order it goes, and that a full disk costs pictures only."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from inspector.config import Archive as Settings
from inspector.outputs import archive
from inspector.outputs.archive import Archive, picture_of
from inspector.records import ConfigError, Decision, Frame, Stamp

DAY_NS = 1_795_224_268 * 10**9


def frame(seq: int, complete: bool = True) -> Frame:
    image = np.random.default_rng(seq).integers(0, 255, (256, 512), dtype=np.uint8)
    return Frame(Stamp("top", seq, 0, None, image.shape, complete), image)


def archived(folder: Path, decisions: list[Decision], **settings: int | bool) -> tuple[Archive, list[str | None]]:
    ticks = count(DAY_NS, 1_000_000_000)
    kept = Archive(Settings(**settings), folder, utc_ns=lambda: next(ticks))  # type: ignore[arg-type]
    references = []
    for seq, decision in enumerate(decisions, 1):
        reference = kept.wanted(frame(seq), decision)
        references.append(reference)
        if reference:
            kept.put(reference, frame(seq), json.dumps({"seq": seq}).encode())
            kept.step(0)
    return kept, references


def test_rejects_and_every_nth_pass_are_kept_without_loss(tmp_path: Path) -> None:
    decisions = [Decision.PASS, Decision.FAIL, Decision.PASS, Decision.UNJUDGED, Decision.PASS, Decision.PASS]
    kept, references = archived(tmp_path, decisions, every_nth_pass=2)
    assert [reference is not None for reference in references] == [False, True, True, True, False, True]
    for seq, reference in enumerate(references, 1):
        if reference:
            path = picture_of(tmp_path, reference)
            assert path is not None
            assert np.array_equal(np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)), frame(seq).image)
            assert json.loads(path.with_suffix(".json").read_text()) == {"seq": seq}
    assert kept.counts.written == 4


def test_a_broken_picture_is_not_kept(tmp_path: Path) -> None:
    kept, _ = archived(tmp_path, [])
    assert kept.wanted(frame(1, complete=False), Decision.UNJUDGED) is None


def test_the_budget_costs_the_oldest_passes_first_also_those_of_an_earlier_run(tmp_path: Path) -> None:
    passes = [Decision.PASS] * 4
    archived(tmp_path, passes, every_nth_pass=1, keep_mib=1)
    kept, references = archived(tmp_path, [Decision.FAIL] * 12, keep_mib=1)
    assert kept.kept_bytes <= 1 << 20
    left = sorted(path.stem for path in tmp_path.glob("*/*.png"))
    assert left == [reference for reference in references if reference][-len(left) :]
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) == kept.kept_bytes


def test_a_disk_that_refuses_costs_pictures_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        kept, references = archived(tmp_path, [Decision.FAIL])
    assert (kept.counts.dropped, kept.counts.written, kept.trouble) == (1, 0, "picture not kept: [Errno 28] No space left on device")
    assert references[0] is not None
    assert picture_of(tmp_path, references[0]) is None
    monkeypatch.setattr("inspector.outputs.archive.os.statvfs", lambda _: SimpleNamespace(f_bavail=1, f_frsize=4096))
    kept, _ = archived(tmp_path, [Decision.FAIL])
    assert "64 MiB left" in kept.trouble


def test_what_is_gone_from_the_folder_or_was_never_there_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (first, second, third) = archived(tmp_path, [Decision.FAIL] * 3)
    assert first is not None
    assert second is not None
    assert third is not None
    day = tmp_path / first[:8]
    (day / f"{first}.png").unlink()
    (day / f"{first}.png").symlink_to(tmp_path / "nowhere")
    (day / f"{second}.json").unlink()
    kept, _ = archived(tmp_path, [Decision.FAIL])
    assert kept.counts.written == 1
    sizes = [(day / name).stat().st_size for name in (f"{second}.png", f"{third}.png", f"{third}.json")]
    assert kept.kept_bytes >= sum(sizes)

    def unreadable(*_: object) -> list[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "glob", unreadable)
    kept = Archive(Settings(), tmp_path, utc_ns=lambda: DAY_NS)
    kept.step(0)
    assert "Permission denied" in kept.trouble


def test_a_picture_that_cannot_be_encoded_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> object:
        raise cv2.error("no memory")

    monkeypatch.setattr(cv2, "imencode", refuses)
    kept, _ = archived(tmp_path, [Decision.FAIL])
    assert (kept.counts.dropped, kept.counts.written) == (1, 0)


def test_a_full_queue_is_said_before_the_event_names_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_QUEUED_BYTES", 300_000)
    kept = Archive(Settings(), tmp_path, utc_ns=lambda: DAY_NS)
    first = kept.wanted(frame(1), Decision.FAIL)
    assert first is not None
    kept.put(first, frame(1), b"{}")
    second = kept.wanted(frame(2), Decision.FAIL)
    assert second is not None
    kept.put(second, frame(2), b"{}")
    assert kept.wanted(frame(3), Decision.FAIL) is None
    assert kept.counts.dropped == 1


def test_of_a_part_that_several_cameras_see_all_pictures_are_kept_or_none(tmp_path: Path) -> None:
    """Part 1 passes; of part 2 the first camera's pass is held until the second one rejects; of part 3 the rejected comes first."""
    ticks = count(DAY_NS, 1_000_000_000)
    kept = Archive(Settings(every_nth_pass=0), tmp_path, utc_ns=lambda: next(ticks))
    said = [(1, Decision.PASS), (1, Decision.PASS), (2, Decision.PASS), (2, Decision.FAIL), (3, Decision.FAIL), (3, Decision.PASS)]
    for seq, (part, decision) in enumerate(said, 1):
        reference = kept.wanted(frame(seq), decision, part)
        if reference:
            kept.put(reference, frame(seq), b"{}")
        else:
            kept.hold(frame(seq), b"{}", part)
    while kept.waiting():
        kept.step(0)
    assert sorted(int(path.stem.rpartition("-")[2]) for path in tmp_path.glob("*/*.png")) == [3, 4, 5, 6]
    for part in range(4, 300):  # what nobody asks for is let go
        kept.wanted(frame(1), Decision.PASS, part)
        kept.hold(frame(1), b"{}", part)
    assert kept._held_bytes <= archive.MOST_PARTS * frame(1).image.nbytes


def test_what_is_too_old_goes_and_of_what_is_too_much_the_passes_first_and_rejects_last(tmp_path: Path) -> None:
    now = [DAY_NS]
    kept = Archive(Settings(every_nth_pass=1, keep_days=2.0, keep_mib=1), tmp_path, utc_ns=lambda: now[0])

    def put(seq: int, letter: str) -> None:
        kept.put(kept.reference(frame(seq).stamp, letter), frame(seq), b"{}")
        kept.step(0)
        now[0] += 10**9

    put(1, "r")
    now[0] += 3 * archive.DAY_NS
    put(2, "r")
    assert [path.stem.rpartition("-")[2] for path in archive.pictures_in(tmp_path)] == ["2"]
    assert len(list(tmp_path.iterdir())) == 1, "a day that is empty goes too"
    for seq, letter in enumerate("srpsp" * 3, 3):
        put(seq, letter)
    letters = [path.name[26] for path in archive.pictures_in(tmp_path)]
    assert kept.kept_bytes <= 1 << 20
    assert letters.count("r") == 4
    assert "p" not in letters


def test_a_day_of_the_archive_and_all_of_it_are_read_alike(tmp_path: Path) -> None:
    archived(tmp_path, [Decision.FAIL, Decision.FAIL])
    found = archive.pictures_in(tmp_path)
    assert len(found) == 2
    assert archive.pictures_in(found[0].parent) == found


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1}'])
def test_what_is_no_record_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError) as raised:
        archive.read(tmp_path / "x.png")
    assert raised.value.code == "E_ARCHIVE_RECORD"


@pytest.mark.parametrize("reference", ["", "../../etc/passwd", "20261121-../x", "20261121-00000000000000aa-r-top-1/../../x", "a\0b"])
def test_a_reference_never_leaves_the_folder(tmp_path: Path, reference: str) -> None:
    assert picture_of(tmp_path, reference) is None
