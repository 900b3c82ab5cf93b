"""What people at the line think of a verdict: "this was good", "this was bad", kept for training.

    state_dir/desk/opinions/opinions.jsonl                one line each; the last one of a part counts
    state_dir/desk/opinions/images/<class>/<picture>.png  + .json, its record; "good" or the defect's class

So `inspector train classification state_dir/desk/opinions` learns from it, `inspector train anomaly` takes its good/, and
`inspector reinspect` judges images/ with a new recipe. The pictures are copies: the archive may let its own go.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from inspector.desk.state import Part
from inspector.records import ConfigError

GOOD = "good"
WITHDRAWN = "withdrawn"
CLASS = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
MOST_BYTES = 8 << 30
MOST_NOTE = 300


@dataclass(frozen=True, slots=True)
class Opinion:
    """One line. `said` is "good", a defect's class, or "withdrawn"; `picture` is below the folder, None where none was kept."""

    at_utc_ns: int
    who: str
    epoch: str
    seq: int
    part_seq: int
    lane: int
    cameras: tuple[str, ...]
    verdict: str
    reason_text: str
    recipe: str
    said: str
    note: str
    picture: str | None


class Opinions:
    """The folder. Safe from several threads of one process."""

    def __init__(self, folder: Path, picture_of: Callable[[str], Path | None], *, utc: Callable[[], int]) -> None:
        self._folder, self._picture_of, self._utc, self._lock = folder, picture_of, utc, threading.Lock()
        self._known: dict[tuple[str, int], Opinion] | None = None

    def say(self, part: Part, who: str, said: str, note: str) -> Opinion:
        """Keep it. Raises `ConfigError`: E_USAGE for a class that cannot be one, E_OPINIONS_FULL, E_STATE_PERM."""
        if not CLASS.fullmatch(said):
            raise ConfigError("E_USAGE", "a class of defect has 1 to 32 of a-z 0-9 _ -, a letter or digit first")
        with self._lock:
            try:
                return self._keep(part, who, said, note)
            except OSError as error:
                raise ConfigError("E_STATE_PERM", f"{self._folder}: {error.strerror}", key="state_dir") from error

    def _keep(self, part: Part, who: str, said: str, note: str) -> Opinion:
        known = self._read()
        images = self._folder / "images"
        source = None if part.image_ref is None else self._picture_of(part.image_ref)
        before = known.get((part.epoch, part.seq))
        if source is None and before is not None and before.picture is not None:
            source = self._folder / before.picture
        if said != WITHDRAWN and source is not None and sum(p.stat().st_size for p in images.glob("*/*")) > MOST_BYTES:
            raise ConfigError("E_OPINIONS_FULL", f"{images} holds {MOST_BYTES >> 30} GiB; move what was learnt elsewhere")
        picture = None
        if said != WITHDRAWN and source is not None:
            picture = f"images/{said}/{source.name}"
            target = self._folder / picture
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            if source != target:
                with suppress(FileNotFoundError):
                    shutil.copyfile(source.with_suffix(".json"), target.with_suffix(".json"))
                shutil.copyfile(source, target)
        opinion = Opinion(
            self._utc(),
            who,
            part.epoch,
            part.seq,
            part.part_seq,
            part.lane,
            tuple(e.camera for e in part.exposures),
            part.verdict,
            part.reason_text,
            part.recipe,
            said,
            note[:MOST_NOTE],
            picture,
        )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        with (self._folder / "opinions.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**asdict(opinion), "at_utc_ns": str(opinion.at_utc_ns), "seq": str(opinion.seq)}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if before is not None and before.picture is not None and before.picture != picture:
            for path in ((self._folder / before.picture), (self._folder / before.picture).with_suffix(".json")):
                path.unlink(missing_ok=True)
        known.pop((part.epoch, part.seq), None)
        known[part.epoch, part.seq] = opinion
        return opinion

    def of(self, part: Part) -> Opinion | None:
        """What was said of a part last."""
        with self._lock:
            found = self._read().get((part.epoch, part.seq))
        return None if found is None or found.said == WITHDRAWN else found

    def last(self, most: int) -> list[Opinion]:
        """The newest that stand, newest first."""
        with self._lock:
            return [o for o in reversed(self._read().values()) if o.said != WITHDRAWN][:most]

    def classes(self) -> list[str]:
        """The classes of defects that somebody has named."""
        with self._lock:
            return sorted({o.said for o in self._read().values()} - {GOOD, WITHDRAWN})

    def picture(self, epoch: str, seq: int) -> bytes | None:
        """The kept picture of a part."""
        with self._lock:
            found = self._read().get((epoch, seq))
        with suppress(OSError):
            return None if found is None or found.picture is None else (self._folder / found.picture).read_bytes()
        return None

    def _read(self) -> dict[tuple[str, int], Opinion]:
        if self._known is None:
            self._known = {}
            for opinion in _lines(self._folder / "opinions.jsonl"):
                self._known.pop((opinion.epoch, opinion.seq), None)
                self._known[opinion.epoch, opinion.seq] = opinion
        return self._known


def _lines(path: Path) -> Iterator[Opinion]:
    """What can be read; a line that was cut off by a power failure is left out."""
    with suppress(OSError), path.open(encoding="utf-8") as file:
        for line in file:
            with suppress(ValueError, TypeError, KeyError):
                found = json.loads(line)
                found |= {"at_utc_ns": int(found["at_utc_ns"]), "seq": int(found["seq"]), "cameras": tuple(found["cameras"])}
                opinion = Opinion(**found)
                if CLASS.fullmatch(opinion.said) and (opinion.picture is None or ".." not in opinion.picture):
                    yield opinion
