"""The arbiter without threads: what a gateway may say and what it hears, when there is a permit, and the account after anything at all."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from inspector.gate import arbiter as core
from inspector.gate import protocol
from inspector.gate.arbiter import Arbiter, EpochHead, Record, Send, State
from inspector.gate.gateway import Gateway, Terms
from inspector.gate.guards import Guards
from inspector.gate.ledger import Vote, fuse
from inspector.records import Decision, Reason, Verdict
from tests.gate import script
from tests.gate.line import body
from tests.gate.script import EPOCH, HELLO, MS, running


def say(made: Arbiter, at_ms: int, name: str, said: dict[str, Any], identity: bytes = b"g") -> list[core.Output]:
    return made.step(at_ms * MS, core.Received(identity, "", protocol.command(name, said)))


def told(out: list[core.Output], name: str) -> list[dict[str, Any]]:
    return [protocol.loads(o.frames[2]) for o in out if isinstance(o, Send) and o.frames[0] == name.encode()]


def codes(out: list[core.Output]) -> list[str]:
    return [b["code"] for o in out if isinstance(o, Record) and (b := protocol.loads(o.payload))["schema"] == "insp.alarm"]


def verdicts(out: list[core.Output]) -> list[tuple[str, int]]:
    return [(Verdict(o.header.verdict).name, o.header.reason) for o in out if isinstance(o, Record) and o.header.kind == 1]


def permit(made: Arbiter) -> bool:
    return made.permit


def expose(made: Arbiter, seq: int, at_ms: int, decision: str = "pass", reason: int = 0, text: bytes | None = None) -> list[core.Output]:
    out = made.step(at_ms * MS, core.Seen("top", seq, at_ms * MS, None, True, None))
    return out + made.step((at_ms + 5) * MS, core.Judged("top", seq, decision, reason, "", body() if text is None else text))


# --- HELLO -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"proto": {"majors": [9]}}, "E_VERSION"),
        ({"proto": None}, "E_VERSION"),
        ({"station": "other"}, "E_STATION"),
        ({"profile": "maybe"}, "E_FIELD"),
        ({"profile": "fire"}, "E_FIELD"),
        ({"credit": 0}, "E_FIELD"),
        ({"credit": 10**9}, "E_FIELD"),
        ({"travel_min_ms": -1}, "E_FIELD"),
        ({"lease_ms": 900}, "E_TIMING"),
        ({"lease_ms": 299}, "E_TIMING"),
        ({"travel_min_ms": 500}, "E_TIMING"),
        ({"lanes": [7]}, "E_FIELD"),
        ({"client": ""}, "E_FIELD"),
        ({"last": {"q": 3}}, "E_FIELD"),
        ({"last": {"q": {"epoch": "x", "seq": "1"}}}, "E_FIELD"),
    ],
)
def test_what_hello_is_refused_for(change: dict[str, Any], code: str) -> None:
    made = script.arbiter()
    refused = told(say(made, 1, "HELLO", {**HELLO, **change}), "REFUSE")
    assert [entry["code"] for entry in refused] == [code]
    assert refused[0]["text"]
    assert not made.sessions


def test_a_lane_has_one_gateway_until_it_is_silent() -> None:
    made = running()
    assert told(say(made, 100, "HELLO", HELLO, b"other"), "REFUSE")[0]["code"] == "E_BUSY"
    assert list(made.sessions) == [b"g"]
    out = say(made, 1000, "HELLO", HELLO, b"other")
    assert told(out, "WELCOME")
    assert list(made.sessions) == [b"other"]


def test_a_gateway_that_has_seen_more_than_the_journal_is_a_rollback() -> None:
    before = bytes(15) + b"\1"
    made = Arbiter(script.settings(), epoch=EPOCH, now_ns=0, chain={}, epochs=[EpochHead(before, {"q": 10, "a": 0}, False)])
    said = {"q": {"epoch": protocol.epoch_text(before), "seq": "10"}}
    assert "JOURNAL_ROLLBACK" not in codes(say(made, 1, "HELLO", {**HELLO, "last": said}))
    said["q"]["seq"] = "11"
    assert "JOURNAL_ROLLBACK" in codes(say(made, 2, "HELLO", {**HELLO, "last": said}))
    said["q"]["epoch"] = protocol.epoch_text(bytes(16))
    assert "JOURNAL_ROLLBACK" in codes(say(made, 3, "HELLO", {**HELLO, "last": said}))


# --- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([], "frames"),
        ([b"HB"], "frames"),
        ([b"HB", b"", b"{}", b""], "frames"),
        ([b"NO", b"", b"{}"], "command"),
        ([b"HB", b"", b"\xff"], "json"),
        ([b"HB", b"", b"[" * 16000], "json"),
        ([b"HB", b"", b"x" * 20_000], "size"),
        ([b"HB", b"1234", b"{}"], "crc"),
        ([b"RETURN", b"x" * 63, b""], "short"),
        ([b"RETURN", b"x" * 64, b""], "magic"),
        ([b"RETURN", b"INSP\x09" + bytes(59), b""], "major"),
    ],
)
def test_garbage_costs_a_counter_and_twenty_a_minute_the_session(frames: list[bytes], why: str) -> None:
    made = running()
    out: list[core.Output] = []
    for i in range(20):
        assert b"g" in made.sessions
        out = made.step(i * MS, core.Received(b"g", "", frames))
    assert made.faults == {why: 20}
    assert told(out, "REFUSE")[0]["code"] == "E_PROTO"
    assert not made.sessions


GOOD: dict[str, dict[str, Any]] = {
    "HELLO": HELLO,
    "CREDIT": {"n": 4},
    "ACK": {"epoch": protocol.epoch_text(EPOCH), "upto": "1"},
    "EXEC": {"epoch": protocol.epoch_text(EPOCH), "seq": "1", "part_seq": "1", "outcome": "PASSED", "encoder": 7},
    "TRIG": {"lane": 0, "part_seq": "2", "encoder": 7, "gw_mono_us": "20000", "challenge": False},
    "HB": {"mono_ns": "1", "plc_count": {"0": 1}},
    "PING": {},
}


def seen_by_plc() -> Arbiter:
    """A line that a PLC counts for, with one part that has its verdict."""
    made = running(count="plc")
    say(made, 1, "TRIG", {"lane": 0, "part_seq": "1", "encoder": 1})
    expose(made, 1, 2)
    return made


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("EXEC", {"outcome": []}, "field"),
        ("EXEC", {"outcome": {}}, "field"),
        ("EXEC", {"encoder": 10**30}, "field"),
        ("EXEC", {"encoder": -(1 << 63)}, "field"),
        ("EXEC", {"encoder": 1.5}, "field"),
        ("EXEC", {"seq": 1 << 64}, "field"),
        ("TRIG", {"lane": 0.0}, "range"),
        ("TRIG", {"lane": False}, "range"),
        ("TRIG", {"lane": [0]}, "range"),
        ("TRIG", {"encoder": 10**30}, "field"),
        ("TRIG", {"encoder": True}, "field"),
        ("TRIG", {"gw_mono_us": -1}, "field"),
        ("HB", {"plc_count": {"²": 1}}, "field"),
        ("HB", {"plc_count": {"0": 10**30}}, "field"),
        ("HB", {"plc_count": {"0": True}}, "field"),
        ("HB", {"plc_count": []}, "field"),
        ("CREDIT", {"n": 1.0}, "field"),
        ("ACK", {"upto": None}, "field"),
    ],
)
def test_a_wrong_value_is_refused_and_changes_nothing(name: str, change: dict[str, Any], why: str) -> None:
    made = seen_by_plc()
    before = made.ledger.counters
    out = say(made, 20, name, {**GOOD[name], **change})
    assert made.faults == {why: 1}
    assert made.ledger.counters == before
    assert not [o for o in out if isinstance(o, core.Executed)]
    say(made, 21, name, GOOD[name])
    assert made.faults == {why: 1}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.integers(-2, 3) | st.floats(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.sampled_from(["0", "q"]), inner, max_size=3),
    max_leaves=6,
)


@given(
    changes=st.lists(
        st.sampled_from([(name, key) for name, body_ in GOOD.items() for key in [*body_, "more"]]).flatmap(
            lambda at: st.tuples(st.just(at[0]), st.just(at[1]), JSON)
        ),
        min_size=1,
        max_size=6,
    )
)
@budget(max_examples=400, deadline=None)
def test_no_value_of_any_field_ends_the_arbiter(changes: list[tuple[str, str, Any]]) -> None:
    made = seen_by_plc()
    for i, (name, key, value) in enumerate(changes):
        for out in say(made, 20 + i, name, {**GOOD[name], key: value}):
            if isinstance(out, core.Executed):
                assert out.encoder is None or abs(out.encoder) < 1 << 63
    made.step(5000 * MS, core.Tick())
    assert made.ledger.counters.unexplained == made.ledger.counters.pending == 0


def test_no_depth_of_nesting_ends_the_arbiter() -> None:
    for depth in range(700, 1000):
        made = running()
        payload = b'{"outcome":' + b"[" * depth + b"]" * depth + b"}"
        made.step(20 * MS, core.Received(b"g", "", [b"EXEC", b"", payload]))
        assert sum(made.faults.values()) == 1


@pytest.mark.parametrize("name", ["ACK", "EXEC", "TRIG", "HB", "CREDIT", "BYE", "RETURN"])
def test_nothing_before_hello(name: str) -> None:
    made = script.arbiter()
    say(made, 1, name, {})
    assert made.faults == {"state": 1}


def test_an_ack_of_what_was_never_sent_ends_the_session() -> None:
    for wrong in ({"epoch": protocol.epoch_text(EPOCH), "upto": "99"}, {"epoch": protocol.epoch_text(bytes(16)), "upto": "0"}):
        made = running()
        expose(made, 1, 10)
        out = say(made, 20, "ACK", wrong)
        assert "E_ACK" in codes(out)
        assert not made.sessions


def test_what_withholds_the_permit_from_one_gateway_is_said() -> None:
    made = running(cameras={"top": 0, "side": 1})
    assert made.withheld(0) == {}
    say(made, 10, "EXEC", {"outcome": "BIN_FULL"})
    expose(made, 1, 20)
    for at_ms in range(100, 700, 100):
        say(made, at_ms, "HB", {})
    assert "ACK" in made.withheld(600 * MS)["plc-1"]
    assert "BIN_FULL" in made.withheld(600 * MS)["plc-1"]
    assert "silent" in made.withheld(950 * MS)["plc-1"]
    say(made, 960, "BYE", {})
    assert made.withheld(960 * MS) == {"lane 0": "no gateway serves it", "lane 1": "no gateway serves it"}


def test_cameras_that_take_a_part_for_two_leave_it_undecided() -> None:
    def fused(uids: tuple[str | None, str | None], side: str = "pass") -> tuple[str, int]:
        made = running(count="plc", cameras={"top": 0, "side": 0})
        say(made, 9, "TRIG", {"part_seq": "1", "encoder": 100})
        for camera, uid, decision in zip(("top", "side"), uids, ("pass", side), strict=True):
            made.step(10 * MS, core.Seen(camera, 1, 10 * MS, 100, True, uid))
            out = made.step(15 * MS, core.Judged(camera, 1, decision, 101 if decision == "fail" else 0, "", body()))
        return verdicts(out)[0]

    assert fused(("a", "a")) == fused(("a", None)) == ("PASS", 0)
    assert fused(("a", "b")) == ("REJECT_UNDECIDABLE", int(Reason.CAMERAS_DISAGREE))
    assert fused(("a", "b"), "fail") == ("REJECT_DEFECT", 101)


def test_of_several_cameras_each_is_told_with_its_own_picture_and_the_event_is_of_the_one_that_decided() -> None:
    def seen(camera: str, recipe: str) -> bytes:
        said = {"camera": {"cam_id": camera}, "image_ref": f"of-{camera}", "pose": {"x_px": len(camera)}, "recipe": "ab" * 32}
        return json.dumps(said | {"recipe_name": recipe, "findings": [{"check": "c", "ok": True, "cam_id": camera}]}).encode()

    def told(**decisions: str) -> dict[str, Any]:
        made = running(count="plc", cameras=dict.fromkeys(decisions, 0))
        say(made, 9, "TRIG", {"part_seq": "1", "encoder": 100})
        for camera, decision in decisions.items():
            made.step(10 * MS, core.Seen(camera, 1, 10 * MS, 100, True, None))
            reason = {"fail": 101, "unjudged": 205}.get(decision, 0)
            out = made.step(15 * MS, core.Judged(camera, 1, decision, reason, "", seen(camera, f"for-{camera}")))
        event: dict[str, Any] = next(json.loads(o.payload) for o in out if isinstance(o, Record) and o.stream == "q")
        return event

    event = told(top="pass", side="fail", below="unjudged")
    assert (event["image_ref"], event["pose"], event["recipe"]["name"]) == ("of-side", {"x_px": 4}, "for-side")
    assert [(c["cam_id"], c["image_ref"], c["pose"]["x_px"], c["recipe"]) for c in event["cameras"]] == [
        ("top", "of-top", 3, "for-top"), ("side", "of-side", 4, "for-side"), ("below", "of-below", 5, "for-below")
    ]  # fmt: skip
    assert [found["cam_id"] for found in event["findings"]] == ["top", "side", "below"]
    assert told(top="pass", below="unjudged")["image_ref"] == "of-below"
    assert told(top="fail")["cameras"] == [{"cam_id": "top"}]


def test_a_part_of_which_an_old_picture_came_says_so() -> None:
    made = running(count="plc")
    for part, at_ms in ((1, 10), (2, 110)):
        say(made, at_ms - 1, "TRIG", {"part_seq": str(part), "encoder": 100 * part})
        made.step(at_ms * MS, core.Seen("top", part, 10 * MS, 100, True, None))
    say(made, 210, "TRIG", {"part_seq": "3", "encoder": 300})
    out = [each for at_ms in range(220, 1000, 10) for each in made.step(at_ms * MS, core.Tick())]
    events = [json.loads(o.payload) for o in out if isinstance(o, Record) and o.stream == "q"]
    assert {e["part_seq"]: e["reason"] for e in events} == {"1": 208, "2": int(Reason.TRIGGER_MISMATCH), "3": int(Reason.FRAME_LOST)}
    assert "exposure 2 of top is older" in events[1]["reason_text"]


def test_an_ack_confirms_its_verdict_and_not_one_lost_before_it() -> None:
    made = running()
    for seq in (1, 2, 3):
        expose(made, seq, 10 * seq)
    say(made, 36, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "3", "seq": "3"})
    again = [o.frames for o in made.step(60 * MS, core.Tick()) if isinstance(o, Send) and o.frames[0] == b"VERDICT"]
    assert [protocol.parse(*frames[1:]).seq for frames in again] == [1, 2]
    say(made, 61, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "3", "seq": "1"})
    acked = [
        o.seq for o in say(made, 62, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "3", "seq": "2"}) if isinstance(o, core.Acked)
    ]
    assert acked == [3]
    assert not made.sessions[b"g"].sent


def test_with_profile_fire_every_verdict_is_confirmed_by_itself() -> None:
    line = replace(script.settings().line, fire_lease_ms=300)
    made = Arbiter(replace(script.settings(), profile="fire", line=line), epoch=EPOCH, now_ns=0, chain={})
    made.step(0, core.Attached("ab" * 32, [], []), core.Begin())
    say(made, 1, "HELLO", {**HELLO, "profile": "fire"})
    expose(made, 1, 10)
    assert told(say(made, 20, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "1"}), "REFUSE")[0]["code"] == "E_FIELD"
    say(made, 21, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "1", "seq": "1"})
    assert not made.sessions[b"g"].sent


def test_exec_of_an_unknown_part_and_twice() -> None:
    made = running()
    expose(made, 1, 10)
    good = {"epoch": protocol.epoch_text(EPOCH), "seq": "1", "part_seq": "1", "outcome": "PASSED", "encoder": None}

    def answer(**more: str) -> list[str]:
        return [each["code"] for each in told(say(made, 20, "EXEC", {**good, **more}), "REFUSE")]

    assert answer(part_seq="2") == ["E_RANGE"]
    assert answer(seq="9") == ["E_RANGE"]
    assert answer(epoch=protocol.epoch_text(bytes(16))) == ["E_EPOCH"]
    assert [o for o in say(made, 22, "EXEC", good) if isinstance(o, core.Executed)]
    assert answer() == ["E_DUP"]
    assert made.faults == {"unknown": 2, "dup": 1, "epoch": 1}
    plc = Gateway(Terms("plc-1", "cell-1"), session=1)
    for code in ("E_DUP", "E_RANGE", "E_EPOCH", "E_FIELD"):
        plc.receive(0, protocol.command("REFUSE", {"code": code, "text": ""}))
    assert plc.session


@pytest.mark.parametrize("outcome", ["BIN_FULL", "AIR_LOW", "TEST_OK"])
def test_exec_of_the_lanes_closes_the_account_of_its_part_as_well(outcome: str) -> None:
    made = script.arbiter()
    made.step(0, core.Attached("ab" * 32, [["net", "cd" * 32]], []), core.Begin())
    say(made, 0, "HELLO", {**HELLO, "executes": True})
    expose(made, 1, 10, "fail", 101)
    said = {"epoch": protocol.epoch_text(EPOCH), "seq": "1", "part_seq": "1", "outcome": outcome, "encoder": 7}
    out = say(made, 20, "EXEC", said)
    assert [o for o in out if isinstance(o, core.Executed)] == [core.Executed(1, 0, 1, outcome, 7)]
    assert permit(made) == (outcome == "TEST_OK")
    out = say(made, 30, "EXEC", {**said, "outcome": "TEST_OK"})  # of the same part: the ejector is mended, the account is closed
    assert not told(out, "REFUSE")
    assert not [o for o in out if isinstance(o, core.Executed)]
    assert permit(made)
    for at_ms in range(40, 4000, 20):
        assert "EJECT_UNCONFIRMED" not in codes(made.step(at_ms * MS, core.Tick()))


def test_exec_is_of_the_sessions_own_lanes() -> None:
    made = running(cameras={"top": 0, "side": 1})
    say(made, 1, "HELLO", {**HELLO, "lanes": [0]})
    expose(made, 1, 10)
    made.step(20 * MS, core.Seen("side", 1, 20 * MS, None, True, None))
    made.step(25 * MS, core.Judged("side", 1, "fail", 101, "", body()))
    out = say(made, 30, "EXEC", {"epoch": protocol.epoch_text(EPOCH), "seq": "2", "part_seq": "1", "outcome": "PASSED", "encoder": None})
    assert [each["code"] for each in told(out, "REFUSE")] == ["E_RANGE"]
    assert "REJECT_PASSED" not in codes(out)
    assert not [o for o in out if isinstance(o, core.Executed)]


def test_a_reject_that_passed_withholds_the_permit_until_tested() -> None:
    made = running()
    expose(made, 1, 10, "fail", 101)
    say(made, 16, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "1"})
    assert permit(made)
    out = say(made, 20, "EXEC", {"epoch": protocol.epoch_text(EPOCH), "seq": "1", "part_seq": "1", "outcome": "PASSED", "encoder": 1})
    assert "REJECT_PASSED" in codes(out)
    assert not permit(made)
    say(made, 30, "EXEC", {"outcome": "TEST_OK"})
    assert permit(made)


@pytest.mark.parametrize("outcome", ["BIN_FULL", "AIR_LOW"])
def test_a_new_session_does_not_mend_an_ejector(outcome: str) -> None:
    made = running()
    assert permit(made)
    say(made, 10, "EXEC", {"outcome": outcome})
    say(made, 20, "HELLO", HELLO)
    assert not permit(made)
    say(made, 30, "EXEC", {"outcome": "TEST_OK"})
    assert permit(made)


def unconfirmed() -> core.Arbiter:
    """A line whose one verdict was not confirmed in time, and a new session of its gateway, from 700 ms on."""
    made = running()
    expose(made, 1, 10)
    for at_ms in range(100, 700, 100):
        say(made, at_ms, "HB", {})
    say(made, 700, "HELLO", HELLO)
    return made


def test_what_was_not_confirmed_withholds_the_permit_over_a_new_session() -> None:
    made = unconfirmed()
    assert not permit(made)
    expose(made, 2, 710)
    say(made, 720, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "2"})
    assert permit(made)


def test_what_was_not_confirmed_is_offered_again_in_the_next_session() -> None:
    """The gateway lost its lease, not its connection: on a line that stands no other verdict would come for it to confirm."""
    made = unconfirmed()
    again = [o.frames for at_ms in range(701, 1000) for o in made.step(at_ms * MS, core.Tick()) if isinstance(o, Send)]
    orders = [protocol.parse(head, payload) for name, head, payload in again if name == b"VERDICT"]
    assert {(order.seq, order.ttl_us, order.flags & protocol.Flag.RESEND) for order in orders} == {(1, 0, protocol.Flag.RESEND)}
    assert not permit(made)
    say(made, 1000, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "1", "seq": "1"})
    assert permit(made)


def test_a_verdict_that_waits_behind_one_with_more_time_is_missed_at_its_own_deadline() -> None:
    """The gateway confirms nothing, its credit is 1, and the earlier part was judged after the later one."""
    made = running(count="conveyor")
    say(made, 1, "HELLO", {**HELLO, "credit": 1})
    made.step(10 * MS, core.Triggered(1, 0, 10 * MS, None))
    made.step(11 * MS, core.Seen("top", 1, 11 * MS, None, True, None))
    for part, at_ms in ((2, 120), (3, 250)):
        made.step(at_ms * MS, core.Triggered(part, 0, at_ms * MS, None))
        made.step((at_ms + 1) * MS, core.Seen("top", part, (at_ms + 1) * MS, None, True, None))
        made.step((at_ms + 10) * MS, core.Judged("top", part, "pass", 0, "", body()))
    made.step(270 * MS, core.Judged("top", 1, "fail", 101, "", body()))
    session = made.sessions[b"g"]
    assert [order.part_seq for order in session.sent] == [2]
    assert [order.part_seq for order in session.queue] == [3, 1]
    first_ms, later_ms = session.queue[1].deadline_ns // MS, session.sent[0].deadline_ns // MS
    out: list[core.Output] = []
    for at_ms in range(280, first_ms + 21, 10):
        out += say(made, at_ms, "HB", {})
        assert at_ms >= first_ms or permit(made)
    assert first_ms + 20 < later_ms
    assert not permit(made)
    assert "DELIVERY_UNCONFIRMED" in codes(out)
    say(made, first_ms + 30, "HELLO", {**HELLO, "credit": 1})
    assert not permit(made)
    assert [order.part_seq for order in made.sessions[b"g"].sent] == [1]
    say(made, first_ms + 40, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "3", "seq": "3"})
    assert permit(made)


@pytest.mark.parametrize("mended", ["hello", "camera", "vision"])
def test_a_line_that_stands_can_see_again(mended: str) -> None:
    made = running(count="plc", guards=Guards(blind_in_row=1))
    made.step(10 * MS, core.Judged("top", 1, "unjudged", 211, "black", b"{}"))
    assert "blind:top" in made.holds
    if mended == "hello":
        say(made, 20, "HELLO", HELLO)
    else:
        made.step(20 * MS, core.CameraState("top", True, "") if mended == "camera" else core.Attached("ab" * 32, [], []))
    assert not made.holds


def test_trig_backwards_with_gaps_and_where_parts_are_not_counted_so() -> None:
    made = running(count="plc")
    say(made, 1, "TRIG", {"lane": 0, "part_seq": "5", "encoder": 1})
    out = say(made, 2, "TRIG", {"lane": 0, "part_seq": "8", "encoder": 2})
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 210)] * 2
    assert told(say(made, 3, "TRIG", {"lane": 0, "part_seq": "8", "encoder": 3}), "REFUSE")[0]["code"] == "E_ORDER"
    assert told(say(made, 4, "TRIG", {"lane": 0, "part_seq": str(2**64 - 1), "encoder": 3}), "REFUSE")[0]["code"] == "E_RANGE"
    assert told(say(running(), 1, "TRIG", {"lane": 0, "part_seq": "1"}), "REFUSE")[0]["code"] == "E_STATE"


def test_trig_backwards_in_a_session_rejects_what_is_open_and_ends_the_permit() -> None:
    made = running(count="plc")
    say(made, 1, "TRIG", {"lane": 0, "part_seq": "5", "encoder": 1})
    assert permit(made)
    out = say(made, 2, "TRIG", {"lane": 0, "part_seq": "4", "encoder": 9})
    assert told(out, "REFUSE")[0]["code"] == "E_ORDER"
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 210)]
    made.step(120 * MS, core.Tick())
    assert not permit(made)
    assert "a new HELLO begins anew" in made.withheld(120 * MS)["plc-1"]


def test_a_plc_that_was_restarted_counts_anew() -> None:
    made = running(count="plc")
    for seq in (1, 2, 3):
        say(made, seq, "TRIG", {"lane": 0, "part_seq": str(seq), "encoder": 200 * seq})
    out = say(made, 10, "HELLO", HELLO)
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 210)] * 3  # whose they are the gateway no longer knows
    out = say(made, 20, "TRIG", {"lane": 0, "part_seq": "1", "encoder": 1000})
    assert not told(out, "REFUSE")
    assert codes(out) == ["TRIGGER_MISMATCH"]
    out = made.step(25 * MS, core.Seen("top", 1, 20 * MS, 1000, True, None))
    out += made.step(30 * MS, core.Judged("top", 1, "pass", 0, "", body()))
    assert verdicts(out) == [("PASS", 0)]
    say(made, 40, "TRIG", {"lane": 0, "part_seq": "2", "encoder": 1200})
    assert permit(made)
    late = made.step(511 * MS, core.Tick())  # when the second part of before would have been due
    assert not verdicts(late)
    assert made.ledger.counters.pending == 1


def test_a_picture_of_a_part_from_before_the_restart_says_nothing_of_the_new_one_with_its_number() -> None:
    made = running(count="plc")
    say(made, 1, "TRIG", {"lane": 0, "part_seq": "1", "encoder": 200})
    say(made, 10, "HELLO", HELLO)
    say(made, 20, "TRIG", {"lane": 0, "part_seq": "1", "encoder": 1000})
    out = made.step(25 * MS, core.Seen("top", 1, 1 * MS, 201, True, None))
    out += made.step(30 * MS, core.Judged("top", 1, "pass", 0, "", body()))
    assert not verdicts(out)
    assert codes(out) == ["LATE_RESULT"]
    assert made.ledger.counters.pending == 1


def test_a_gateway_that_comes_back_counts_on() -> None:
    made = running(count="plc")
    say(made, 1, "TRIG", {"lane": 0, "part_seq": "7", "encoder": 1})
    say(made, 2, "HELLO", HELLO)
    out = say(made, 3, "TRIG", {"lane": 0, "part_seq": "9", "encoder": 400})
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 210)]  # number 8, of which nobody told


def test_a_part_that_came_by_before_the_session_is_no_miscount() -> None:
    made = running(count="plc")
    say(made, 1, "TRIG", {"lane": 0, "part_seq": "7", "encoder": 1})
    say(made, 2, "HELLO", HELLO)
    say(made, 3, "HB", {"mono_ns": "3000000", "plc_count": {"0": 8}})  # of part 8 no TRIG came
    say(made, 10, "TRIG", {"lane": 0, "part_seq": "9", "encoder": 400})
    for at_ms in range(100, 2000, 100):
        say(made, at_ms, "HB", {"mono_ns": str(at_ms * MS), "plc_count": {"0": 9}})
    assert not any(gateway.miscounted for gateway in made.sessions.values())
    for at_ms in range(2000, 4000, 100):
        say(made, at_ms, "HB", {"mono_ns": str(at_ms * MS), "plc_count": {"0": 10}})
    assert all(gateway.miscounted for gateway in made.sessions.values()), "a TRIG is missing"


def test_pictures_while_no_plc_counts_are_told_once() -> None:
    made = running(count="plc")
    say(made, 1, "BYE", {})
    out = []
    for seq in range(1, 30):
        out += made.step(1000 * seq * MS, core.Seen("top", seq, 1000 * seq * MS, 500 * seq, True, None))
    assert codes(out).count("TRIGGER_MISMATCH") == 1
    say(made, 30_500, "HELLO", HELLO)
    out = made.step(31_000 * MS, core.Seen("top", 30, 31_000 * MS, 20_000, True, None))
    out += made.step(35_000 * MS, core.Tick())
    assert codes(out).count("TRIGGER_MISMATCH") == 1


def test_a_trig_is_as_old_as_the_belt_is_beyond_its_place() -> None:
    """It waited on the way since before the session's first message, so that the clocks tell nothing."""
    made = running(count="plc")
    for at_ms in range(10, 400, 10):
        made.step(at_ms * MS, core.Position(min(at_ms, 230)))  # and then the belt stands
    out = say(made, 900, "TRIG", {"lane": 0, "part_seq": "1", "encoder": 200, "gw_mono_us": "5000000"})
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 201)], "its time was over"
    assert not verdicts(say(made, 901, "TRIG", {"lane": 0, "part_seq": "2", "encoder": 225, "gw_mono_us": "5001000"})), "a small difference"


