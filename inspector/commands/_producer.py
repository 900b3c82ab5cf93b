"""The cameras behind one GenTL producer, asked in a process of its own: what that loads may crash or hang, and is then said to."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from inspector.records import DeviceError
from inspector.runtime import child
from inspector.sources import gentl
from inspector.sources._genicam import Found

LONGEST_S = 30.0


def devices(producer: Path) -> list[Found]:
    """Raises `DeviceError` for a producer that cannot be loaded."""
    end, theirs = socket.socketpair()
    process = child.start("inspector.commands._producer", "--producer", str(producer), theirs=theirs)
    said = b""
    try:
        end.settimeout(LONGEST_S)
        with suppress(TimeoutError):
            while more := end.recv(1 << 16):
                said += more
    finally:
        end.close()
        process.kill()
        process.wait()
    if not said.endswith(b"\n"):
        raise DeviceError(f"{producer}: cannot be loaded: it crashes or hangs the process that loads it")
    answer = json.loads(said)
    if isinstance(answer, str):
        raise DeviceError(answer)
    return [Found(**each) for each in answer]


def main() -> None:
    """`python -m inspector.commands._producer --producer FILE --link-fd N`; started by `camera list` only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--producer", type=Path, required=True)
    parser.add_argument("--link-fd", type=int, required=True)
    arguments = parser.parse_args()
    child.obey_parent()
    answer: object
    try:
        answer = [asdict(each) for each in gentl.devices_of(arguments.producer)]
    except DeviceError as error:
        answer = str(error)
    with socket.socket(fileno=arguments.link_fd) as end:
        end.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)  # a producer's thread must not keep the process
