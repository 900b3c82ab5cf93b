"""`python -m tests.sim --seeds 1000 [--first 0] [--workers 2]`: run many lines; a failure prints the one command that shows it again."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor

from tests.sim.world import Broken, run


def one(seed: int) -> tuple[int, int, str]:
    """(seed, parts, what broke)."""
    try:
        return seed, run(seed), ""
    except Broken as error:
        return seed, 0, f"{error}"
    except Exception:  # noqa: BLE001 - a crash of the core is a finding like any other
        return seed, 0, traceback.format_exc(limit=-6)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Runs simulated lines with faults; each seed is one line.")
    parser.add_argument("--seeds", type=int, default=300, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    said = parser.parse_args()
    began, parts, failed = time.monotonic(), 0, 0
    seeds = range(said.first, said.first + said.seeds)
    with ProcessPoolExecutor(said.workers) as pool:
        for seed, count, broke in pool.map(one, seeds, chunksize=8) if said.workers > 1 else map(one, seeds):
            parts += count
            if broke:
                failed += 1
                print(f"seed {seed}: {broke}\n  again: python -m tests.sim --first {seed} --seeds 1", flush=True)
    print(f"{len(seeds)} seeds, {parts} parts, {failed} failed, {time.monotonic() - began:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
