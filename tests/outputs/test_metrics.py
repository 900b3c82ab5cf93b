"""The page that Prometheus reads, whole, and the listener in front of it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from inspector.outputs.metrics import Family, Histogram, serve
from inspector.records import ConfigError

EXPECTED = """\
# HELP inspector_frames_total Exposures that arrived.
# TYPE inspector_frames_total counter
inspector_frames_total{camera="top"} 3.0
inspector_frames_total{camera="side \\"b\\""} 0.0
# HELP inspector_camera_up 1 while the camera works.
# TYPE inspector_camera_up gauge
inspector_camera_up{camera="top"} 1.0
# HELP inspector_build_info What runs.
# TYPE inspector_build_info gauge
inspector_build_info{version="1"} 1.0
# HELP inspector_wait_seconds How long.
# TYPE inspector_wait_seconds histogram
inspector_wait_seconds_bucket{le="0.5"} 1.0
inspector_wait_seconds_bucket{le="1.0"} 2.0
inspector_wait_seconds_bucket{le="+Inf"} 3.0
inspector_wait_seconds_count 3.0
inspector_wait_seconds_sum 9.75
"""


def families() -> Iterator[Family]:
    wait = Histogram((0.5, 1.0))
    for value in (0.5, 0.75, 8.5):
        wait.observe(value)
    yield Family("frames", "counter", "Exposures that arrived.", [({"camera": "top"}, 3), ({"camera": 'side "b"'}, 0)])
    yield Family("camera_up", "gauge", "1 while the camera works.", [({"camera": "top"}, 1)])
    yield Family("build", "info", "What runs.", [({"version": "1"}, 1)])
    yield Family("wait_seconds", "histogram", "How long.", [({}, wait)])


@pytest.fixture
def page() -> Iterator[str]:
    server, _ = serve("127.0.0.1:0", families)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=5) as answer:
        yield answer.read().decode()
    server.shutdown()
    server.server_close()


def test_the_page(page: str) -> None:
    assert page.startswith(EXPECTED)
    assert "inspector_process_resident_memory_bytes" in page
    names = [line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")]
    assert all(name.startswith("inspector_") for name in names)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_has_nothing_to_say(page: str) -> None:
    said = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"E_BIND: {bind}: .*in use"):
            serve(bind, families)


def test_a_stalled_scraper_holds_up_nobody() -> None:
    server, _ = serve("127.0.0.1:0", families)
    with socket.create_connection(("127.0.0.1", server.server_port)) as stalled:
        stalled.sendall(b"GET /met")
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=5) as answer:
            assert answer.status == 200
    server.shutdown()
    server.server_close()
