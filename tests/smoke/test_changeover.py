"""Changeover of a running line, with real processes: no part is lost, each is judged by one recipe, and what fails never takes over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspector.client import Gateway, Terms
from inspector.gate.gateway import Told
from inspector.outputs import archive
from inspector.records import ConfigError, Decision, Stamp
from inspector.runtime.admin import NAME, ask
from tests.smoke.conftest import line
from tests.smoke.test_daemon import Running, balanced, daemon, until

pytestmark = pytest.mark.real

TRAVEL_MS = 20_000
PLATE, GEAR = {"bright": {"kind": "bright"}}, {"glow": {"kind": "bright", "high": 110.0}}


def two_recipes(folder: Path, rate: float = 20.0, **changes: Any) -> Path:
    """A line with a recipe that passes levels 100 and 120 (number 1) and one that passes 100 only (number 2).

    Its belt is long and its ring has room: what is lost here is not lost to a machine that is busy.
    """
    recipes = {"plate": {"number": 1, "checks": PLATE}, "gear": {"number": 2, "checks": GEAR}, **changes.pop("recipes", {})}
    conveyor = {"kind": "simulated", "rate_parts_per_s": rate, "lanes": [0], "counts_per_s": 1000.0, "seed": 1}
    gate = {
        "bind": "tcp://127.0.0.1:0",
        "count": "conveyor",
        "window_counts": min(50, round(400 / rate)),
        "travel_min_ms": TRAVEL_MS,
        **changes.pop("gate", {}),
    }
    source = {"kind": "painted", "levels": [100, 120, 200]}
    cameras = [{"id": "top", "recipe": "plate", "source": source, "ring": {"slots": 512}}]
    return line(folder, conveyor=conveyor, gate=gate, recipes=recipes, cameras=cameras, archive={"keep_mib": 64}, **changes)


class Plc:
    """A PLC that asks for recipes and remembers what it is told; it acknowledges verdicts all the while."""

    def __init__(self, endpoint: str) -> None:
        self.told: list[dict[str, Any]] = []
        self.wanted: list[tuple[str | int, str]] = []
        self.welcome: dict[str, Any] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(endpoint,))
        self._thread.start()

    def _run(self, endpoint: str) -> None:
        with Gateway(endpoint, Terms(client="plc-1", station="cell1", travel_min_ms=TRAVEL_MS, recipes=True)) as gateway:
            while not self._stop.is_set():
                for each in gateway.poll(5):
                    if isinstance(each, Told) and each.name == "RECIPE":
                        self.told.append(dict(each.body))
                    elif isinstance(each, Told) and each.name == "WELCOME":
                        self.welcome = dict(each.body)
                while self.wanted and gateway.connected:
                    recipe, request = self.wanted.pop(0)
                    gateway.select(recipe, request=request)

    def select(self, recipe: str | int, request: str) -> dict[str, Any]:
        """What became of it; asked again every few seconds, as a PLC does whose session may have ended meanwhile."""
        asked_s = 0.0

        def answer() -> dict[str, Any] | None:
            nonlocal asked_s
            if time.monotonic() - asked_s > 5.0:
                asked_s = time.monotonic()
                self.wanted.append((recipe, request))
            return next((told for told in self.told if told["id"] == request and told["state"] in ("in_force", "refused")), None)

        found: dict[str, Any] = until(answer, 100)
        return found

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def events(running: Running) -> list[dict[str, Any]]:
    """The verdicts of a daemon that was run with --json."""
    return [json.loads(text) for text in running.out_path.read_text().splitlines()][:-1]


def lost(verdicts: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """(part, reason) of those that nobody judged, from the first part that was judged (the camera begins a little later than the belt) to
    the last (the line stops in the middle of the belt)."""
    parts = sorted(verdicts, key=lambda verdict: int(verdict["part_seq"]))  # verdicts come as they are ready
    judged = [n for n, verdict in enumerate(parts) if verdict["reason"] in (0, 101)]
    return [(v["part_seq"], v["reason"]) for v in parts[judged[0] : judged[-1]] if v["reason"] not in (0, 101)]


def switched(tmp_path: Path, environment: dict[str, str], times: int, rate: float) -> tuple[dict[str, int], list[dict[str, Any]], float]:
    """(account, verdicts, seconds) of a line that changed over so many times while parts came at this rate."""
    with daemon(two_recipes(tmp_path, rate), environment, "--json") as running:
        ready = running.ready()
        plc = Plc(ready["endpoints"]["gate"])
        try:
            until(lambda: running.metric("vision", "inspector_inspections_total") > 3)
            until(lambda: plc.welcome)
            assert plc.welcome["recipes"] == {"0": {"name": "plate", "number": 1}}
            began_s = time.monotonic()
            for n in range(times):
                number = 2 - n % 2
                told = plc.select(number if n % 3 else ("plate", "gear")[number - 1], str(n))
                assert told["state"] == "in_force", told
                assert told["recipes"]["0"]["number"] == number
            spent_s = time.monotonic() - began_s
            until(lambda: running.metric("vision", "inspector_changeovers_total") == times)
        finally:
            plc.close()
        assert running.end() == 0
        assert "Traceback" not in running.said()
        return json.loads(running.out_path.read_text().splitlines()[-1]), events(running), spent_s


def each_is_judged_by_one_recipe(verdicts: list[dict[str, Any]]) -> None:
    """What an event says of its recipe is what its findings were judged by."""
    digests: dict[str, set[str]] = {}
    for verdict in verdicts:
        if verdict["verdict"] == "REJECT_NOT_INSPECTED":
            continue
        name = verdict["recipe"]["name"]
        assert {f["check"] for f in verdict["findings"]} == {"bright" if name == "plate" else "glow"}
        assert verdict["recipe"]["number"] == (1 if name == "plate" else 2)
        high = 150 if name == "plate" else 110
        assert (verdict["verdict"] == "PASS") == all(f["value"] <= high for f in verdict["findings"])
        digests.setdefault(name, set()).add(verdict["config_sha256"])
    assert {name: len(found) for name, found in digests.items()} == {"plate": 1, "gear": 1}


def test_twenty_changeovers_lose_no_part(tmp_path: Path, environment: dict[str, str]) -> None:
    account, verdicts, _ = switched(tmp_path, environment, 20, 20.0)
    assert balanced(account)
    assert lost(verdicts) == []
    each_is_judged_by_one_recipe(verdicts)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_changeovers_at_full_load_lose_no_part(tmp_path: Path, environment: dict[str, str]) -> None:
    account, verdicts, spent_s = switched(tmp_path, environment, 1000, 200.0)
    print(f"1000 changeovers in {spent_s:.0f} s; {account}")
    assert balanced(account)
    assert lost(verdicts) == []
    each_is_judged_by_one_recipe(verdicts)


def picture(folder: Path, level: int, decision: str, *, seq: int) -> None:
    """A stored picture of camera top, all of one level, with a record that says how it was judged."""
    at_utc_ns = 1_795_224_268_000_000_000 + seq
    reference = f"20261121-{at_utc_ns:016x}-{'p' if decision == 'pass' else 'r'}-top-{seq}"
    stamp = Stamp("top", seq, 1, 1, (64, 64))
    judged = archive.Judgement("r", "p", "plate", 1, Decision(decision), 0 if decision == "pass" else 101, None, "", (), None)
    folder.mkdir(exist_ok=True)
    (folder / f"{reference}.json").write_bytes(archive.encode(archive.Stored(at_utc_ns, 0, "0", stamp, True, judged, None)))
    cv2.imwrite(str(folder / f"{reference}.png"), np.full((64, 64), level, np.uint8))


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(ConfigError) as raised:
        call()
    return str(raised.value)


def test_what_fails_never_takes_over(tmp_path: Path, environment: dict[str, str]) -> None:
    """Unknown, not to be built, failing or crashing in its proof: the present recipe stays, and no part is lost."""
    picture(tmp_path / "proof", 120, "pass", seq=1)
    picture(tmp_path / "proof", 200, "fail", seq=2)
    (tmp_path / "bad").mkdir()
    cv2.imwrite(str(tmp_path / "bad" / "dent.png"), np.full((64, 64), 140, np.uint8))
    proof, kind = {"proof": "proof"}, "bright"
    recipes = {
        "proved": {"number": 3, **proof, "challenge": "bad", "checks": {"bright": {"kind": kind, "high": 130.0}}},
        "tight": {"number": 4, **proof, "checks": {"bright": {"kind": kind, "high": 110.0}}},
        "lax": {"number": 5, "challenge": "bad", "checks": {"bright": {"kind": kind, "high": 255.0}}},
        "crashes": {"number": 6, **proof, "checks": {"bright": {"kind": kind, "crash_on": 120}}},
        "unbuilt": {"number": 8, "checks": {"net": {"kind": "classify", "model": "no.onnx", "accept": ["good"]}}},
    }
    path = two_recipes(tmp_path, recipes=recipes)
    with daemon(path, environment, "--json") as running:
        running.ready()
        door = tmp_path / "state" / NAME

        def switch(recipe: str | int) -> dict[str, Any]:
            return ask(door, "recipe", timeout_s=60, do="switch", recipe=recipe)

        until(lambda: running.metric("vision", "inspector_inspections_total") > 3)
        assert "there is no recipe grea; did you mean gear?" in refusal(lambda: switch("grea"))
        assert "E_PROOF" in (said := refusal(lambda: switch(4)))
        assert "was judged pass and is now fail" in said
        assert "dent.png shows a bad part and is judged pass" in refusal(lambda: switch(5))
        assert "its process ended with -6" in refusal(lambda: switch("crashes"))
        assert "no.onnx" in refusal(lambda: switch("unbuilt"))
        status = ask(door, "recipe", timeout_s=10, do="status")
        assert status["cameras"] == {"top": {"name": "plate", "number": 1}}
        proved = switch("proved")
        assert proved["cameras"] == {"top": {"name": "proved", "number": 3}}
        assert ask(door, "status", timeout_s=10)["recipe"] == proved["recipe"] != status["recipe"]
        # who begins again begins with what was selected
        first = running.ready()
        os.kill(first["vision_pid"], signal.SIGKILL)
        until(lambda: running.ready()["vision_pid"] != first["vision_pid"])
        until(lambda: running.metric("vision", "inspector_inspections_total") > 3)
        assert ask(door, "recipe", timeout_s=10, do="status")["recipe"] == proved["recipe"]
        # an edited file leaves the selection alone
        path.write_text(path.read_text().replace("high: 130.0", "high: 131.0"))
        os.kill(running.process.pid, signal.SIGHUP)
        until(lambda: ask(door, "recipe", timeout_s=10, do="status")["recipe"] != proved["recipe"])
        assert ask(door, "recipe", timeout_s=10, do="status")["cameras"]["top"]["name"] == "proved"
        assert running.end() == 0
        account = json.loads(running.out_path.read_text().splitlines()[-1])
    assert balanced(account)
    assert "Traceback" not in running.said()
    told = Counter(v["recipe"]["name"] for v in events(running) if v["recipe"])
    assert set(told) == {"plate", "proved"}


def test_a_candidate_that_hangs_is_given_up(tmp_path: Path, environment: dict[str, str]) -> None:
    picture(tmp_path / "proof", 120, "pass", seq=1)
    recipes = {"hangs": {"proof": "proof", "checks": {"bright": {"kind": "bright", "hang_on": 120}}}}
    with daemon(two_recipes(tmp_path, recipes=recipes, changeover={"prepare_s": 6.0}), environment, "--quiet") as running:
        running.ready()
        judged = running.metric("vision", "inspector_inspections_total")
        door = tmp_path / "state" / NAME
        assert "no answer within 6 s" in refusal(lambda: ask(door, "recipe", timeout_s=60, do="switch", recipe="hangs"))
        until(lambda: running.metric("vision", "inspector_inspections_total") > judged + 50)
        assert running.end() == 0
        assert balanced(running.account())


def test_a_recipe_that_rejects_too_much_goes_back_alone(tmp_path: Path, environment: dict[str, str]) -> None:
    recipes = {"dark": {"number": 9, "checks": {"bright": {"kind": "bright", "high": 10.0}}}}
    path = two_recipes(tmp_path, recipes=recipes, changeover={"watch_pictures": 6, "most_rejects": 4})
    with daemon(path, environment, "--json") as running:
        plc = Plc(running.ready()["endpoints"]["gate"])
        try:
            until(lambda: plc.welcome and running.metric("vision", "inspector_inspections_total") > 3)
            assert plc.select(2, "good")["state"] == "in_force"  # rejects two of three: not too many
            assert plc.select("dark", "dark")["state"] == "in_force"
            back = until(lambda: next((told for told in plc.told if told["state"] == "rolled_back"), None))
        finally:
            plc.close()
        assert back["recipes"]["0"] == {"name": "gear", "number": 2}
        assert "of the first pictures were rejected; at most 4 may be" in back["text"]
        assert running.metric("vision", 'inspector_changeovers_total{outcome="rolled_back"}') == 1
        judged = running.metric("vision", "inspector_inspections_total")
        until(lambda: running.metric("vision", "inspector_inspections_total") > judged + 6)
        assert running.end() == 0
        account = json.loads(running.out_path.read_text().splitlines()[-1])
    assert balanced(account)
    names = [v["recipe"]["name"] for v in events(running) if v["recipe"]]
    order = [name for n, name in enumerate(names) if n == 0 or names[n - 1] != name]
    assert order == ["plate", "gear", "dark", "gear"]


def say(path: Path, environment: dict[str, str], *words: str) -> str:
    """What `inspector recipe` says."""
    command = [sys.executable, "-m", "inspector", "recipe", words[0], str(path), *words[1:]]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_shadow_is_counted_and_stored_and_never_counts(tmp_path: Path, environment: dict[str, str]) -> None:
    path = two_recipes(tmp_path)
    with daemon(path, environment, "--json") as running:
        running.ready()
        door = tmp_path / "state" / NAME
        until(lambda: running.metric("vision", "inspector_inspections_total") > 3)
        assert json.loads(say(path, environment, "shadow", "gear", "--json"))["shadow"]["cameras"] == {"top": "gear"}
        until(lambda: running.metric("vision", 'inspector_shadow_pictures{outcome="pass_fail"}') >= 3)
        status = until(lambda: (found := ask(door, "recipe", timeout_s=10, do="status"))["shadow"]["counts"].get("pass_fail") and found)
        assert set(status["shadow"]["counts"]) <= {"same", "pass_fail", "skipped"}
        assert "in shadow: gear; " in say(path, environment, "status")
        assert "in shadow" not in say(path, environment, "shadow", "--end")
        assert "top: gear (2)" in say(path, environment, "switch", "2", "--lane", "0")
        kept = until(lambda: sorted((tmp_path / "state" / "pictures").glob("*/*-s-top-*.png")))
        assert running.end() == 0
        assert "Traceback" not in running.said()
    shadowed = [v for v in events(running) if v["recipe"] and v["recipe"]["name"] == "plate"]
    assert all((v["verdict"] == "PASS") == (v["findings"][0]["value"] <= 150) for v in shadowed), "only the present one counts"
    for each in kept:
        record = archive.read(each)
        assert record.shadow is not None
        assert (record.judgement.recipe_name, record.judgement.decision.value) == ("plate", "pass")
        assert (record.shadow.recipe_name, record.shadow.decision.value, record.shadow.reason_class) == ("gear", "fail", "glow")
        assert record.shadow.findings[0]["value"] == 120.0
