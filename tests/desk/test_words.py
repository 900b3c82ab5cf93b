from __future__ import annotations

import re
from pathlib import Path

import pytest

from inspector.desk import words
from inspector.gate.arbiter import _CHANGES
from inspector.records import Reason, Verdict

SOURCES = Path(__file__).parents[2] / "inspector"


def test_every_reason_and_verdict_has_words() -> None:
    assert set(words.REASONS) == set(Reason) - {Reason.NONE}
    assert set(words.VERDICTS) == {v.name for v in Verdict}


def test_every_alarm_that_the_gate_gives_says_what_to_do() -> None:
    text = "".join(p.read_text() for folder in ("gate", "runtime") for p in (SOURCES / folder).glob("*.py"))
    given = set(re.findall(r'(?:_alarm\(\s*now_ns, |_hold\(now_ns, [^")]+"[^"]*"[^"]*|Report\(|Noted\(|report\(|tell\()"([A-Z_]+)"', text))
    given |= {code for code, _ in _CHANGES.values()}
    assert given > {"PURGE", "LATE_RESULT", "PICTURE_DRIFT", "RECIPE_ROLLED_BACK", "STATE_VOLATILE", "STAGE_DEAD", "ZAP"}
    assert given <= set(words.ALARMS)


@pytest.mark.parametrize(
    ("reason", "text", "name"),
    [
        (101, "outline hole-3: 0.2 mm, allowed -0.1 to 0.1", "outline"),
        (100, "", "class 0"),
        (208, "x", "too late for the ejector"),
        (999, "", "reason 999"),
    ],
)
def test_reasons_are_counted_by_name(reason: int, text: str, name: str) -> None:
    assert words.reason_name(reason, text) == name


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.0, "0"), (-0.12345, "−0.1235"), (123456.7, "123457"), (12.5, "12.5"), (-1e9, "−1000000000")]
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert words.number(value) == text


def test_lengths_are_told_to_the_micrometre() -> None:
    assert (words.measured(-0.0004, "mm"), words.measured(5.92, "mm"), words.measured(3.0, "count")) == ("0.000", "5.920", "3")


@pytest.mark.parametrize(
    ("low", "high", "text"), [(-0.2, 0.2, "−0.2 … 0.2"), (None, 0.5, "≤ 0.5"), (0.6, None, "≥ 0.6"), (1.0, 1.0, "1"), (None, None, "any")]
)
def test_limits_are_told(low: float | None, high: float | None, text: str) -> None:
    assert words.limits(low, high) == text


@pytest.mark.parametrize(("seconds", "text"), [(None, "never"), (3.2, "3 s"), (100.0, "2 min"), (7200.0, "2 h")])
def test_ages_are_coarse(seconds: float | None, text: str) -> None:
    assert words.age(seconds) == text


def test_holds_are_told_in_words() -> None:
    assert words.hold_name("camera:gasket", "no answer") == "camera gasket is down: no answer"
    assert words.hold_name("camera:{0.__class__}", "") == "camera {0.__class__} is down"
    assert words.hold_name("something", "new") == "something: new"