def test_a_trig_that_waited_has_less_time() -> None:
    made = running(count="plc")
    say(made, 100, "TRIG", {"lane": 0, "part_seq": "1", "encoder": 1, "gw_mono_us": "5000000"})
    say(made, 700, "TRIG", {"lane": 0, "part_seq": "2", "encoder": 900, "gw_mono_us": "5200000"})
    oldest_ns = made.ledger.oldest_pending_ns()
    assert oldest_ns == 300 * MS


# --- verdicts ----------------------------------------------------------------------------------------------------------


def test_pass_needs_a_vote_and_every_vote() -> None:
    good = Vote(Decision.PASS, 0, "")
    assert fuse([])[0] is Verdict.REJECT_NOT_INSPECTED
    assert fuse([None])[:2] == (Verdict.REJECT_NOT_INSPECTED, Reason.DEADLINE)
    assert fuse([good, None])[0] is Verdict.REJECT_NOT_INSPECTED
    assert fuse([good, good])[0] is Verdict.PASS
    assert fuse([good, Vote(Decision.PASS, 7, "")])[0] is Verdict.REJECT_UNDECIDABLE
    assert fuse([good, Vote(Decision.UNJUDGED, 302, "")])[:2] == (Verdict.REJECT_UNDECIDABLE, 302)
    assert fuse([good, Vote(Decision.UNJUDGED, 5, "")])[:2] == (Verdict.REJECT_NOT_INSPECTED, 205)
    assert fuse([Vote(Decision.UNJUDGED, 302, ""), Vote(Decision.FAIL, 105, "")])[:2] == (Verdict.REJECT_DEFECT, 105)


