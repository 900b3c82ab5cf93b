"""The whole daemon, from cameras to verdicts received, beside bare loops of the same reading and judging in the same run.

Pictures of the demo's plate (2448 × 2048) are drawn once and shown by `replay`; the recipe is the demo's: drawing, holes, networks.

- *throughput*: every camera as fast as its pictures are taken, and the same pictures read and judged by as many threads in a bare loop.
  `cpu_ratio` says the same in CPU seconds a frame, which other work on the machine moves less.
- *latency*, open loop, at 80 % of that with one camera and with four: from the end of exposure (when the picture was due, not when it was
  taken up) to the verdict received by a gateway in another process, less what judging the same picture takes alone in the bare loop.
- *overload*, 120 %: every part has a verdict, what is too much is rejected with its reason, and 2 s after it is over nothing is.
- *line-scan*: 4096 px × 20,000 lines/s stacked and inspected by the check `web`, lost lines counted.

`written_ratio` is what the ring and the raster of a frame are, in frames: what is written for each picture, the network's tiles aside.
INSPECTOR_BENCH_S sets the seconds of each measurement (3; the overload of a real trial takes 60).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspector.records import DeviceError

NAME = "pipeline"

ROOT = Path(__file__).parents[2]
SIZE_PX = (2448, 2048)
PICTURES = 4
SCALE_PX_PER_MM = 7.8125 * SIZE_PX[0] / 1280
TRAVEL_MS, PATIENT_MS = 3_000, 60_000
READY_S, LEAVE_S = 120.0, 30.0
SETTLED_S = 3.0
"""After the first verdict: the other processes of the daemon start too, and what has waited meanwhile is judged."""
LINE_PX, LINE_HZ = 4096, 20_000
TICKS = os.sysconf("SC_CLK_TCK")


def measure() -> dict[str, dict[str, Any]]:
    """Frames a second, CPU, latency, overload and line-scan, each beside its limit."""
    seconds = float(os.environ.get("INSPECTOR_BENCH_S", "3"))
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _draw(folder / "pictures")
        bare = _bare(_config(folder, threads=threads), threads, seconds)
        full = _run(_config(folder, threads=threads, when_full="wait", travel_ms=PATIENT_MS), seconds, PATIENT_MS)
        rated_hz = full.judged / full.seconds
        rows: dict[str, dict[str, Any]] = {
            "throughput": {
                "frames_per_s": rated_hz,
                "bare_frames_per_s": bare.frames / bare.seconds,
                "ratio": rated_hz / (bare.frames / bare.seconds),
                "cpu_ms_per_frame": 1e3 * full.cpu_s / max(1, full.judged),
                "bare_cpu_ms_per_frame": 1e3 * bare.cpu_s / bare.frames,
                "cpu_ratio": (bare.cpu_s / bare.frames) / (full.cpu_s / max(1, full.judged)),
                "written_ratio": bare.written_ratio,
            }
        }
        for cameras in (1, 4):
            run = _run(_config(folder, threads=threads, cameras=cameras, rate_hz=0.8 * rated_hz / cameras), seconds)
            rows[f"latency at 80 %, {cameras} camera{'s' * (cameras > 1)}"] = _latency(run, bare.alone_ms) | {"lost": run.not_inspected}
        rows["overload at 120 %"] = _overload(folder, threads, 1.2 * rated_hz, seconds)
        rows["line-scan"] = _line_scan(folder, seconds)
    return rows


# --- what is shown and judged ------------------------------------------------------------------------------------------


def _draw(folder: Path) -> None:
    """A few pictures of the demo's plate, uncompressed."""
    import cv2

    from inspector.geometry import dxf, template
    from inspector.scene import Look, draw

    folder.mkdir()
    part = template.build(dxf.read(ROOT / "dxf_templates" / "plate.dxf"))
    for index in range(PICTURES):
        drawn = draw(part, seed=(1, 0, index), size_px=SIZE_PX, mm_per_px=1 / SCALE_PX_PER_MM, look=Look())
        cv2.imwrite(str(folder / f"plate{index}.bmp"), drawn.image)


