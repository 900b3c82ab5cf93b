from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inspector.runtime.quarantine import DIGEST_BYTES, Quarantine, digest_of, forget_judging

POISON, INNOCENT, OTHER = (bytes([n]) * DIGEST_BYTES for n in (1, 2, 3))

CRASHES = """
import os, sys
from pathlib import Path
from inspector.runtime.quarantine import Quarantine
digests = [bytes.fromhex(text) for text in sys.argv[2:]]
with Quarantine(Path(sys.argv[1]), 1, 4).judging(digests):
    os.abort()
"""


def crash(folder: Path, *digests: bytes) -> None:
    """A process that ends while it judges these."""
    command = [sys.executable, "-c", CRASHES, str(folder), *(digest.hex() for digest in digests)]
    assert subprocess.run(command, capture_output=True, check=False).returncode < 0


def test_who_was_there_is_a_suspect_and_who_was_there_twice_is_judged_no_more(tmp_path: Path) -> None:
    crash(tmp_path, POISON, INNOCENT)
    again = Quarantine(tmp_path, 1, 4)
    assert again.suspicious(POISON)
    assert again.suspicious(INNOCENT)
    assert not again.suspicious(OTHER)
    assert not again.poisonous(POISON)
    with again.judging([INNOCENT]):
        pass
    crash(tmp_path, POISON)
    after = Quarantine(tmp_path, 1, 4)
    assert after.poisonous(POISON)
    assert not after.poisonous(INNOCENT)
    assert Quarantine(tmp_path, 2, 8).poisonous(POISON)  # remembered, whatever the settings are now


def test_who_was_there_when_the_parent_ended_is_no_suspect(tmp_path: Path) -> None:
    crash(tmp_path, POISON)
    forget_judging(tmp_path)
    assert not Quarantine(tmp_path, 1, 4).suspicious(POISON)
    forget_judging(tmp_path / "nowhere")


def test_its_file_has_its_room_on_the_disk_before_it_is_written_as_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Quarantine(tmp_path, 1, 4)
    assert (tmp_path / "judging").stat().st_blocks > 0

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        Quarantine(tmp_path, 1, 4)


def test_an_error_is_no_crash(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path, 1, 4)
    with pytest.raises(ValueError, match="shape"), quarantine.judging([POISON]):
        raise ValueError("shape")
    assert not Quarantine(tmp_path, 1, 4).suspicious(POISON)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"zz": 1}', '{"00": "x"}'])
def test_a_file_that_was_cut_off_is_begun_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "crashes.json").write_text(text)
    (tmp_path / "judging").write_bytes(os.urandom(7))
    assert not Quarantine(tmp_path, 1, 4).poisonous(POISON)


def test_two_pictures_have_two_names() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (2, 480, 640), np.uint8)
    assert digest_of(noise[0]) != digest_of(noise[1])
    assert digest_of(noise[0]) == digest_of(noise[0].copy())