@pytest.mark.parametrize("text", [b'{"findings":[{"value":NaN}]}', b'{"timing_ms":{"infer":1e999}}', b"", b"[]", b"\xff"])
def test_what_is_not_finite_is_never_passed(text: bytes) -> None:
    assert verdicts(expose(running(), 1, 10, text=text)) == [("REJECT_NOT_INSPECTED", 215)]


def test_a_late_pass_is_told_and_changes_nothing() -> None:
    made = running()
    out = made.step(10 * MS, core.Seen("top", 1, 10 * MS, None, True, None))
    out += made.step((10 + 510) * MS, core.Judged("top", 1, "pass", 0, "", body()))
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 208)]
    assert "LATE_RESULT" in codes(out)
    assert "part 1 was judged PASS after its deadline" in [protocol.loads(o.payload).get("text") for o in out if isinstance(o, Record)]
    assert verdicts(expose(running(), 1, 10)) == [("PASS", 0)]


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        ([core.CameraState("top", False, "cable")], 203),
        ([core.Detached("killed")], 209),
        ([core.Stop()], 212),
        ([core.Dropped("top", 1, 206)], 206),
        ([core.Judged("top", 1, "unjudged", 211, "black", b"{}")], 211),
    ],
)
def test_each_way_not_to_be_inspected_has_its_reason(happens: list[core.Input], reason: int) -> None:
    made = running()
    out = made.step(10 * MS, core.Seen("top", 1, 10 * MS, None, True, None))
    for item in happens:
        out += made.step(20 * MS, item)
    out += made.step(600 * MS, core.Tick())
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", reason)]