def _config(
    folder: Path,
    *,
    threads: int,
    cameras: int = 1,
    rate_hz: float | None = None,
    when_full: str = "drop_oldest",
    travel_ms: int = TRAVEL_MS,
) -> Path:
    """The configuration of a line of `cameras` cameras, each a lane of its own, with the demo's recipe for its plate."""
    import yaml

    demo = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    recipe = demo["recipes"]["plate"]
    recipe["template"] |= {"drawing": str(ROOT / "dxf_templates" / "plate.dxf"), "scale_px_per_mm": SCALE_PX_PER_MM}
    for key in {"model", "look", "classifier"} & recipe["checks"]["surface"].keys():
        recipe["checks"]["surface"][key] = str(ROOT / "models" / Path(recipe["checks"]["surface"][key]).name)
    source = {"kind": "replay", "files": [str(folder / "pictures")], "loop": True} | ({} if rate_hz is None else {"rate_hz": rate_hz})
    line = {"id": "cam", "recipe": "plate", "source": source, "ring": {"slots": 2 * threads + 2, "when_full": when_full}}
    lines = []
    for n in range(cameras):  # each in its own time, as cameras on lanes of their own are
        apart = {} if rate_hz is None else {"first_after_ms": 1e3 * n / (cameras * rate_hz)}
        lines.append(line | {"id": f"cam{n}", "lane": n, "source": source | apart})
    return _written(folder, {"plate": recipe}, lines, threads, travel_ms)


def _written(
    folder: Path, recipes: Mapping[str, Any], cameras: Sequence[Mapping[str, Any]], threads: int, travel_ms: int = TRAVEL_MS
) -> Path:
    place = Path(tempfile.mkdtemp(dir=folder))
    settings = {
        "version": 1,
        "site": "bench",
        "line": "bench",
        "station": "bench",
        "state_dir": str(place / "state"),
        "ready_file": str(place / "ready.json"),
        "gate": {"bind": "tcp://127.0.0.1:0", "count": "frames", "travel_min_ms": travel_ms},
        "events": {"bind": "tcp://127.0.0.1:0", "replay_bind": "tcp://127.0.0.1:0"},
        "metrics": {"gate_bind": "127.0.0.1:0", "vision_bind": "127.0.0.1:0"},
        "journal": {"ballast_mib": 0},
        "archive": {"rejects": False, "every_nth_pass": 0},
        "vision": {"inspect_threads": threads, "batch": 1},
        "cameras": list(cameras),
        "recipes": dict(recipes),
    }
    path = place / "bench.yaml"
    path.write_text(json.dumps(settings))  # YAML too, without aliases
    return path


# --- the bare loop -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bare:
    """`alone_ms`: by picture, the median of what judging it takes on one thread with nothing beside it."""

    frames: int
    seconds: float
    cpu_s: float
    alone_ms: Mapping[str, float]
    written_ratio: float


def _bare(path: Path, threads: int, seconds: float) -> Bare:
    """Read and judge in plain loops, with the daemon's own functions and nothing around them."""
    from statistics import median

    import cv2
    import numpy as np

    from inspector import config, recipe
    from inspector.judge import judge
    from inspector.records import Frame, Stamp
    from inspector.sources.replay import load

    cv2.setNumThreads(1)
    settings = config.read(path)
    prepared = recipe.prepare(settings)
    files = sorted(Path(str(settings.cameras[0].source.model_extra["files"][0])).iterdir())  # type: ignore[index]

    def one(file: Path, into: Any) -> float:
        image = load(file, colour=False)
        into[: image.size] = image.reshape(-1)
        frame = Frame(Stamp("cam0", 1, 1, None, image.shape, True, file.stem), into[: image.size].reshape(image.shape))
        began_ns = time.monotonic_ns()
        judge([frame], prepared, time.monotonic_ns)
        return (time.monotonic_ns() - began_ns) / 1e6

    size = SIZE_PX[0] * SIZE_PX[1]
    into = np.empty(size, np.uint8)
    alone_ms = {file.stem: median(one(file, into) for _ in range(3)) for file in files}
    done, stopping = [0] * threads, threading.Event()

    def loop(number: int) -> None:
        own = np.empty(size, np.uint8)
        while not stopping.is_set():
            one(files[done[number] % len(files)], own)
            done[number] += 1

    workers = [threading.Thread(target=loop, args=(n,)) for n in range(threads)]
    began_s, cpu_s = time.monotonic(), time.process_time()
    for worker in workers:
        worker.start()
    time.sleep(seconds)
    stopping.set()
    for worker in workers:
        worker.join()
    spent_s, spent_cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    template = prepared.plans["cam0"].template
    raster = 0 if template is None else template.sdf_mm.size
    return Bare(sum(done), spent_s, spent_cpu_s, alone_ms, 1 + raster / size)


