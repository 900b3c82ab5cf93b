from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inspector.gate import arbiter as core
from inspector.gate.guards import Guards, Watch
from tests.gate.script import MS, running
from tests.gate.test_arbiter import codes, expose, permit, verdicts


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 20), st.integers(2, 30), st.floats(0.05, 0.95))
def test_a_limit_trips_when_it_is_reached_and_not_before(outcomes: list[bool], row: int, parts: int, ratio: float) -> None:
    in_row, share = Watch(Guards(rejects_in_row=row)), Watch(Guards(reject_ratio=ratio, ratio_parts=parts))
    rejects, window = 0, list[bool]()
    for passed in outcomes:
        rejects = 0 if passed else rejects + 1
        assert (in_row.outcome(passed) is not None) == (rejects == row)
        window.append(not passed)
        too_many = len(window) >= parts and sum(window[-parts:]) > ratio * parts
        assert (share.outcome(passed) is not None) == too_many
        if too_many:
            window.clear()


def test_zero_turns_a_limit_off() -> None:
    watch = Watch(Guards())
    assert not any(watch.outcome(passed) for passed in [True] * 1000 + [False] * 1000)


def test_a_line_stop_lasts_until_somebody_has_looked() -> None:
    made = running(guards=Guards(rejects_in_row=2))
    for seq in (1, 2):
        expose(made, seq, 10 * seq, "fail", 101)
    assert "line_stop" in made.holds
    expose(made, 3, 30)
    assert "line_stop" in made.holds
    made.step(40 * MS, core.Reset(["too_good"]))
    assert "line_stop" in made.holds
    made.step(41 * MS, core.Reset([]))
    assert not made.holds


def test_too_good_is_no_good() -> None:
    made = running(guards=Guards(passes_in_row=3))
    out = [entry for seq in range(1, 4) for entry in expose(made, seq, 10 * seq)]
    assert codes(out).count("TOO_GOOD") == 1
    assert not permit(made)
    made.step(50 * MS, core.Reset(["too_good"]))
    assert "too_good" not in made.holds


def test_what_nobody_could_judge_is_no_reason_to_stop_the_line() -> None:
    made = running(guards=Guards(rejects_in_row=2))
    made.step(MS, core.Detached("gone"))
    for seq in range(1, 6):
        expose(made, seq, 10 * seq)
    assert "line_stop" not in made.holds


def test_new_limits_hold_at_once() -> None:
    made = running()
    made.step(MS, core.Guarded(Guards(rejects_in_row=1)))
    expose(made, 1, 10, "fail", 101)
    assert "line_stop" in made.holds


def test_the_next_part_is_a_challenge_and_a_lost_one_is_not_it() -> None:
    made = running(guards=Guards(challenge_every_s=1, rejects_in_row=1))
    made.step(1100 * MS, core.Tick())
    assert "challenge_due" in made.holds
    expose(made, 1, 1110)
    made.step(1111 * MS, core.Challenge(0))
    made.step(1112 * MS, core.Challenge(7))
    out = made.step(1120 * MS, core.Lost("top", 2, 1119 * MS, None))
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 201)]
    made.step(1121 * MS, core.Reset([]))
    assert "challenge_due" in made.holds
    out = expose(made, 3, 1130, "fail", 101)
    assert codes(out) == ["CHALLENGE"]
    assert not made.holds  # neither due any more, nor counted as a reject of the line's own
    out = expose(made, 4, 1140)
    assert verdicts(out) == [("PASS", 0)]


def test_a_challenge_that_nobody_judged_proves_nothing() -> None:
    made = running(guards=Guards(challenge_every_s=1))
    made.step(900 * MS, core.Challenge(0))
    expose(made, 1, 910, "unjudged", 205)
    made.step(1100 * MS, core.Tick())
    assert "challenge_due" in made.holds


def test_a_vision_that_comes_back_with_another_recipe_has_no_permit_until_that_is_accepted() -> None:
    made = running()
    made.step(MS, core.Detached("crashed"))
    made.step(2 * MS, core.Attached("ab" * 32, [], []))
    assert "recipe" not in made.holds
    for accept in (core.Reloaded("ef" * 32, [], [], ""), core.Reset(["recipe"])):
        made.step(3 * MS, core.Detached("crashed"))
        out = made.step(4 * MS, core.Attached("cd" * 32 if isinstance(accept, core.Reloaded) else "12" * 32, [], []))
        assert "RECIPE_CHANGED" in codes(out)
        assert "recipe" in made.holds
        made.step(5 * MS, accept)
        assert "recipe" not in made.holds