def test_a_challenge_that_passes_is_rejected_and_holds_the_line() -> None:
    made = running(count="plc", guards=Guards(challenge_every_s=100))
    say(made, 1, "TRIG", {"lane": 0, "part_seq": "1", "encoder": 1, "challenge": True})
    made.step(2 * MS, core.Seen("top", 1, 2 * MS, 1, True, None))
    out = made.step(3 * MS, core.Judged("top", 1, "pass", 0, "", body()))
    assert verdicts(out) == [("REJECT_COMMANDED", 401)]
    assert "CHALLENGE_FAILED" in codes(out)
    assert not permit(made)
    assert made.ledger.counters.passed == 0
    say(made, 20, "TRIG", {"lane": 0, "part_seq": "2", "encoder": 400, "challenge": True})
    made.step(21 * MS, core.Seen("top", 2, 21 * MS, 400, True, None))
    made.step(22 * MS, core.Judged("top", 2, "fail", 101, "", body()))
    say(made, 23, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "2"})
    assert permit(made)


def test_a_blind_camera_withholds_the_permit_until_it_sees() -> None:
    made = running(guards=Guards(blind_in_row=3))
    for seq in range(1, 4):
        assert not made.holds
        expose(made, seq, 10 * seq, "unjudged", 211)
    assert "blind:top" in made.holds
    expose(made, 4, 40)
    assert not made.holds


