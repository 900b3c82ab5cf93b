"""A network camera that dies, hangs and comes back: the driver against a real RTSP server, which is killed, stopped and started."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from inspector.conveyor.timed import Timed
from inspector.records import DeviceError, Stamp
from inspector.sources import opencv
from inspector.sources.opencv import OpenCvCamera, Settings

PYTHON = "/usr/bin/python3"  # the one with the bindings of the system
SCRIPT = Path(__file__).parent / "rtspserver.py"
NEEDS = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst; Gst.init(None); " + "; ".join(
    f"assert Gst.ElementFactory.find('{element}'), '{element}'" for element in ("videotestsrc", "jpegenc", "rtpjpegpay")
)


def _missing() -> str:
    try:
        tried = subprocess.run([PYTHON, "-c", NEEDS], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    why = (tried.stderr.strip().splitlines() or [""])[-1]
    return f"no RTSP server (python3-gi, gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good): {why}" if tried.returncode else ""


MISSING = _missing()
pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]


class Server:
    """The server's process on a port that stays the same."""

    def __init__(self) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self.port}/cam1"
        self.start()

    def start(self, width: int = 320, height: int = 240) -> None:
        self.process = subprocess.Popen([PYTHON, str(SCRIPT), str(self.port), str(width), str(height)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.kill()


def opened(server: Server, open_ms: int = 10_000) -> OpenCvCamera:
    return opencv.build(Settings(url=server.url, stall_ms=1000, open_ms=open_ms), "cam", time.monotonic_ns, Timed(1000.0))


def pictures(source: OpenCvCamera, count: int, timeout_s: float = 20.0, before_ns: int = 1 << 63) -> list[Stamp]:
    into = np.zeros(source.max_bytes, np.uint8)
    found: list[Stamp] = []
    until_s = time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < until_s:
        stamp = source.read(into, 0.2)
        if stamp is not None:
            assert into.max() > 200, "the ball"
            assert stamp.at_ns < before_ns, "what a reader gives after a stall is from before it"
            found.append(stamp)
    return found


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "opencv-cam"]


def test_a_server_that_is_killed_is_a_lost_camera_until_it_runs_again(server: Server) -> None:
    source = opened(server)
    found = pictures(source, 10)
    assert len(found) == 10
    assert {stamp.shape for stamp in found} == {(240, 320)}
    server.kill()
    with pytest.raises(DeviceError, match=r"ended|no picture for 1000 ms"):
        pictures(source, 10_000)
    source.close()
    with pytest.raises(DeviceError, match="cannot be opened"):
        opened(server)
    server.start()
    again = opened(server)
    assert len(pictures(again, 5)) == 5
    again.close()


def test_a_server_that_hangs_is_a_stall_by_the_clock_and_shows_nothing_old(server: Server) -> None:
    source = opened(server)
    assert len(pictures(source, 5)) == 5
    server.process.send_signal(signal.SIGSTOP)
    stopped_ns = time.monotonic_ns()
    try:
        with pytest.raises(DeviceError, match="no picture for 1000 ms"):
            pictures(source, 10_000, before_ns=stopped_ns + 1_000_000_000)
        source.close()
        with pytest.raises(DeviceError, match="did not open within 300 ms"):
            opened(server, open_ms=300)
    finally:
        server.process.send_signal(signal.SIGCONT)
    again = opened(server)
    assert len(pictures(again, 5)) == 5
    again.close()
    for thread in readers():
        thread.join(20)
    assert not readers(), "every reader that was left behind has ended"


def test_a_server_that_comes_back_with_another_size_is_down_where_it_must_have_one(server: Server) -> None:
    opened(server).close()
    server.kill()
    server.start(160, 120)
    again = opened(server)
    assert {stamp.shape for stamp in pictures(again, 3)} == {(120, 160)}
    again.close()
    with pytest.raises(DeviceError, match="size_px is 160 × 120, asked for 320 × 240"):
        opencv.build(Settings(url=server.url, size_px=(320, 240)), "cam", time.monotonic_ns, Timed(1000.0))


def test_a_camera_command_leaves_with_its_own_code_while_the_stream_goes_on(server: Server) -> None:
    command = [sys.executable, "-m", "inspector", "camera", "show", "opencv", f"url=rtsp://anna:secret@{server.url[7:]}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (shown.returncode, shown.stdout[:16]) == (0, "shape [240, 320]"), shown.stderr
    assert "secret" not in shown.stdout + shown.stderr
