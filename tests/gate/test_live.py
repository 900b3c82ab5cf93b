"""The gate's threads with a real client and a real subscriber."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from inspector.client import Decided, Gateway, Message, Subscriber, Told
from inspector.gate.journal import Item, Journal, Reader, verify
from inspector.gate.protocol import Flag
from inspector.records import ConfigError, Reason, Verdict
from inspector.runtime import link
from tests.gate.line import TERMS, running, until
from tests.gate.script import VECTORS
from tests.gate.test_protocol import _strict as strict


def _open(gateway: Gateway) -> None:
    until(lambda: gateway.poll(5) is not None and gateway.permit)


@pytest.mark.real
def test_a_part_passes_from_camera_to_plc_and_to_scada(tmp_path: Path) -> None:
    with running(tmp_path) as line, Gateway(line.gate.endpoints()["gate"], TERMS) as gateway:
        with Subscriber(line.gate.endpoints()["events"], replay=line.gate.endpoints()["replay"]) as scada:
            until(lambda: scada.receive(0.05) is None and scada.joined)
            _open(gateway)
            line.expose(1)
            line.expose(2, "fail", 101)
            decided: list[Decided] = []

            def _two() -> bool:
                decided.extend(h for h in gateway.poll(5) if isinstance(h, Decided))
                return len(decided) == 2

            until(_two)
            assert gateway.slot(0, 1).passes
            assert not gateway.slot(0, 2).passes
            assert decided[1].slot.verdict == Verdict.REJECT_DEFECT
            assert decided[1].slot.reason == 101
            seen = [scada.receive(2.0), scada.receive(2.0)]
            assert [m.event.body["verdict"] for m in seen if isinstance(m, Message)] == ["PASS", "REJECT_DEFECT"]
        counters = line.gate.counters()
        assert counters["unexplained"] == 0
        assert line.vision.send(link.Finished(True))
        line.gate.drain(2.0)
        assert line.gate.counters()["pending"] == 0
    assert list(verify(tmp_path / "state" / "journal.sqlite")) == []


@pytest.mark.real
def test_the_heartbeat_at_the_events_socket_keeps_its_schema(tmp_path: Path) -> None:
    schema = strict(json.loads((VECTORS.parent / "insp.hb.schema.json").read_text()))
    with ExitStack() as stack:
        line = stack.enter_context(running(tmp_path))
        ends = line.gate.endpoints()
        gateway = stack.enter_context(Gateway(ends["gate"], TERMS))
        scada = stack.enter_context(Subscriber(ends["events"], replay=ends["replay"]))
        _open(gateway)
        until(lambda: scada.receive(0.05) is None and bool(scada.status.get("sessions")))
        jsonschema.Draft202012Validator(schema).validate(scada.status)
        assert scada.status["schema"] == "insp.hb"


@pytest.mark.real
def test_a_pass_that_waits_for_the_disk_is_kept_before_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_door, commit = threading.Event(), Journal.commit

    def commit_behind_the_door(journal: Journal, items: Sequence[Item]) -> None:
        open_door.wait(5.0)
        commit(journal, items)

    monkeypatch.setattr(Journal, "commit", commit_behind_the_door)
    open_door.set()
    with running(tmp_path, durable_pass_ms=400) as line, Gateway(line.gate.endpoints()["gate"], TERMS) as gateway:
        _open(gateway)
        open_door.clear()
        line.expose(1)
        time.sleep(0.1)
        assert not [h for h in gateway.poll(5) if isinstance(h, Decided)]
        open_door.set()
        decided: list[Decided] = []

        def come() -> bool:
            decided.extend(h for h in gateway.poll(5) if isinstance(h, Decided))
            return bool(decided)

        until(come)
        with closing(Reader(tmp_path / "state" / "journal.sqlite")) as reader:
            assert reader.events("q", decided[0].header.epoch, 1, 1, 1)
        assert decided[0].slot.passes
        assert decided[0].header.flags & Flag.DURABLE
        assert json.loads(decided[0].payload)["durable_at_send"] is True


@pytest.mark.real
def test_a_reader_that_stays_makes_the_log_grow_and_that_is_an_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.runtime.gate.LARGEST_LOG_BYTES", 60_000)
    with running(tmp_path) as line, closing(sqlite3.connect(tmp_path / "state" / "journal.sqlite", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM event").fetchone()
        for seq in range(1, 41):
            line.expose(seq)
        until(lambda: any(labels == {"code": "JOURNAL_LOG"} for family in line.gate.metrics() for labels, _ in family.samples))


@pytest.mark.real
def test_a_pass_cannot_wait_for_a_disk_that_is_too_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_sync(descriptor: int) -> None:
        time.sleep(0.005)

    monkeypatch.setattr("os.fsync", slow_sync)
    with pytest.raises(ConfigError, match="3 ×") as caught, running(tmp_path, durable_pass_ms=10):
        pass
    assert caught.value.code == "E_DURABLE"


@pytest.mark.real
def test_vision_dead_rejects_and_holds_until_it_is_back(tmp_path: Path) -> None:
    with running(tmp_path) as line, Gateway(line.gate.endpoints()["gate"], TERMS) as gateway:
        _open(gateway)
        line.expose(1, None)
        until(lambda: line.gate.counters()["pending"] == 1)
        line.vision.close()
        until(lambda: line.gate.counters()["not_inspected"] == 1)
        until(lambda: gateway.poll(5) is not None and gateway.slot(0, 1).decided)
        assert gateway.slot(0, 1).reason == Reason.STAGE_DEAD
        until(lambda: gateway.poll(5) is not None and not gateway.permit)
        line.attach()
        _open(gateway)
        line.expose(1)
        until(lambda: gateway.poll(5) is not None and gateway.slot(0, 2).passes)


@pytest.mark.real
def test_a_second_gateway_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with running(tmp_path) as line, Gateway(line.gate.endpoints()["gate"], TERMS) as first:
        _open(first)
        with Gateway(line.gate.endpoints()["gate"], TERMS) as second:
            told: list[Told] = []

            def _refused() -> bool:
                first.poll(1)
                told.extend(h for h in second.poll(5) if isinstance(h, Told))
                return any(t.name == "REFUSE" and t.body["code"] == "E_BUSY" for t in told)

            until(_refused)
            assert not second.permit
        assert first.permit


@pytest.mark.real
def test_no_gateway_no_permit_but_verdicts_and_events(tmp_path: Path) -> None:
    with running(tmp_path) as line:
        with Subscriber(line.gate.endpoints()["events"], stream="a") as scada:
            time.sleep(0.1)
            line.expose(1)
            until(lambda: line.gate.counters()["pass"] == 1)
            assert not line.gate.status().permit
            line.vision.close()
            item = None
            while not (isinstance(item, Message) and item.event.body.get("code") == "STAGE_DEAD"):
                item = scada.receive(2.0)
                assert item is not None
        assert threading.active_count() >= 4