def test_encoder_backwards_and_faster_than_allowed() -> None:
    made = running(count="conveyor", travel_counts=600)
    made.step(MS, core.Position(0))
    made.step(300 * MS, core.Position(300))
    assert not made.holds
    made.step(310 * MS, core.Triggered(1, 0, 305 * MS, 305))
    out = made.step(320 * MS, core.Position(100))
    assert "ENCODER_REVERSED" in codes(out)
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 210)]
    made.step(620 * MS, core.Position(100 + 600))
    assert "speed" in made.holds
    made.step(920 * MS, core.Position(700 + 200))
    assert "speed" not in made.holds


def test_the_deadline_holds_in_counts_too() -> None:
    made = running(count="conveyor", travel_counts=600)
    made.step(MS, core.Triggered(1, 0, MS, 0))
    assert not verdicts(made.step(200 * MS, core.Position(500)))
    assert verdicts(made.step(201 * MS, core.Position(511)) + made.step(202 * MS, core.Tick())) == [("REJECT_NOT_INSPECTED", 201)]


@pytest.mark.parametrize("judged_first", [True, False])
def test_an_exposure_of_the_next_part_does_not_clear_the_one_before(judged_first: bool) -> None:
    made = running(count="conveyor")
    judged = core.Judged("top", 2, "pass", 0, "", body())
    made.step(1 * MS, core.Triggered(1, 0, 1 * MS, 1000))  # its own exposure is lost
    made.step(40 * MS, core.Seen("top", 2, 40 * MS, 1041, True, None))
    out = made.step(41 * MS, judged) if judged_first else []
    out += made.step(42 * MS, core.Triggered(2, 0, 42 * MS, 1040))
    out += made.step(43 * MS, judged) + made.step(700 * MS, core.Tick())
    assert "TRIGGER_MISMATCH" in codes(out)
    purged = [(b["from_part"], b["to_part"]) for b in told(out, "PURGE")]
    assert (("1", "1") in purged) is judged_first
    assert verdicts(out)[-1] == ("REJECT_NOT_INSPECTED", 210)
    assert judged_first or ("PASS", 0) not in verdicts(out)


@pytest.mark.parametrize("stamp_ms", [200, 5_000])
def test_an_old_picture_under_a_new_number_shows_no_part(stamp_ms: int) -> None:
    """Its part was not counted, and the belt went back, so that its place is the next part's too; its stamp may even lie ahead."""
    made = running(count="conveyor")
    made.step(200 * MS, core.Seen("top", 1, stamp_ms * MS, 1200, True, None))
    made.step(320 * MS, core.Tick())
    made.step(400 * MS, core.Triggered(1, 0, 400 * MS, 1190))
    made.step(401 * MS, core.Seen("top", 2, stamp_ms * MS, 1200, True, None))
    out = made.step(402 * MS, core.Judged("top", 2, "pass", 0, "", body())) + made.step(1000 * MS, core.Tick())
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 210)]
    made.step(1100 * MS, core.Triggered(2, 0, 1100 * MS, 1400))
    made.step(1101 * MS, core.Seen("top", 3, 1100 * MS, 1400, True, None))
    assert verdicts(made.step(1102 * MS, core.Judged("top", 3, "pass", 0, "", body()))) == [("PASS", 0)], "what comes after it is new"


def test_a_stamp_ahead_of_us_is_known_again_later() -> None:
    made = running(count="frames")
    for at_ms, seq, stamp_ms in ((200, 1, 5_000), (400, 2, 400), (600, 3, 5_000)):
        made.step(at_ms * MS, core.Seen("top", seq, stamp_ms * MS, None, True, None))
        out = made.step((at_ms + 10) * MS, core.Judged("top", seq, "pass", 0, "", body()))
        assert verdicts(out) == ([("PASS", 0)] if seq < 3 else []), seq
    assert verdicts(made.step(3000 * MS, core.Tick())) == []  # it was rejected at once: an old picture under a new number


def test_vision_that_comes_back_brings_no_permit_that_the_journal_withholds() -> None:
    made = running(count="conveyor")
    made.step(10 * MS, core.Detached("gone"))
    made.step(20 * MS, core.JournalState(False, "disk full"))
    for at_ms in range(100, 5000, 100):
        say(made, at_ms, "HB", {})
    said = [out.frames for out in made.step(5021 * MS, core.Attached("ab" * 32, [], [])) if isinstance(out, core.Send)]
    permits = [protocol.parse(head, payload).verdict for kind, head, payload in said if kind == b"HB"]
    assert permits
    assert not any(permits)


def test_where_the_belt_has_been_twice_nothing_passes_even_if_only_what_was_told_late_shows_it() -> None:
    """The gate stood still, and saw no position in between."""
    made = running(count="conveyor")
    made.step(2000 * MS, core.Triggered(1, 0, 1990 * MS, 1253))
    made.step(2000 * MS, core.Seen("top", 1, 1995 * MS, 1400, True, None))  # whose trigger is missing
    out = made.step(2000 * MS, core.Triggered(2, 0, 1999 * MS, 1135))
    assert codes(out).count("TRIGGER_MISMATCH") == 1
    made.step(2100 * MS, core.Triggered(3, 0, 2100 * MS, 1435))
    made.step(2101 * MS, core.Seen("top", 2, 2100 * MS, 1435, True, None))
    out += made.step(2102 * MS, core.Judged("top", 2, "pass", 0, "", body()))
    assert ("PASS", 0) not in verdicts(out)
    made.step(2200 * MS, core.Triggered(4, 0, 2200 * MS, 1550))
    made.step(2201 * MS, core.Seen("top", 3, 2200 * MS, 1550, True, None))
    assert verdicts(made.step(2202 * MS, core.Judged("top", 3, "pass", 0, "", body()))) == [("PASS", 0)], "beyond, places are new"


