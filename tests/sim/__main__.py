"""`python -m tests.sim --seeds 100000 [--first 0] [--workers 2] [--notes FILE]`: runs many lines; a failure prints how to see it again.

With `--notes` each finished block of seeds is written down, and the same command goes on after them: a run of hours may be stopped.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

from tests.sim.world import Broken, run

BLOCK = 100
PROGRESS_S = 10.0


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


def done_before(path: Path | None) -> dict[int, int]:
    """First seed of each block that is written down, and its parts; blocks in which something broke are done again."""
    if path is None or not path.exists():
        return {}
    notes = (json.loads(line) for line in path.read_text().splitlines() if line.endswith("}"))
    return {note["first"]: note["parts"] for note in notes if not note["broken"]}


def results(blocks: list[range], workers: int) -> Iterator[tuple[int, int, list[tuple[int, str]]]]:
    """Of each block as it is done."""
    if workers == 1:
        yield from map(block, blocks)
        return
    with get_context("spawn").Pool(workers, maxtasksperchild=50) as pool:
        yield from pool.imap_unordered(block, blocks)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Runs simulated lines with faults; each seed is one line.")
    parser.add_argument("--seeds", type=int, default=300, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--notes", type=Path, help="a file of the blocks that are done: the same command goes on after them")
    said = parser.parse_args()
    began_s = told_s = time.monotonic()
    end = said.first + said.seeds
    known = done_before(said.notes)
    every = [range(first, min(first + BLOCK, end)) for first in range(said.first, end, BLOCK)]
    blocks = [seeds for seeds in every if seeds.start not in known]
    seeds_done, parts, failed = sum(len(s) for s in every if s.start in known), sum(known.get(s.start, 0) for s in every), 0
    for first, count, broken in results(blocks, said.workers):
        seeds_done += min(BLOCK, end - first)
        parts += count
        failed += len(broken)
        for seed, broke in broken:
            print(f"seed {seed}: {broke}\n  again: python -m tests.sim --first {seed} --seeds 1", flush=True)
        if said.notes is not None:
            with said.notes.open("a") as file:
                file.write(json.dumps({"first": first, "parts": count, "broken": [seed for seed, _ in broken]}) + "\n")
        if time.monotonic() - told_s > PROGRESS_S:
            told_s = time.monotonic()
            print(
                f"{seeds_done} of {said.seeds} seeds, {parts} parts, {failed} failed, {told_s - began_s:.0f} s", file=sys.stderr, flush=True
            )
    print(f"{said.seeds} seeds, {parts} parts, {failed} failed, {time.monotonic() - began_s:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
