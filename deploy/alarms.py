"""The alarms' table of OPERATIONS.md, from what the page tells the operator: python -m deploy.alarms writes it anew."""

from __future__ import annotations

from pathlib import Path

from inspector.desk.words import ALARMS

GUIDE = Path(__file__).parent / "OPERATIONS.md"
BEGIN, END = "<!-- alarms -->\n", "<!-- end of alarms -->\n"


def table() -> str:
    """One row an alarm, as the guide has it."""
    rows = [f"| `{code}` | {text or 'Nothing to do: for the record.'} |" for code, text in sorted(ALARMS.items())]
    return "| Alarm | What to do |\n|---|---|\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    before, _, rest = GUIDE.read_text(encoding="utf-8").partition(BEGIN)
    GUIDE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