def test_a_trigger_behind_the_one_before_it_shows_that_the_belt_went_back_however_little() -> None:
    """By less than the window, so that the exposure of the second part lies nearer to the first."""
    made = running(count="conveyor")
    made.step(200 * MS, core.Triggered(1, 0, 200 * MS, 1200))
    out = made.step(300 * MS, core.Triggered(2, 0, 300 * MS, 1195))
    assert codes(out).count("TRIGGER_MISMATCH") == 1
    made.step(301 * MS, core.Seen("top", 1, 300 * MS, 1199, True, None))
    out += made.step(302 * MS, core.Judged("top", 1, "pass", 0, "", body())) + made.step(1000 * MS, core.Tick())
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 210), ("REJECT_NOT_INSPECTED", 210)]


@pytest.mark.parametrize("told_first", [False, True])
def test_where_the_belt_went_back_a_little_an_exposure_shows_no_part(told_first: bool) -> None:
    """By less than the window; the exposure is one of a further part whose trigger never came, as the first part's own exposure did not."""
    made = running(count="conveyor")
    made.step(1000 * MS, core.Position(1000))
    made.step(1010 * MS, core.Triggered(1, 0, 1010 * MS, 1010))
    made.step(1040 * MS, core.Position(1040))
    of_another = core.Seen("top", 2, 1090 * MS, 1015, True, None), core.Judged("top", 2, "pass", 0, "", body())
    slip = core.Position(1012)
    out = []
    items: list[core.Input] = [of_another[0], slip, of_another[1]] if told_first else [slip, *of_another]
    for at_ms, item in enumerate(items, 1100):
        out += made.step(at_ms * MS, item)
    out += made.step(1200 * MS, core.Position(1100))
    made.step(1300 * MS, core.Position(1200))
    made.step(1301 * MS, core.Triggered(2, 0, 1301 * MS, 1201))
    made.step(1302 * MS, core.Seen("top", 3, 1301 * MS, 1201, True, None))
    out += made.step(1303 * MS, core.Judged("top", 3, "pass", 0, "", body()))
    out += made.step(1700 * MS, core.Tick())
    lost, passed = ("REJECT_NOT_INSPECTED", 210 if told_first else 201), ("PASS", 0)
    assert sorted(verdicts(out)) == sorted([lost, passed])
    assert passed == verdicts(out)[-1 if told_first else 0], "the second part's"


def test_a_standing_belt_may_tremble() -> None:
    made = running(count="conveyor")
    made.step(1000 * MS, core.Position(1000))
    for at_ms, counts in ((1010, 1001), (1020, 999), (1030, 998), (1040, 1000)):
        made.step(at_ms * MS, core.Position(counts))
    made.step(1041 * MS, core.Triggered(1, 0, 1041 * MS, 1000))
    made.step(1042 * MS, core.Seen("top", 1, 1041 * MS, 1000, True, None))
    assert verdicts(made.step(1043 * MS, core.Judged("top", 1, "pass", 0, "", body()))) == [("PASS", 0)]


def test_while_nobody_looks_at_the_belt_no_exposure_shows_a_part() -> None:
    """It may have gone on, back, and to a place near the part's own: counts cannot tell."""
    made = running(count="conveyor")
    made.step(1000 * MS, core.Position(1000))
    made.step(1010 * MS, core.Triggered(1, 0, 1010 * MS, 1010))
    out = made.step(1500 * MS, core.Position(1184))
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 210)]
    out = made.step(1501 * MS, core.Triggered(2, 0, 1200 * MS, 1201))
    made.step(1502 * MS, core.Seen("top", 1, 1480 * MS, 1183, True, None))
    out += made.step(1503 * MS, core.Judged("top", 1, "pass", 0, "", body()))
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 210)]
    made.step(1520 * MS, core.Position(1310))
    made.step(1521 * MS, core.Triggered(3, 0, 1521 * MS, 1400))
    made.step(1522 * MS, core.Seen("top", 2, 1521 * MS, 1400, True, None))
    assert verdicts(made.step(1523 * MS, core.Judged("top", 2, "pass", 0, "", body()))) == [("PASS", 0)]


def test_an_exposure_that_waited_while_the_belt_went_back_shows_no_part() -> None:
    made = running(count="conveyor")
    for at_ms, counts in ((1, 4028), (20, 4028)):
        made.step(at_ms * MS, core.Position(counts))
    made.step(21 * MS, core.Seen("top", 1, 20 * MS, 3932, True, None))
    made.step(22 * MS, core.Judged("top", 1, "pass", 0, "", body()))
    assert "ENCODER_REVERSED" in codes(made.step(40 * MS, core.Position(3948)))
    out = made.step(60 * MS, core.Triggered(1, 0, 60 * MS, 3964)) + made.step(700 * MS, core.Tick())
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 210)]


@pytest.mark.parametrize("counted", [True, False])
def test_a_part_whose_trigger_never_came_takes_no_exposure_from_the_next(counted: bool) -> None:
    made = running(count="conveyor")
    made.step(1 * MS, core.Triggered(1, 0, 1 * MS, 1000 if counted else None))
    made.step(300 * MS, core.Triggered(3, 0, 300 * MS, 1300 if counted else None))
    made.step(302 * MS, core.Seen("top", 1, 301 * MS, 1300 if counted else None, True, None))
    assert verdicts(made.step(303 * MS, core.Judged("top", 1, "pass", 0, "", body()))) == [("PASS", 0)]


@pytest.mark.parametrize("late", [False, True])
def test_an_exposure_of_the_part_whose_trigger_never_came_is_not_the_next_ones(late: bool) -> None:
    """The belt trembled back a little, so that part 3 was where part 2 had been: both exposures are near enough by their places."""
    made = running(count="conveyor")
    made.step(1 * MS, core.Triggered(1, 0, 1 * MS, 1000))
    said = core.Seen("top", 1, 200 * MS, 1200, True, None), core.Judged("top", 1, "pass", 0, "", body())
    trigger = core.Triggered(3, 0, 280 * MS, 1190)
    for item in (trigger, *said) if late else (*said, trigger):
        out = made.step(281 * MS, item)
        assert ("PASS", 0) not in verdicts(out)
    out = made.step(283 * MS, core.Seen("top", 2, 281 * MS, 1191, True, None))
    assert verdicts(made.step(284 * MS, core.Judged("top", 2, "pass", 0, "", body()))) == [("PASS", 0)]


def test_an_exposure_of_the_part_whose_trigger_never_came_is_not_an_earlier_ones_either() -> None:
    """The first part's own exposure was lost too, and there is no encoder."""
    made = running(count="plc")
    out = made.step(1 * MS, core.Triggered(1, 0, 0, None)) + made.step(101 * MS, core.Triggered(3, 0, 100 * MS, None))
    for seq, at_ms in ((2, 53), (3, 103)):
        out += made.step((at_ms + 52) * MS, core.Seen("top", seq, at_ms * MS, None, True, None))
        out += made.step((at_ms + 53) * MS, core.Judged("top", seq, "pass", 0, "", body()))
    out += made.step(300 * MS, core.Tick())
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 210), ("PASS", 0), ("REJECT_NOT_INSPECTED", 210)]  # parts 2, 3 by its own, and 1


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_an_exposure_of_parts_nearer_to_each_other_than_the_window_shows_none(first: int, second: int) -> None:
    """The belt stops when the first part is at the sensor, and its picture is lost; the next one's is taken 2 counts before its trigger."""
    made = running(count="conveyor")
    out = made.step(1 * MS, core.Triggered(1, 0, 1 * MS, 1000))
    if first == 2:
        out += made.step(21 * MS, core.Seen("top", 2, 20 * MS, 1002, True, None))
    out += made.step(22 * MS, core.Triggered(2, 0, 22 * MS, 1004))
    if first == 1:
        out += made.step(23 * MS, core.Seen("top", 2, 20 * MS, 1002, True, None))
    out += made.step(40 * MS, core.Judged("top", 2, "pass", 0, "", body()))
    out += made.step(900 * MS, core.Tick())
    assert "TRIGGER_MISMATCH" in codes(out)
    assert [verdict for verdict, _ in verdicts(out)] == ["REJECT_NOT_INSPECTED"] * 2
    assert sorted(reason for _, reason in verdicts(out)) in ([210, 210], [int(Reason.FRAME_LOST), 210])


