"""Compiled templates on the disk: what is read is what was kept, and nothing else is taken."""

from __future__ import annotations

import logging
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inspector.geometry import kept, locate
from inspector.geometry.locate import Locator
from inspector.records import Template
from inspector.workshop.rendered import BACK_LIT, placed, render
from tests.geometry import parts

SIZE, SCALE = (800, 640), 8.0
PLATE = parts.plate()


class Maker:
    """Compiles, and counts how often."""

    def __init__(self, scale: float | None = SCALE, *, perspective: bool = False) -> None:
        self.scale, self.perspective, self.times = scale, perspective, 0

    def __call__(self) -> tuple[Template, Locator]:
        self.times += 1
        template = parts.template(*PLATE)
        return template, locate.compile(template, scale_px_per_mm=self.scale, perspective=self.perspective)


def the_file(folder: Path) -> Path:
    (file,) = folder.glob("*.npz")
    return file


@pytest.mark.parametrize(("scale", "perspective"), [(SCALE, False), (None, False), (None, True)])
def test_what_is_read_finds_and_measures_bit_for_bit_as_what_was_kept(tmp_path: Path, scale: float | None, perspective: bool) -> None:
    make = Maker(scale, perspective=perspective)
    template, fresh = kept.kept(tmp_path, lambda: "a", make)
    again, read = kept.kept(tmp_path, lambda: "a", make)
    assert make.times == 1
    assert (again.name, again.digest, again.mm_per_px, again.distances) == (
        template.name,
        template.digest,
        template.mm_per_px,
        template.distances,
    )
    assert again.sdf_mm.tobytes() == template.sdf_mm.tobytes()
    for seed in range(2):
        true = placed(PLATE, SIZE, 0.7 + seed, SCALE, (3.3, 4.4))
        cover = [(np.array([(0, 0), (380.0, 0), (300, 640)]), 120.0)] if scale else []
        image = render([c.points_mm for c in PLATE], true, SIZE, BACK_LIT, seed, covers=cover)
        (a,), (b,) = fresh.find(image), read.find(image)
        assert a.pose == b.pose
        assert a.gauged is not None
        assert b.gauged is not None
        assert a.gauged.deviation_mm.tobytes() == b.gauged.deviation_mm.tobytes()
    assert (the_file(tmp_path).stat().st_mode & 0o777) == 0o600


def test_another_drawing_or_another_version_of_the_code_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Maker()
    kept.kept(tmp_path, lambda: "a", make)
    kept.kept(tmp_path, lambda: "b", make)
    monkeypatch.setattr(kept, "_version", lambda: "another")
    kept.kept(tmp_path, lambda: "a", make)
    assert make.times == 3


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def words(file: Path) -> None:
    file.write_text("not a template")


def pickled(file: Path) -> None:
    np.savez(file, allow_pickle=True, text=np.array([{"root": Path}], object), digest=np.zeros(32, np.uint8))


def changed(file: Path) -> None:
    """Whole by the rules of zip, and other numbers."""
    with np.load(file) as data:
        arrays = dict(data)
    name = max(arrays, key=lambda each: arrays[each].nbytes)
    arrays[name] = arrays[name] + arrays[name].dtype.type(1)
    np.savez(file, allow_pickle=False, **arrays)


def of_others(file: Path) -> None:
    file.chmod(0o666)


def without_members(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("text.npy", b"")


@pytest.mark.parametrize("spoil", [truncated, flipped, empty, words, pickled, changed, of_others, without_members])
def test_a_spoilt_file_is_compiled_anew_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    make = Maker()
    kept.kept(tmp_path, lambda: "a", make)
    spoil(the_file(tmp_path))
    with caplog.at_level(logging.WARNING):
        kept.kept(tmp_path, lambda: "a", make)
    assert make.times == 2
    assert "is compiled anew" in caplog.text
    kept.kept(tmp_path, lambda: "a", make)
    assert make.times == 2


def test_what_changed_while_it_was_read_is_not_kept(tmp_path: Path) -> None:
    digests = iter("ab")
    kept.kept(tmp_path, lambda: next(digests), Maker())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_costs_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    template, _ = kept.kept(tmp_path / "file" / "templates", lambda: "a", Maker())
    assert template.contours == PLATE
    assert "is not kept" in caplog.text


def test_those_used_longest_ago_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.kept(tmp_path, lambda: "a", Maker())
    size = the_file(tmp_path).stat().st_size
    monkeypatch.setattr(kept, "MOST_BYTES", math.floor(2.5 * size))
    names: dict[str, Path] = {}
    for day, name in enumerate("abc"):
        kept.kept(tmp_path, lambda name=name: name, Maker())  # type: ignore[misc]
        (names[name],) = set(tmp_path.glob("*.npz")) - set(names.values())
        os.utime(names[name], (1e9 + day, 1e9 + day))
    assert set(tmp_path.glob("*.npz")) == {names["b"], names["c"]}


def test_commands_keep_theirs_where_the_desktop_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert kept.user_folder() == Path("/somewhere/inspector/templates")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert kept.user_folder() == Path.home() / ".cache/inspector/templates"
