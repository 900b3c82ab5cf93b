"""A recipe that wants to take over, in a process of its own: prepared there, proved there, and where it is wanted in shadow, judging there.

A drawing that takes long, a network that hangs or crashes, a proof that fails: none of it touches the process that judges the line. What
was made of the drawings comes back with the answer, so that nobody reads them twice.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from inspector import config, recipe
from inspector.config import Config
from inspector.judge import judge
from inspector.neural import pictures
from inspector.outputs import archive
from inspector.outputs.archive import Judgement
from inspector.records import ConfigError, ConfigErrors, Decision, DeviceError, Frame, Recipe, Stamp

NICER = 10
TURN_S = 0.05
MOST_SAID = 8


class Lost(Exception):
    """The process does not answer any more: it crashed, hung, or was ended."""


class Prepare(NamedTuple):
    """Make this recipe ready, and prove it: the configuration at `path` as it stands in `text`, with the `chosen` recipes."""

    path: Path
    text: str
    chosen: Mapping[str, str]


class Prepared(NamedTuple):
    """It is ready: its digest, how many proof pictures it has judged, and what was made of the drawings (see `recipe.Shelf`)."""

    digest: str
    proved: int
    geometry: dict[str, Any]


class Refused(NamedTuple):
    """It must not take over; why, for a person."""

    text: str


class Candidate:
    """The process, seen from the one that judges. Made and asked by one thread; `end` may be called by any."""

    def __init__(self) -> None:
        """Raises `Lost` where the machine has no room for another process."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "inspector.runtime.changeover_candidate", str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno())
        except OSError as error:
            ours.close()
            raise Lost(f"no process can be started for it: {error.strerror}") from error
        finally:
            theirs.close()
        self._link = Connection(ours.detach())

    def prepare(self, question: Prepare, within_s: float, meanwhile: Callable[[], None]) -> Prepared | Refused:
        """What becomes of it; `meanwhile` is called again and again. Raises `Lost`."""
        answer = self._ask(question, within_s, meanwhile)
        if not isinstance(answer, (Prepared, Refused)):
            raise Lost(f"it said {type(answer).__name__}")
        return answer

    def judge(self, frame: Frame, within_s: float, meanwhile: Callable[[], None]) -> Judgement:
        """What it says of a picture; `meanwhile` is called again and again. Raises `Lost`."""
        answer = self._ask(frame, within_s, meanwhile)
        if not isinstance(answer, Judgement):
            raise Lost(f"it said {type(answer).__name__}")
        return answer

    def _ask(self, question: Any, within_s: float, meanwhile: Callable[[], None]) -> Any:
        by_s = time.monotonic() + within_s
        try:
            self._link.send(question)
            while not self._link.poll(min(TURN_S, max(0.0, by_s - time.monotonic()))):
                if time.monotonic() >= by_s:
                    raise Lost(f"no answer within {within_s:g} s")
                meanwhile()
            return self._link.recv()
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
            raise Lost(f"its process ended with {self._process.returncode}") from error

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        with suppress(OSError):
            self._link.close()


def prove(settings: Config, prepared: Recipe) -> int:
    """Judge the proof and challenge pictures of the recipes in use; how many they were. Raises `ConfigErrors` E_PROOF, E_CHALLENGE."""
    errors: list[ConfigError] = []
    judged = 0
    for name in dict.fromkeys(plan.recipe for plan in prepared.plans.values()):
        cameras = [camera for camera, plan in prepared.plans.items() if plan.recipe == name]
        for key, folder in (("proof", settings.recipes[name].proof), ("challenge", settings.recipes[name].challenge)):
            if folder is None:
                continue
            try:
                wrong, count = _proofs(folder, cameras, prepared) if key == "proof" else _challenges(folder, cameras, prepared)
            except ConfigError as error:
                wrong, count = [str(error)], 0
            if not wrong and not count:
                wrong = [f"{folder} has no picture that one of {', '.join(cameras)} could have taken"]
            judged += count
            more = f" … and {len(wrong) - MOST_SAID} more" if len(wrong) > MOST_SAID else ""
            if wrong:
                errors.append(settings.error(f"E_{key.upper()}", "; ".join(wrong[:MOST_SAID]) + more, "recipes", name, key))
    if errors:
        raise ConfigErrors(errors)
    return judged


def _proofs(folder: Path, cameras: list[str], prepared: Recipe) -> tuple[list[str], int]:
    """What is judged otherwise than its record says, and how many pictures were judged."""
    wrong, count = [], 0
    for path in archive.pictures_in(folder):
        record = archive.read(path)
        if not record.judged or record.stamp.camera not in cameras:
            continue
        count += 1
        (now,) = judge([Frame(record.stamp, pictures.read(path))], prepared, time.monotonic_ns)
        if now.decision is not record.judgement.decision:
            was = record.judgement.decision.value
            wrong.append(f"{path.name} was judged {was} and is now {now.decision.value}: {now.reason_text or record.judgement.reason_text}")
    return wrong, count


def _challenges(folder: Path, cameras: list[str], prepared: Recipe) -> tuple[list[str], int]:
    """What is not rejected, and how many pictures were judged. A subfolder with a camera's name holds the pictures of that camera."""
    if not folder.is_dir():
        raise ConfigError("E_CHALLENGE", "no such folder", file=str(folder))
    wrong, count = [], 0
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in pictures.SUFFIXES):
        sub = path.relative_to(folder).parts[0]
        camera = sub if sub in prepared.plans else cameras[0]
        if camera not in cameras:
            continue
        count += 1
        image = pictures.read(path)
        (now,) = judge([Frame(Stamp(camera, count, 0, None, image.shape), image)], prepared, time.monotonic_ns)
        if now.decision is not Decision.FAIL:
            wrong.append(f"{path.name} shows a bad part and is judged {now.decision.value}")
    return wrong, count


def _answer(question: Any, current: Recipe | None) -> tuple[Prepared | Refused | Judgement, Recipe | None]:
    if isinstance(question, Frame):
        if current is None:
            return Refused("nothing is prepared"), None
        (found,) = judge([question], current, time.monotonic_ns)
        return archive.judgement(found, current), current
    try:
        settings = config.read(question.path, text=question.text)
        shelf = recipe.Shelf(len(settings.cameras))
        prepared = recipe.prepare(settings, time.time_ns(), chosen=question.chosen, shelf=shelf)
        return Prepared(prepared.digest, prove(settings, prepared), shelf.geometry), prepared
    except (ConfigError, DeviceError) as error:
        return Refused(str(error)), None
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the new recipe, the old one stays
        return Refused(f"{type(error).__name__}: {error}"), None


def main() -> None:
    """`python -m inspector.runtime.changeover_candidate FD`: answer until the other end is gone."""
    with suppress(OSError):
        os.nice(NICER)
    cv2.setNumThreads(1)
    link = Connection(int(sys.argv[1]))
    current: Recipe | None = None
    with suppress(EOFError, OSError):
        while True:
            answer, current = _answer(link.recv(), current)
            link.send(answer)


if __name__ == "__main__":
    from inspector.runtime.changeover_candidate import main as run  # so that what it says is of this module and not of __main__

    run()
    os._exit(0)
