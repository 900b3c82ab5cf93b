"""Simulated lines with faults hold every invariant, and the checks that say so can fail."""

from __future__ import annotations

import os

import pytest

from tests.sim.blocks import results
from tests.sim.mutants import MUTANTS, caught
from tests.sim.world import Knobs, World, run

SEEDS = int(os.environ.get("INSPECTOR_SIM_SEEDS", "160"))


@pytest.mark.parametrize("eighth", range(8))
def test_no_seed_breaks_a_promise(eighth: int) -> None:
    for seed in range(eighth, SEEDS, 8):
        run(seed)  # raises Broken; again: python -m tests.sim --first SEED --seeds 1


def test_the_same_seed_is_the_same_run() -> None:
    def story(seed: int) -> list[bytes]:
        world = World(seed)
        world.run()
        return [record.payload for record in world.disk]

    assert story(3) == story(3)
    assert story(3) != story(4)


def test_a_calm_line_passes_what_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Knobs.draw
    monkeypatch.setattr(Knobs, "draw", staticmethod(lambda random: Knobs.calm(draw(random))))
    for seed in range(8):
        world = World(seed)
        parts = world.run()
        on_belt = sum(part.at_ns + 700_000_000 > world.now_ns for part in world.parts)
        good = sum(part.good for part in world.parts)
        assert world.passed_physically >= good - on_belt - 2, f"{world.passed_physically} of {good} good parts ({parts}) passed"


def test_there_are_many_mutants() -> None:
    assert len(MUTANTS) >= 30


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    assert caught(name) is not None


def test_several_processes_see_what_one_sees() -> None:
    some = [range(3), range(3, 6)]
    assert sorted(results(some, workers=2)) == sorted(results(some, workers=1))
