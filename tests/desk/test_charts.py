from __future__ import annotations

import itertools
import math
import random

from hypothesis import given
from hypothesis import strategies as st

from inspector.desk import charts
from inspector.desk.minutes import Minute
from inspector.desk.state import Measured, Part, part_of
from tests.desk.events import finding, verdict

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60)


def series(values: list[float], low: float | None = -0.1, high: float | None = 0.1) -> list[tuple[Part, Measured]]:
    made = []
    for i, value in enumerate(values, 1):
        ok = (low is None or low <= value) and (high is None or value <= high)
        part = part_of(verdict(i, findings=[finding(value, ok=ok) | {"low": low, "high": high}]))
        made.append((part, part.findings[0]))
    return made


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(1, 12))
def test_ticks_are_round_and_within(low: float, span: float, about: int) -> None:
    high = low + span
    found = charts.ticks(low, high, about)
    assert len(found) <= 2 * about + 2
    if high > low and span > 1e-6 * abs(low):
        assert all(low - 1e-6 * span <= t <= high + 1e-6 * span for t in found)
        assert found == sorted(found)


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.integers(0, 1000), max_size=40))
def test_pareto_loses_nothing(counts: dict[str, int]) -> None:
    rows = charts.pareto(counts, most=7)
    assert len(rows) <= 7
    assert sum(row.count for row in rows) == sum(counts.values())
    if rows:
        assert math.isclose(rows[-1].running_ratio, 1)
        assert max(row.length_ratio for row in rows) <= max(1.0, rows[-1].length_ratio)


def test_pareto_puts_the_greatest_first() -> None:
    rows = charts.pareto({"a": 1, "b": 5, "c": 0, "d": 4})
    assert [(r.label, r.count) for r in rows] == [("b", 5), ("d", 4), ("a", 1)]
    assert [round(r.running_ratio, 2) for r in rows] == [0.5, 0.9, 1.0]


def test_bars_fill_the_height_with_the_greatest_minute() -> None:
    drawn = charts.bars([(0, Minute(passed=60, rejected=30, not_inspected=10)), (1, Minute())], width=100, height=50)
    first, second = drawn.bars
    assert (first.passed, first.rejected, first.not_inspected) == ((20.0, 30.0), (5.0, 15.0), (0.0, 5.0))
    assert second.passed == (50.0, 0.0)


@given(VALUES)
def test_labels_of_lines_stand_clear_of_each_other(values: list[float]) -> None:
    chart = charts.control(series(values))
    assert chart is not None
    places = [line.label_y for line in chart.lines]
    assert all(b - a >= charts.LABEL_TALL - 0.02 for a, b in itertools.pairwise(places))
    assert all(line.y <= after.y for line, after in itertools.pairwise(chart.lines))
    assert max(places) <= chart.height


@given(VALUES)
def test_control_chart_stays_in_its_area(values: list[float]) -> None:
    chart = charts.control(series(values))
    assert chart is not None
    assert len(chart.dots) == len(values)
    assert all(-0.01 <= d.y <= chart.height + 0.01 and 0 <= d.x <= chart.width for d in chart.dots)
    assert all(-0.01 <= line.y <= chart.height + 0.01 for line in chart.lines)


def test_capability_is_that_of_the_textbook() -> None:
    noise = random.Random(1)
    chart = charts.control(series([noise.gauss(0.01, 0.02) for _ in range(400)]))
    assert chart is not None
    assert chart.cp is not None
    assert chart.cpk is not None
    assert math.isclose(chart.sigma, 0.02, rel_tol=0.12)  # the moving range estimates what made the values
    assert math.isclose(chart.cp, 0.2 / (6 * chart.sigma))
    assert math.isclose(chart.cpk, (0.1 - chart.median) / (3 * chart.sigma))


def test_one_open_limit_leaves_cpk_and_no_cp() -> None:
    chart = charts.control(series([0.01 * (i % 3) for i in range(30)], low=None))
    assert chart is not None
    assert chart.cp is None
    assert chart.cpk is not None


def test_few_values_promise_nothing() -> None:
    chart = charts.control(series([0.01, 0.02, 0.01]))
    assert chart is not None
    assert chart.cp is chart.cpk is None
    assert charts.control(series([0.01])) is None


def test_drift_and_outliers_are_said() -> None:
    drifting = charts.control(series([0.0, 0.01] * 20 + [0.03] * 8))
    assert drifting is not None
    assert any("above the median" in note for note in drifting.notes)
    out = charts.control(series([0.0, 0.001] * 20 + [0.2]))
    assert out is not None
    assert out.dots[-1].bad
    assert any("1 of the last 41 is out" in note for note in out.notes)


def test_a_feature_is_named_with_its_recipe_where_there_are_several_and_its_lane_where_one_is_on_several() -> None:
    assert charts.named({(0, "plate", "hole-6"): 2}) == {"hole-6": 2}
    assert charts.named({(0, "plate", "hole-6"): 2, (2, "gear", "hole-6"): 3}) == {"plate · hole-6": 2, "gear · hole-6": 3}
    assert charts.named({(0, "plate", "hole-6"): 2, (2, "plate", "hole-6"): 3}) == {"lane 0 · hole-6": 2, "lane 2 · hole-6": 3}
