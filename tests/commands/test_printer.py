"""What `inspector run` prints, whatever its subscriber was told in time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from inspector import config
from inspector.commands import run
from inspector.gate import arbiter as core
from inspector.gate import protocol
from inspector.gate.journal import Journal
from tests.gate import script


@pytest.mark.parametrize("keys", [False, True])
def test_verdicts_that_no_subscriber_heard_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], keys: bool
) -> None:
    made = script.running()
    out = []
    for seq in (1, 2, 3):
        out += made.step(seq * 100 * script.MS, core.Seen("top", seq, seq * 100 * script.MS, None, True, f"part-{seq}"))
        out += made.step((seq * 100 + 5) * script.MS, core.Judged("top", seq, "fail", 101, "", b"{}"))
    out += made.step(script.MS * 2000, core.Stop())
    journal = Journal.open(tmp_path, utc_clock=lambda: 0)
    journal.begin(script.EPOCH)
    journal.commit([each for each in out if isinstance(each, core.Record)])
    journal.close(clean=True)
    monkeypatch.setattr(run, "LAST_WORDS_S", 0.05)
    monkeypatch.setattr(config, "read", lambda path: SimpleNamespace(state_dir=tmp_path, security=object() if keys else None))
    printer = run.Printer(tmp_path / "line.yaml", as_json=True)
    nowhere = f"ipc://{tmp_path}/nobody"
    printer.start({"events": nowhere, "replay": nowhere}, protocol.epoch_text(script.EPOCH))
    if keys:  # the sockets let nobody in without one, and the line still runs
        until_s = time.monotonic() + 5.0
        while not printer._closed and time.monotonic() < until_s:
            time.sleep(0.01)
        assert printer._closed
    printer.finish()
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["part_uid"] for each in said] == ["part-1", "part-2", "part-3"]