# --- the daemon --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """One part as the gateway was told of it: `latency_ms` from the end of exposure to its receipt."""

    lane: int
    at_s: float
    latency_ms: float
    verdict: str
    reason: int
    uid: str


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of the daemon came to; CPU of both processes; `grown_mib` is what vision has grown from half-way on."""

    seconds: float
    verdicts: tuple[Verdict, ...]
    account: Mapping[str, int]
    cpu_s: float
    grown_mib: float
    metrics: str

    @property
    def judged(self) -> int:
        """Parts that were judged."""
        return sum(verdict.verdict in ("PASS", "REJECT_DEFECT") for verdict in self.verdicts)

    @property
    def not_inspected(self) -> int:
        """Parts that were not."""
        return len(self.verdicts) - self.judged


def _run(path: Path, seconds: float, travel_ms: int = TRAVEL_MS) -> Run:
    """The daemon and a gateway, each a process, for so long."""
    folder = path.parent
    ready, verdicts = folder / "ready.json", folder / "heard"
    with _child(folder, "inspector", "run", str(path), "--allow-root", "--quiet") as daemon:
        _until(ready.exists, daemon, folder)
        said = json.loads(ready.read_text())
        client = "inspector.workshop.bench_pipeline", said["endpoints"]["gate"], str(verdicts), str(travel_ms)
        with _child(folder, *client) as gateway:
            vision = int(said["vision_pid"])
            _until(verdicts.exists, daemon, folder)
            time.sleep(SETTLED_S)
            cpu_s, began_s = _cpu_s(daemon.pid, *_children(daemon.pid)), time.monotonic()
            time.sleep(seconds / 2)
            half_mib = _resident_mib(vision)
            time.sleep(seconds / 2)
            spent_s, spent_cpu_s = time.monotonic() - began_s, _cpu_s(daemon.pid, *_children(daemon.pid)) - cpu_s
            grown_mib, metrics = _resident_mib(vision) - half_mib, _page(said["endpoints"]["metrics_vision"])
            ended_ns = time.time_ns()
            daemon.send_signal(signal.SIGTERM)
            out, _ = daemon.communicate(timeout=LEAVE_S)
            gateway.send_signal(signal.SIGTERM)
            gateway.wait(LEAVE_S)
    account = {key: int(value) for key, _, value in (word.partition("=") for word in out.decode().splitlines()[-1].split())}
    began_ns = ended_ns - round(spent_s * 1e9)
    heard = [_verdict(json.loads(line), began_ns) for line in verdicts.read_text().splitlines()]
    return Run(spent_s, tuple(v for v in heard if 0 <= v.at_s <= spent_s), account, spent_cpu_s, grown_mib, metrics)


def _verdict(said: Mapping[str, Any], began_ns: int) -> Verdict:
    body, at_ns = said["body"], said["at_utc_ns"]
    latency_ms = (at_ns - int(body["trigger"]["t_trigger_utc_ns"])) / 1e6
    return Verdict(body["lane"], (at_ns - began_ns) / 1e9, latency_ms, body["verdict"], body["reason"], body["part_uid"] or "")


@contextmanager
def _child(folder: Path, module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", module, *arguments]
    with (folder / f"{module}.err").open("wb") as err:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, cwd=ROOT)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _until(what: Callable[[], bool], daemon: subprocess.Popen[bytes], folder: Path) -> None:
    until_s = time.monotonic() + READY_S
    while not what():
        if daemon.poll() is not None or time.monotonic() > until_s:
            raise DeviceError(f"the daemon did not come up: {(folder / 'inspector.err').read_text()[-500:]}")
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def _cpu_s(*pids: int) -> float:
    stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / TICKS


def _resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)


def _page(address: str) -> str:
    from urllib.request import urlopen

    with urlopen(f"http://{address}/metrics", timeout=10) as answer:
        page: str = answer.read().decode()
    return page


def _gateway(endpoint: str, out: str, travel_ms: str) -> None:
    """Acknowledge every verdict, and write each with the moment of its receipt."""
    from inspector.client import Decided, Gateway, Terms

    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    terms = Terms(client="bench", station="bench", travel_min_ms=int(travel_ms))
    heard: list[tuple[int, bytes]] = []
    with Gateway(endpoint, terms) as gateway:
        while not ended:
            for happened in gateway.poll(5):
                if isinstance(happened, Decided):
                    heard.append((time.time_ns(), happened.payload))
                else:
                    Path(out).touch()
    with Path(out).open("w") as file:
        for at_ns, payload in heard:
            file.write(json.dumps({"at_utc_ns": at_ns, "body": json.loads(payload)}) + "\n")


# --- what it says ------------------------------------------------------------------------------------------------------


def _latency(run: Run, alone_ms: Mapping[str, float]) -> dict[str, Any]:
    import numpy as np

    added = [verdict.latency_ms - alone_ms[verdict.uid] for verdict in run.verdicts if verdict.uid in alone_ms]
    if not added:
        raise DeviceError("no verdict came; is this machine busy?")
    p50, p99, p999 = np.percentile(added, (50, 99, 99.9))
    return {
        "parts": len(added),
        "added_p50_ms": float(p50),
        "added_p99_ms": float(p99),
        "added_p999_ms": float(p999),
        "cpu_ms_per_frame": 1e3 * run.cpu_s / len(added),
    }


def _overload(folder: Path, threads: int, rate_hz: float, seconds: float) -> dict[str, Any]:
    """Two cameras are too much until one has shown all that it had; what the other one sees 2 s later is as it always was."""
    from inspector.records import Reason

    path = _config(folder, threads=threads, cameras=2, rate_hz=rate_hz / 2)
    settings = json.loads(path.read_text())
    source = settings["cameras"][1]["source"]
    source |= {"loop": False, "files": source["files"] * max(1, round(rate_hz / 2 * seconds / PICTURES))}
    path.write_text(json.dumps(settings))
    run = _run(path, seconds + 6.0)
    reasons = Counter(Reason(v.reason).name for v in run.verdicts if v.verdict not in ("PASS", "REJECT_DEFECT"))
    ended_s = max((v.at_s for v in run.verdicts if v.lane == 1), default=0.0)
    after = [v for v in run.verdicts if v.at_s > ended_s + 2.0]
    return {
        "parts": len(run.verdicts),
        "not_inspected": run.not_inspected,
        "reasons": ",".join(f"{name}:{number}" for name, number in sorted(reasons.items())),
        "unexplained": run.account["unexplained"],
        "grown_mib": run.grown_mib,
        "after_2s_parts": len(after),
        "after_2s_not_inspected": sum(v.verdict not in ("PASS", "REJECT_DEFECT") for v in after),
    }


def _line_scan(folder: Path, seconds: float) -> dict[str, Any]:
    row_mm, speed = 0.1, 0.1 * LINE_HZ
    own = {"width_px": LINE_PX, "mm_per_px": row_mm, "mm_per_count": row_mm / 4}
    lines = own | {"kind": "simulated_lines", "line_hz": LINE_HZ, "lines_per_block": 64, "speed_mm_s": speed, "defects_per_m": 1}
    source = own | {"kind": "linescan", "lines": lines, "length_mm": 200.0, "overlap_mm": 10.0}
    recipes = {"web": {"checks": {"spots": {"kind": "web", "least_grey": 30, "least_mm2": 0.5, "limit_mm2": 2.0}}}}
    camera = {"id": "web", "recipe": "web", "isolated": True, "source": source, "ring": {"slots": 6}}
    run = _run(_written(folder, recipes, [camera], 1), seconds)
    lengths = len(run.verdicts)
    rows = 200.0 / row_mm
    return {
        "lines_per_s": lengths * rows / run.seconds,
        "ratio": lengths * rows / run.seconds / LINE_HZ,
        "lengths": lengths,
        "not_inspected": run.not_inspected,
        "cpu_share": run.cpu_s / run.seconds,
    }


if __name__ == "__main__":
    _gateway(*sys.argv[1:])
