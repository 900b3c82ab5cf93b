"""Many simulated lines, block by block, in one process or several (which must be able to import what they run: no `__main__`)."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from multiprocessing import get_context

from tests.sim.world import Broken, run

BLOCK = 100


def one(seed: int) -> tuple[int, str]:
    """(parts, what broke)."""
    try:
        return run(seed), ""
    except Broken as error:
        return 0, str(error)
    except Exception:  # noqa: BLE001 - a crash of the core is a finding like any other
        return 0, traceback.format_exc(limit=-6)


def block(seeds: range) -> tuple[int, int, list[tuple[int, str]]]:
    """(the first seed, parts, (seed, what broke)) of some seeds."""
    gc.set_threshold(200_000)  # a world is one knot of garbage, and there is no need to look for it in between
    parts, broken = 0, []
    for seed in seeds:
        count, broke = one(seed)
        parts += count
        if broke:
            broken.append((seed, broke))
    return seeds.start, parts, broken


def results(blocks: list[range], workers: int) -> Iterator[tuple[int, int, list[tuple[int, str]]]]:
    """Of each block as it is done."""
    if workers == 1:
        yield from map(block, blocks)
        return
    with get_context("spawn").Pool(workers, maxtasksperchild=50) as pool:
        yield from pool.imap_unordered(block, blocks)
