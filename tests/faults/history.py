"""What clients lived through, written down, and what must be true of it afterwards."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from inspector.client import Hole, Message
from inspector.gate.journal import verify


@dataclass
class History:
    """Of a line over several starts of its daemon: what the gateway was ordered, what the subscriber was told, what was lost."""

    ordered: list[tuple[str, int, str, bool]] = field(default_factory=list)
    """(epoch, seq, hash, may be acted on) of each verdict that the gateway accepted."""
    told: list[Message] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    permit_off_ms: list[float] = field(default_factory=list)
    run_again_ms: list[float] = field(default_factory=list)

    def check(self, folder: Path) -> None:
        """Ordered, Unique, Reliable, Resumable, historical never acted on."""
        path = folder / "state" / "journal.sqlite"
        assert list(verify(path)) == []
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        kept = {(epoch, seq): digest.hex() for epoch, seq, digest in db.execute("SELECT epoch, seq, hash FROM event WHERE stream = 'q'")}
        db.close()
        by_name: dict[tuple[str, int], str] = {}
        for epoch, seq, digest, _ in self.ordered:
            assert by_name.setdefault((epoch, seq), digest) == digest, f"{epoch} {seq} was two different verdicts"
            known = kept.get((bytes.fromhex(epoch.replace("-", "")), seq))
            assert known in (None, digest), f"{epoch} {seq} is another verdict in the journal"
        last: dict[bytes, int] = {}
        for message in self.told:
            header = message.header
            known = kept.get((header.epoch, header.seq))
            assert known is not None, f"{header.seq} was published and is not in the journal"
            assert message.event.body["hash"] == known
            assert header.seq > last.get(header.epoch, 0), "out of order, or twice"
            last[header.epoch] = header.seq
