"""Pictures that end the process that judges them: known by their digest over its restarts, and after the second time judged no more.

What each thread judges now stands in a small file that outlives a crash (`judging`, mapped into memory: a write costs no system call).
What still stands there when vision is started again was being judged when it ended: each of these pictures is a suspect, and is judged
alone from then on; one that was there twice is skipped (reason 205).
"""

from __future__ import annotations

import json
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from inspector.records import Image

DIGEST_BYTES: Final = 16
SAMPLE_ROWS, SAMPLE_COLUMNS = 16, 64
MOST_CRASHES: Final = 2
REMEMBERED: Final = 256


def digest_of(image: Image) -> bytes:
    """A name for the picture: of a thousand of its pixels, noise and all, which no two pictures of a camera share."""
    rows, columns = max(1, image.shape[0] // SAMPLE_ROWS), max(1, image.shape[1] // SAMPLE_COLUMNS)
    return blake2b(image[rows // 2 :: rows, columns // 2 :: columns].tobytes(), digest_size=DIGEST_BYTES).digest()


def forget_judging(folder: Path) -> None:
    """What is being judged there is no suspect: the parent ended, and vision with it, by no fault of a picture."""
    with suppress(OSError):
        (folder / "judging").unlink(missing_ok=True)


class Quarantine:
    """The suspects, and what is being judged now, for `threads` threads with at most `batch` pictures each. Raises `OSError`."""

    def __init__(self, folder: Path, threads: int, batch: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file, size = folder / "crashes.json", threads * batch * DIGEST_BYTES
        self._crashes: OrderedDict[bytes, int] = OrderedDict()
        with suppress(OSError, ValueError, AttributeError, TypeError):  # none yet, or cut off by a full disk: the next crash tells again
            self._crashes.update((bytes.fromhex(digest), int(times)) for digest, times in json.loads(self._file.read_text()).items())
        descriptor = os.open(folder / "judging", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            left = os.pread(descriptor, 1 << 20, 0)
            os.ftruncate(descriptor, 0)
            os.posix_fallocate(descriptor, 0, size)  # a hole in a file on a full disk would end the process at its first write
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        suspects = {left[i : i + DIGEST_BYTES] for i in range(0, len(left), DIGEST_BYTES)} - {bytes(DIGEST_BYTES)}
        for digest in suspects:
            self._crashes[digest] = self._crashes.pop(digest, 0) + 1
        while len(self._crashes) > REMEMBERED:
            self._crashes.popitem(last=False)
        if suspects:
            part = self._file.with_suffix(".part")
            part.write_text(json.dumps({digest.hex(): times for digest, times in self._crashes.items()}))
            part.replace(self._file)
        self._room = batch * DIGEST_BYTES
        self._free = list(range(threads))
        self._places = threading.local()

    def suspicious(self, digest: bytes) -> bool:
        """It was there when the process ended: to be judged alone."""
        return digest in self._crashes

    def poisonous(self, digest: bytes) -> bool:
        """It has ended the process so often that it is not judged again."""
        return self._crashes.get(digest, 0) >= MOST_CRASHES

    @contextmanager
    def judging(self, digests: Sequence[bytes]) -> Iterator[None]:
        """These are judged now, by this thread; if the process ends before the block does, they are suspects."""
        start = self._room * self._place()
        self._map[start : start + self._room] = b"".join(digests).ljust(self._room, b"\0")
        try:
            yield
        finally:  # an exception is no crash of the process
            self._map[start : start + self._room] = bytes(self._room)

    def _place(self) -> int:
        place = getattr(self._places, "place", None)
        if place is None:
            place = self._places.place = self._free.pop()
        return int(place)
