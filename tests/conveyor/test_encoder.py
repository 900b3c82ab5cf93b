from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.conveyor.encoder import Settings, build, unwrapped_step
from inspector.records import DeviceError


@given(st.integers(8, 64), st.integers(0), st.data())
def test_a_step_is_undone_the_short_way_round(bits: int, start: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1))
    assert unwrapped_step(start % (1 << bits), (start + step) % (1 << bits), bits) == step


def test_the_position_runs_on_over_the_wrap(tmp_path: Path) -> None:
    file = tmp_path / "count"
    file.write_text("250\n")
    encoder = build(Settings(count=file, bits=8), "belt")
    encoder.start(0)
    seen = []
    for raw in (255, 5, 100, 200, 44, 30):
        file.write_text(f"{raw}\n")
        seen.append(encoder.counts(0))
    assert seen == [255, 261, 356, 456, 556, 542]
    assert encoder.triggers(0, 1 << 62) == ()


def test_processes_that_start_apart_agree(tmp_path: Path) -> None:
    file = tmp_path / "count"
    file.write_text("100")
    first, second = (build(Settings(count=file, bits=16, backwards=True), "belt") for _ in range(2))
    first.start(0)
    file.write_text("150")
    second.start(0)
    file.write_text("160")
    assert first.counts(0) == second.counts(0) == -160


@pytest.mark.parametrize("content", [None, "", "ticks"])
def test_an_encoder_that_cannot_be_read_is_a_device_error(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "count"
    if content is not None:
        file.write_text(content)
    encoder = build(Settings(count=file), "belt")
    with pytest.raises(DeviceError, match=r"encoder .*count"):
        encoder.start(0)
