"""`python -m tests.sim --seeds 100000 [--first 0] [--workers 2] [--notes FILE]`: runs many lines; a failure prints how to see it again.

With `--notes` each finished block of seeds is written down, and the same command goes on after them: a run of hours may be stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.sim.blocks import BLOCK, results

PROGRESS_S = 10.0


def done_before(path: Path | None) -> dict[int, int]:
    """First seed of each block that is written down, and its parts; blocks in which something broke are done again."""
    if path is None or not path.exists():
        return {}
    notes = (json.loads(line) for line in path.read_text().splitlines() if line.endswith("}"))
    return {note["first"]: note["parts"] for note in notes if not note["broken"]}


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
