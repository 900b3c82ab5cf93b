"""`inspector setup`: whatever is answered makes a configuration that passes `check`, or is refused with what is allowed."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector import config
from inspector.config import timing_faults
from inspector.workshop import setup

ROOT = Path(__file__).parents[2]
PLATE = str(ROOT / "dxf_templates" / "plate.dxf")


def answered(**said: str) -> dict[str, object]:
    """All answers, those given and the defaults of the others."""
    found: dict[str, object] = {"out": "/somewhere/line.yaml"}
    for question in setup.QUESTIONS:
        if question.asked(found):
            text = said.get(question.key) or question.default(found)
            assert text is not None, question.key
            found[question.key] = question.read(text, found)
    return found


@pytest.mark.parametrize(
    "said",
    [
        {"cameras": "simulated"},
        {"cameras": "left=simulated right=simulated"},
        {"cameras": "serial:22345678", "count": "frames"},
        {"cameras": "a=address:192.0.2.20 b=serial:7", "count": "frames", "encoder": "/sys/bus/counter/devices/counter0/count0/count"},
        {"cameras": "top=rtsp://192.0.2.20/stream1?x=1#y /dev/video0", "seen": "7.8"},
        {"cameras": "serial:1", "count": "plc", "address": "192.0.2.1", "seen": "5 9", "port": "6000", "desk_port": "9090"},
    ],
    ids=lambda said: said["cameras"],
)
def test_what_is_written_is_what_the_daemon_reads(said: dict[str, str]) -> None:
    answers = answered(drawing=PLATE, **said)
    text = setup.written(answers)
    found = config.read(Path("/somewhere/line.yaml"), kinds=True, environment={"CREDENTIALS_DIRECTORY": "/run/x"}, text=text)
    assert [camera.id for camera in found.cameras] == [camera.id for camera in answers["cameras"]]  # type: ignore[attr-defined]
    assert (found.security is None) == ("address" not in said)
    assert found.recipes["plate"].template is not None


@given(actuator=st.integers(0, 2000), scan=st.integers(0, 1000), more=st.integers(100, 5000), site=st.from_regex(r"\A[a-z0-9_-]{1,32}\Z"))
@settings(max_examples=60, deadline=None)
def test_every_timing_that_is_accepted_is_legal(actuator: int, scan: int, more: int, site: str) -> None:
    said = {"actuator_ms": str(actuator), "scan_ms": str(scan), "travel_min_ms": str(actuator + scan + more), "site": site}
    answers = answered(cameras="simulated", drawing=PLATE, **said)
    lease_ms, hb_ms = setup.timing(answers)
    faults = timing_faults(travel_min_ms=actuator + scan + more, actuator_ms=actuator, scan_ms=scan, lease_ms=lease_ms, hb_ms=hb_ms)
    assert list(faults) == []
    assert config.read(Path("/somewhere/line.yaml"), text=setup.written(answers)).site == site


def test_a_simulated_part_is_as_large_as_the_recipe_expects_it() -> None:
    found = config.read(Path("/somewhere/line.yaml"), text=setup.written(answered(cameras="simulated", drawing=PLATE, seen="8")))
    assert found.cameras[0].source.model_extra is not None
    assert found.cameras[0].source.model_extra["mm_per_px"] == 0.125


@pytest.mark.parametrize(
    ("key", "text"), [("metrics_port", "5560"), ("metrics_port", "5563"), ("desk_port", "5561"), ("desk_port", "9401")]
)
def test_ports_do_not_cross(key: str, text: str) -> None:
    question = next(question for question in setup.QUESTIONS if question.key == key)
    with pytest.raises(ValueError, match=r"has (5561 to 5563|9400 to 9401)"):
        question.read(text, {"port": 5561, "metrics_port": 9400})


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("site", "Plant A"),
        ("cameras", ""),
        ("cameras", "a=simulated a=simulated"),
        ("cameras", "webcam"),
        ("drawing", "nowhere.dxf"),
        ("tolerance_mm", "nan"),
        ("tolerance_mm", "much"),
        ("seen", "9 5"),
        ("seen", "cam0.yaml"),
        ("count", "belt"),
        ("encoder", "yes"),
        ("travel_min_ms", "80"),
        ("address", "a b"),
        ("port", "80"),
        ("port", "65535"),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_allowed(key: str, text: str) -> None:
    question = next(question for question in setup.QUESTIONS if question.key == key)
    with pytest.raises(ValueError, match=r"allowed|at least|not there"):
        question.read(text, {"actuator_ms": 40, "scan_ms": 10})


def inspector(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inspector", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def test_a_script_sets_up_a_line_with_keys_and_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "answers.yaml").write_text(f"cameras: serial:1\ndrawing: {PLATE}\nsite: from-file\naddress: 192.0.2.1\nstate_dir: state\n")
    made = inspector("setup", "line.yaml", "--answers", "answers.yaml", "--set", "site=from-flag", "--json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["keys"]
    assert "site: from-flag" in (tmp_path / "line.yaml").read_text()
    assert stat.S_IMODE((tmp_path / "keys" / "server.key").stat().st_mode) == 0o600
    assert inspector("check", "line.yaml", cwd=tmp_path).returncode == 0
    before = (tmp_path / "line.yaml").read_text()
    again = inspector("setup", "line.yaml", "--answers", "answers.yaml", cwd=tmp_path)
    assert (again.returncode, "E_SETUP_EXISTS" in again.stderr) == (78, True)
    assert (tmp_path / "line.yaml").read_text() == before


@pytest.mark.parametrize("said", ["", "cameras=simulated", "colour=red", "cameras", "seen=small"])
def test_a_script_that_says_too_little_or_nonsense_leaves_nothing(said: str, tmp_path: Path) -> None:
    arguments = ["--set", f"drawing={PLATE}" if said == "seen=small" else "site=x", *(["--set", said] if said else [])]
    refused = inspector("setup", "line.yaml", *arguments, cwd=tmp_path)
    assert (refused.returncode, refused.stderr.partition(":")[0].partition(" ")[0]) == (78, "E_SETUP_ANSWER")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("site", "code"), [("plant-a", 0), ("Plant A", 78)])
def test_answers_are_piped_in_a_line_each(site: str, code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "inspector", "setup", "line.yaml"]
    lines = f"{site}\n\n\nstate\nsimulated\n{PLATE}\n"
    made = subprocess.run(command, cwd=tmp_path, input=lines, capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == code, made.stderr
    if code:
        assert "E_SETUP_ANSWER: site: 'Plant A'; " in made.stderr
        assert list(tmp_path.iterdir()) == []
    else:
        assert config.read(tmp_path / "line.yaml", kinds=True).site == site


def test_a_person_is_asked_again_until_the_answer_will_do(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "inspector", "setup", "line.yaml", "--set", f"drawing={PLATE}"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as asked:
        os.close(theirs)
        os.write(ours, b"Plant A\nplant-a\n\n\nstate\nwebcam\nsimulated\n" + b"\n" * 12)
        said, _ = asked.communicate(timeout=60)
    os.close(ours)
    assert asked.returncode == 0, said
    assert "lower case letters" in said
    assert "rtsp://…" in said
    assert config.read(tmp_path / "line.yaml", kinds=True).site == "plant-a"
