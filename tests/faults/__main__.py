"""`python -m tests.faults [F01 F02 …] [--runs N] [--out FOLDER]`: inject faults into lines of real processes and say what came of them.

Each fault gets a line of its own; its processes' histories stay below FOLDER, and the table is written there as table.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.history import Untrue
from tests.faults.rig import Rig
from tests.faults.table import FAULTS, Fault


@dataclass
class Outcome:
    """What came of a fault: how often it was done, and what it broke."""

    fault: Fault
    runs: int = 0
    broke: str = ""
    skipped: str = ""
    figures: dict[str, list[float]] = field(default_factory=dict)

    def word(self) -> str:
        """For the table."""
        if self.skipped:
            return f"not here: {self.skipped}"
        return f"**broken**: {self.broke}" if self.broke else "as expected"

    def row(self) -> str:
        """A line of the table."""
        told = "; ".join(f"{name} {_figure(values)}" for name, values in sorted(self.figures.items()))
        return f"| {self.fault.code} | {self.fault.what} | {self.fault.expected} | {self.runs} | {self.word()} | {told} |"


def _figure(values: list[float]) -> str:
    ordered = sorted(values)
    if len(ordered) == 1:
        return f"{ordered[0]:.3g}"
    return f"p50 {ordered[len(ordered) // 2]:.3g}, most {ordered[-1]:.3g} ({len(ordered)})"


HEAD = "| Fault | What | Expected | Runs | Outcome | Figures |\n|---|---|---|---|---|---|"


def run(fault: Fault, folder: Path, runs: int) -> Outcome:
    """A line of its own, the fault so many times, and every promise asked for at the end. Breaks nothing off but this fault."""
    outcome = Outcome(fault, skipped=fault.needs())
    if outcome.skipped:
        return outcome
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with Rig(folder, changes=fault.changes, environment=fault.environment, proxied=fault.proxied, shimmed=fault.shimmed) as rig:
            outcome.figures = rig.figures
            rig.start()
            rig.well()
            rig.told()
            rig.figures.clear()
            for number in range(runs):
                fault.inject(rig, number)
                outcome.runs += 1
            rig.finish()
            if rig.left_out:
                outcome.figures["clients left out"] = [float(len(rig.left_out))]
    except Untrue as error:
        outcome.broke = str(error)
    except Exception:  # noqa: BLE001 - the next fault is still of interest
        outcome.broke = traceback.format_exc(limit=-4)
    return outcome


def main() -> int:
    """The command line; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Injects faults into lines of real processes.")
    parser.add_argument("faults", nargs="*", help="codes; all without any")
    parser.add_argument(
        "--runs", type=int, default=int(os.environ.get("INSPECTOR_FAULT_RUNS", "0")), help="of each, instead of its own number"
    )
    parser.add_argument("--out", type=Path, default=Path("out/faults"), help="folder for histories and table.md")
    said = parser.parse_args()
    outcomes = []
    for fault in FAULTS:
        if said.faults and fault.code not in said.faults:
            continue
        began_s = time.monotonic()
        outcome = run(fault, (said.out / fault.code).absolute(), said.runs or fault.runs)
        outcomes.append(outcome)
        print(f"{fault.code:5} {outcome.runs:4} runs  {time.monotonic() - began_s:6.0f} s  {outcome.word()}", flush=True)
        (said.out / "table.md").write_text("\n".join([HEAD, *(each.row().replace("\n", " ") for each in outcomes)]) + "\n")
    print(f"{said.out / 'table.md'}: {len(outcomes)} faults, {sum(bool(each.broke) for each in outcomes)} broken")
    return 1 if any(each.broke for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