def test_triggers_that_are_close_are_told_and_each_exposure_finds_its_part() -> None:
    made = running(count="conveyor")
    out = made.step(1 * MS, core.Triggered(1, 0, 1 * MS, 1000)) + made.step(2 * MS, core.Triggered(2, 0, 2 * MS, 1050))
    assert codes(out) == ["TRIGGER_MISMATCH"]
    for seq, counts in ((1, 1002), (2, 1053)):
        out += made.step((2 + seq) * MS, core.Seen("top", seq, seq * MS, counts, True, None))
        out += made.step((3 + seq) * MS, core.Judged("top", seq, "pass", 0, "", body()))
    assert verdicts(out) == [("PASS", 0)] * 2
    assert "TRIGGER_MISMATCH" not in codes(made.step(200 * MS, core.Triggered(3, 0, 200 * MS, 1200)))


def test_a_count_that_stays_off_is_a_mismatch() -> None:
    made = running()
    say(made, 10, "HB", {"plc_count": {"0": 100}})
    for seq in range(1, 4):
        expose(made, seq, 20 * seq)
    say(made, 90, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "3"})
    out: list[core.Output] = []
    for i in range(15):
        out += say(made, 100 + 100 * i, "HB", {"plc_count": {"0": 102}})
    assert codes(out).count("TRIGGER_MISMATCH") == 1
    assert not permit(made)
    say(made, 1600, "HB", {"plc_count": {"0": 103}})
    assert not permit(made)  # nobody takes over the other count in silence
    say(made, 1700, "HELLO", HELLO)
    say(made, 1701, "HB", {"plc_count": {"0": 103}})
    assert permit(made)


@pytest.mark.parametrize("again", ["vision", "camera"])
def test_parts_counted_by_frames_have_a_new_base_after_a_gap(again: str) -> None:
    made = running()
    expose(made, 1, 10)
    say(made, 16, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "1"})
    made.step(20 * MS, core.Seen("top", 2, 20 * MS, None, True, None))
    made.step(30 * MS, core.CameraState("top", False, "cable") if again == "camera" else core.Detached("killed"))
    assert b"g" in made.sessions
    out = made.step(40 * MS, core.CameraState("top", True, "") if again == "camera" else core.Attached("ab" * 32, [], []))
    assert [(b["from_part"], b["to_part"]) for b in told(out, "PURGE")] == [("1", "2")]
    assert told(out, "BYE")
    assert not made.sessions
    assert not made.holds
    assert not permit(made)
    say(made, 50, "HELLO", HELLO)
    assert permit(made)


def test_a_camera_that_was_never_down_and_other_ways_to_count_keep_their_sessions() -> None:
    made = running()
    made.step(10 * MS, core.CameraState("top", True, ""))
    assert made.sessions
    made = running(count="conveyor")
    made.step(10 * MS, core.CameraState("top", False, "cable"))
    made.step(20 * MS, core.CameraState("top", True, ""))
    made.step(30 * MS, core.Attached("ab" * 32, [], []))
    assert made.sessions


def test_after_its_last_event_an_epoch_has_no_other() -> None:
    made = running()
    out = made.step(10 * MS, core.Stop())
    assert [o.header.kind for o in out if isinstance(o, Record)][-2:] == [protocol.Kind.EPOCH_CLOSE] * 2
    late: list[core.Input] = [
        core.Seen("top", 1, 20 * MS, None, True, None), core.Judged("top", 1, "pass", 0, "", body()), core.Lost("top", 2, 20 * MS, None),
        core.CameraState("top", False, "cable"), core.JournalState(False, "disk"), core.Report("X", "info", "x"), core.Tick(),
        core.Received(b"g", "", protocol.command("HELLO", HELLO)), core.Detached("gone"), core.Triggered(1, 0, 20 * MS, 1),
    ]  # fmt: skip
    assert [o for item in late for o in made.step(20 * MS, item)] == []
    assert made.ledger.counters.triggers == 0


def test_an_event_names_the_recipe_that_judged_and_two_reject() -> None:
    def events(recipes: tuple[str, str]) -> list[dict[str, Any]]:
        made = running(count="conveyor", cameras={"top": 0, "side": 0})
        made.step(1 * MS, core.Triggered(1, 0, 1 * MS, 100))
        out: list[core.Output] = []
        for camera in ("top", "side"):
            made.step(2 * MS, core.Seen(camera, 1, 2 * MS, 100, True, None))
        out += made.step(3 * MS, core.Judged("top", 1, "pass", 0, "", body(recipe=recipes[0])))
        out += made.step(4 * MS, core.Reloaded("ef" * 32, [["new", "01" * 32]], [], ""))
        out += made.step(5 * MS, core.Judged("side", 1, "pass", 0, "", body(recipe=recipes[1])))
        return [protocol.loads(o.payload) for o in out if isinstance(o, Record) and o.header.kind == 1]

    (event,) = events(("ab" * 32, "ab" * 32))
    assert (event["verdict"], event["config_sha256"], event["model"]["name"]) == ("PASS", "ab" * 32, "net")
    (event,) = events(("ab" * 32, "ef" * 32))
    assert (event["verdict"], event["reason"]) == ("REJECT_NOT_INSPECTED", Reason.CONFIG_SWAP)
    made = running()
    assert protocol.loads(next(o.payload for o in expose(made, 1, 10) if isinstance(o, Record)))["config_sha256"] == "ab" * 32


# --- delivery ----------------------------------------------------------------------------------------------------------


def test_a_verdict_is_sent_again_until_its_deadline_and_then_withholds_the_permit() -> None:
    made = running()
    say(made, 1, "HB", {})
    expose(made, 1, 10)
    again = [o for ms in range(16, 300, 10) for o in made.step(ms * MS, core.Received(b"g", "", protocol.command("HB", {})))]
    copies = [protocol.parse(o.frames[1], o.frames[2]) for o in again if isinstance(o, Send) and o.frames[0] == b"VERDICT"]
    assert len(copies) >= 5
    assert {c.seq for c in copies} == {1}
    assert all(c.flags & protocol.Flag.RESEND for c in copies)
    assert sorted((c.ttl_us for c in copies), reverse=True) == [c.ttl_us for c in copies]
    out = say(made, 545, "HB", {})
    assert "DELIVERY_UNCONFIRMED" in codes(out)
    assert not permit(made)
    say(made, 600, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "1"})
    assert permit(made)


def test_credit_is_never_exceeded() -> None:
    made = script.arbiter()
    made.step(0, core.Attached("ab", [], []))
    made.step(0, core.Begin())
    say(made, 0, "HELLO", {**HELLO, "credit": 2})
    out = [entry for seq in range(1, 6) for entry in expose(made, seq, 10)]
    assert len(told(out, "VERDICT")) == 2
    out = say(made, 16, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "1"})
    assert len(told(out, "VERDICT")) == 1
    assert len(told(say(made, 17, "CREDIT", {"n": 64}) + made.step(18 * MS, core.Tick()), "VERDICT")) == 0
    assert told(say(made, 19, "CREDIT", {"n": 0}), "REFUSE")[0]["code"] == "E_RANGE"


def test_a_journal_that_fails_withholds_the_permit_after_five_seconds() -> None:
    made = running()
    made.step(MS, core.JournalState(False, "disk full"))
    for i in range(49):
        say(made, 100 * (i + 1), "HB", {})
    assert permit(made)
    say(made, 5010, "HB", {})
    assert not permit(made)
    say(made, 5100, "HB", {})
    made.step(5101 * MS, core.JournalState(True, ""))
    assert permit(made)
    lax = running(journal_stops=False)
    lax.step(MS, core.JournalState(False, "disk full"))
    say(lax, 9000, "HB", {})
    assert lax.permit


def test_an_alarm_storm_is_bounded_and_counted() -> None:
    made = running()
    out = [o for _ in range(1000) for o in made.step(MS, core.Report("X", "info", "again"))]
    assert codes(out).count("X") == core.ALARM_BURST
    out = made.step(1001 * MS, core.Report("X", "info", "again"))
    assert protocol.loads(next(o.payload for o in out if isinstance(o, Record)))["suppressed"] == 1000 - core.ALARM_BURST


