"""Every demand of the protocol names its proof, and every proof that is named exists."""

from __future__ import annotations

import re
from pathlib import Path

from tests.faults.table import FAULTS
from tests.sim.mutants import MUTANTS

ROOT = Path(__file__).parents[2]
ROWS = [line for line in (ROOT / "deploy" / "protocol" / "MUSTS.md").read_text().splitlines() if re.match(r"\| \d", line)]


def test_every_demand_has_a_proof() -> None:
    assert len(ROWS) >= 50
    for row in ROWS:
        proof = row.split("|")[3]
        assert re.search(r"`tests/|\bF\d\d|\bsim\b", proof), row


def test_every_proof_exists() -> None:
    text = "\n".join(ROWS)
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"
    codes = {fault.code for fault in FAULTS}
    assert set(re.findall(r"\bF\d\d\b", text)) <= codes
    for said in re.findall(r"\(mutants? ([^)]*)\)", text):
        for name in re.findall(r'"([^"]*)"', said):
            assert any(known.startswith(name.rstrip(" …")) for known in MUTANTS), name
