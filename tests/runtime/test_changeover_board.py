"""Which recipe judges which exposure, in any order of judging: the one in force when it was made, and one for each part."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inspector.records import Decision, Inspection, Plan, Recipe, Stamp
from inspector.runtime.changeover_board import Board, Watch

LANES = {"top": 0, "side": 0, "end": 1}
NEAR = 5


def recipe(name: str) -> Recipe:
    return Recipe(name, {camera: Plan(camera, None, None, None, (), False, digest=name) for camera in LANES}, (), ("locate",))


def stamp(camera: str, seq: int, at_ns: int, at_counts: int | None) -> Stamp:
    return Stamp(camera, seq, at_ns, at_counts, (4, 4))


@given(
    switches=st.lists(st.integers(1, 99), max_size=6, unique=True).map(sorted),
    exposures=st.lists(st.integers(0, 100), min_size=1, max_size=20),
    order=st.randoms(use_true_random=False),
)
def test_an_exposure_is_judged_by_what_was_in_force_when_it_was_made(switches: list[int], exposures: list[int], order: object) -> None:
    board = Board(recipe("0"), LANES, NEAR)
    for at_ns in switches:
        board.switch(recipe(str(at_ns)), at_ns)
    for n, at_ns in enumerate(exposures):
        found, part = board.of(stamp("end", n, at_ns, n))
        assert found.digest == str(max([0, *(s for s in switches if s <= at_ns)]))
        assert part is None
    assert board.recipe.digest == str(max([0, *switches]))


@given(
    parts=st.lists(st.tuples(st.integers(0, 40), st.integers(-NEAR, NEAR), st.integers(0, 40)), min_size=1, max_size=12),
    switch_ns=st.integers(0, 500),
    shuffle=st.randoms(use_true_random=False),
)
def test_cameras_of_one_lane_judge_a_part_by_one_recipe(parts: list[tuple[int, int, int]], switch_ns: int, shuffle: object) -> None:
    """Parts 100 counts apart; the second camera sees each a little later and elsewhere; the switch may come between the two."""
    board = Board(recipe("old"), LANES, NEAR)
    board.switch(recipe("new"), switch_ns)
    seen: dict[int, set[str]] = {}
    numbers: dict[int, set[int | None]] = {}
    exposures = []
    for n, (at, off, later) in enumerate(parts):
        exposures += [(n, stamp("top", n, 40 * n + at, 100 * n)), (n, stamp("side", n, 40 * n + at + later, 100 * n + off))]
    shuffle.shuffle(exposures)  # type: ignore[attr-defined]
    for n, each in exposures:
        found, number = board.of(each)
        seen.setdefault(n, set()).add(found.digest)
        numbers.setdefault(n, set()).add(number)
    assert all(len(found) == 1 for found in seen.values())
    assert all(len(found) == 1 for found in numbers.values())
    assert len({number for found in numbers.values() for number in found}) == len(parts)


def test_without_a_place_nobody_can_tell_the_part() -> None:
    assert Board(recipe("r"), LANES, NEAR).of(stamp("top", 1, 1, None))[1] is None


def test_the_watch_counts_only_the_new_recipe_on_the_cameras_that_changed() -> None:
    board = Board(recipe("old"), LANES, NEAR)
    watch = Watch("new", frozenset({"end"}), 3, 1)
    board.switch(recipe("new"), 10, watch)

    def judged(camera: str, digest: str, decision: Decision) -> None:
        board.judged(Inspection(stamp(camera, 1, 1, 1), decision, 0, "", (), None, digest, {}))

    judged("end", "old", Decision.FAIL)
    judged("top", "new", Decision.FAIL)
    assert (watch.left, watch.rejects) == (3, 0)
    for decision in (Decision.FAIL, Decision.PASS, Decision.UNJUDGED, Decision.FAIL):
        judged("end", "new", decision)
    assert (watch.left, watch.rejects) == (0, 2)
    board.settled()
    assert board.watched() is None