def test_a_purge_only_ever_rejects() -> None:
    gate, plc = running(), Gateway(Terms("plc-1", "cell-1"))
    for frames in (*plc.tick(0), protocol.command("HB", {"mono_ns": "0"})):
        for o in gate.step(0, core.Received(b"g", "", frames)):
            if isinstance(o, Send):
                plc.receive(0, o.frames)
                plc.tick(0)
    for o in expose(gate, 1, 10):
        if isinstance(o, Send):
            plc.receive(15 * MS, o.frames)
    assert plc.expect(0, 1).passes
    plc.receive(16 * MS, protocol.command("PURGE", {"lane": 0, "from_part": "1", "to_part": "3", "reason": 402}))
    assert not plc.expect(0, 1).passes


def test_a_purged_verdict_is_no_order_any_more_whether_it_waits_or_is_sent_again() -> None:
    made = running(count="conveyor")
    say(made, 0, "CREDIT", {"n": 1})
    for seq in (1, 2):
        made.step(200 * seq * MS, core.Triggered(seq, 0, 200 * seq * MS, 200 * seq))
        made.step(200 * seq * MS, core.Seen("top", seq, 200 * seq * MS, 200 * seq, True, None))
        assert verdicts(made.step(200 * seq * MS, core.Judged("top", seq, "pass", 0, "", body()))) == [("PASS", 0)]
        say(made, 200 * seq, "HB", {})
    made.step(401 * MS, core.Position(400))
    out = made.step(402 * MS, core.Position(100))
    assert [(b["from_part"], b["to_part"]) for b in told(out, "PURGE")] == [("1", "2")]
    out = made.step(450 * MS, core.Tick()) + say(made, 451, "ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": "1"})
    copies = [protocol.parse(o.frames[1], o.frames[2]) for o in out if isinstance(o, Send) and o.frames[0] == b"VERDICT"]
    assert [(c.seq, c.verdict, c.ttl_us) for c in copies] == [(1, Verdict.PASS, 0), (2, Verdict.PASS, 0)]


def test_a_slot_made_after_its_purge_never_passes() -> None:
    gate, plc = running(), Gateway(Terms("plc-1", "cell-1"))
    for frames in (*plc.tick(0), protocol.command("HB", {"mono_ns": "0"})):
        for o in gate.step(0, core.Received(b"g", "", frames)):
            if isinstance(o, Send):
                plc.receive(0, o.frames)
                plc.tick(0)
    plc.receive(5 * MS, protocol.command("PURGE", {"lane": 0, "from_part": "1", "to_part": "1", "reason": 402}))
    for o in expose(gate, 1, 10) + expose(gate, 2, 20):
        if isinstance(o, Send):
            plc.receive(15 * MS, o.frames)
    assert not plc.expect(0, 1).passes
    assert plc.expect(0, 2).passes


# --- the account -------------------------------------------------------------------------------------------------------


class Line(RuleBasedStateMachine):
    """Anything in any order: the account adds up after every step."""

    @initialize(count=st.sampled_from(["frames", "conveyor", "plc"]))
    def begin(self, count: str) -> None:
        self.now_ns = 0
        self.made = running(count=count, cameras={"top": 0} if count == "frames" else {"top": 0, "side": 0})
        self.seen: dict[tuple[int, int], Verdict] = {}
        self.before: list[Verdict] = []  # of parts whose numbers are counted anew
        self.seq = {"q": 0, "a": self.made.heads["a"]}
        self.said: set[tuple[str, int]] = set()
        self.trigger = 0
        self.sent = self.acked = 0

    def do(self, item: core.Input) -> None:
        for o in self.made.step(self.now_ns, item):
            if isinstance(o, Record):
                self.seq[o.stream] += 1
                assert o.header.seq == self.seq[o.stream]
                if b"the PLC counts anew" in o.payload:
                    self.before += self.seen.values()
                    self.seen.clear()
                if o.header.kind == 1:
                    key = o.header.lane, o.header.part_seq
                    assert key not in self.seen
                    self.seen[key] = Verdict(o.header.verdict)
            elif isinstance(o, Send) and o.frames[0] == b"VERDICT":
                self.sent = max(self.sent, protocol.parse(o.frames[1], o.frames[2]).seq)

    @rule(ms=st.sampled_from([0, 1, 20, 100, 600, 3000]))
    def wait(self, ms: int) -> None:
        self.now_ns += ms * MS
        self.do(core.Tick())

    @rule(camera=st.sampled_from(["top", "side"]), seq=st.integers(1, 30), old_ms=st.integers(-50, 700), complete=st.booleans())
    def see(self, camera: str, seq: int, old_ms: int, complete: bool) -> None:
        self.do(core.Seen(camera, seq, self.now_ns - old_ms * MS, seq * 100, complete, None))

    @rule(camera=st.sampled_from(["top", "side"]), seq=st.integers(1, 30))
    def lose(self, camera: str, seq: int) -> None:
        self.do(core.Lost(camera, seq, self.now_ns, None))

    @rule(camera=st.sampled_from(["top", "side"]), seq=st.integers(1, 30), decision=st.sampled_from(["pass", "fail", "unjudged", "maybe"]))
    def judge(self, camera: str, seq: int, decision: str) -> None:
        if decision == "pass":
            self.said.add((camera, seq))
        self.do(core.Judged(camera, seq, decision, 0 if decision == "pass" else 101, "", b"{}"))

    @rule(step=st.integers(-1, 4))
    def trig(self, step: int) -> None:
        self.trigger += step
        counts = self.trigger * 100
        if self.made.settings.line.count == "plc":
            self.do(core.Received(b"g", "", protocol.command("TRIG", {"lane": 0, "part_seq": max(0, self.trigger), "encoder": counts})))
        else:
            self.do(core.Triggered(max(0, self.trigger), 0, self.now_ns, counts))

    @rule(gone=st.booleans())
    def vision(self, gone: bool) -> None:
        self.do(core.Detached("gone") if gone else core.Attached("ab", [], []))

    @rule(up=st.booleans())
    def camera(self, up: bool) -> None:
        self.do(core.CameraState("top", up, ""))

    @rule()
    def acknowledge(self) -> None:
        self.do(core.Received(b"g", "", protocol.command("ACK", {"epoch": protocol.epoch_text(EPOCH), "upto": str(self.sent)})))

    @rule()
    def hello(self) -> None:
        self.do(core.Received(b"g", "", protocol.command("HELLO", HELLO)))

    @rule(frames=st.lists(st.binary(max_size=20), max_size=4))
    def garbage(self, frames: list[bytes]) -> None:
        self.do(core.Received(b"stranger", "", frames))

    @invariant()
    def adds_up(self) -> None:
        counters = self.made.ledger.counters
        assert counters.unexplained == 0
        outcomes = [*self.before, *self.seen.values()]
        passed = outcomes.count(Verdict.PASS)
        assert (counters.passed, counters.triggers - counters.pending) == (passed, len(outcomes))
        assert passed <= len(self.said)
        if self.made.permit:
            assert self.made.state is State.RUN
            assert not self.made.ledger.down()


TestLine = Line.TestCase
TestLine.settings = budget(max_examples=60, stateful_step_count=40, deadline=None)


def test_where_the_journal_ends_goes_to_gateways_with_the_heartbeat() -> None:
    made, gateway = running(), Gateway(Terms("g", "cell-1"))
    gateway.epoch, gateway.session = EPOCH, 1
    made.step(MS, core.Anchored("1 q 2 ab"))
    for at in (100, 200):
        for out in made.step(at * MS, core.Tick()):
            if isinstance(out, Send) and out.frames[0] == b"HB":
                gateway.receive(at * MS, out.frames)
    assert gateway.anchor == "1 q 2 ab"
    assert len([happening for happening in gateway.happenings if getattr(happening, "name", "") == "ANCHOR"]) == 1
