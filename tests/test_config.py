"""Settings files: what is right is read, what is wrong is refused with code, file, line, key, value seen and what is allowed.

The rows I01 to I16 of the table of bad inputs, each with its text compared to `golden/config_errors.txt`. To accept new texts run the tests
once with `INSPECTOR_ACCEPT=1` in the environment and read the difference.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspector import config
from inspector.config import Kind, Strict
from inspector.records import ConfigError, ConfigErrors

GOOD = """\
version: 1
site: plant-a
line: line1
station: station1
cameras:
  - {id: top, recipe: plate, source: {kind: replay}}
recipes:
  plate:
    checks:
      outline: {kind: outline}
"""

LINES = "{kind: linescan, lines: {kind: simulated_lines, width_px: 64, mm_per_px: 0.2, mm_per_count: 0.05}, width_px: 64, "
LINES += "mm_per_px: 0.2, mm_per_count: 0.05, length_mm: 100, overlap_mm: 10}"

GOLDEN = Path(__file__).parent / "golden" / "config_errors.txt"


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about the file: the kinds that it names are taken as known."""
    known = {"sources": ("replay", "simulated"), "checks": ("outline", "holes"), "conveyor": ("simulated", "timed"), "bridges": ("mqtt",)}
    monkeypatch.setattr(config, "known_kinds", lambda folder: known[folder])


def refused(tmp_path: Path, text: str | bytes, environment: dict[str, str] | None = None) -> tuple[ConfigError, ...]:
    """The errors that a file with this text gives."""
    path = tmp_path / "line.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigErrors) as raised:
        config.read(path, environment=environment or {})
    return raised.value.errors


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def in_gate(text: str) -> str:
    return f"{GOOD}gate: {text}\n"


def bomb() -> str:
    rows = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    rows += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    return "\n".join(rows)


SECOND_CAMERA = "  - {id: side, lane: 1, recipe: plate, source: {kind: replay}}\n"
WITH_TWO = changed("recipes:\n", SECOND_CAMERA + "recipes:\n")

ROWS: dict[str, Callable[[], str | bytes]] = {
    "I02 empty": lambda: "",
    "I02 only blanks": lambda: "\n \n",
    "I02 only a comment": lambda: "# nothing\n",
    "I03 syntax": lambda: changed("site: plant-a", "site: [plant-a"),
    "I03 tab": lambda: changed("  plate:\n", "\tplate:\n"),
    "I03 two documents": lambda: GOOD + "---\nversion: 1\n",
    "I03 a list as key": lambda: GOOD + "[a, b]: 1\n",
    "I03 not a mapping": lambda: "- version\n",
    "I04 duplicate": lambda: GOOD + "site: plant-b\n",
    "I04 duplicate inside": lambda: in_gate("{lease_ms: 200, scan_ms: 5, lease_ms: 100}"),
    "I05 unknown at the top": lambda: GOOD + "gates: {}\n",
    "I05 unknown in a section": lambda: in_gate("{lease: 200}"),
    "I05 unknown in a list": lambda: changed("id: top,", "id: top, lanes: 1,"),
    "I05 unknown in a mapping": lambda: changed("    checks:\n", "    template: {drawng: a.dxf, drawing: a.dxf}\n    checks:\n"),
    "I05 unknown kind": lambda: changed("kind: replay", "kind: reply"),
    "I05 missing": lambda: changed("site: plant-a\n", ""),
    "I06 no": lambda: changed("plant-a", "no"),
    "I06 sexagesimal": lambda: changed("plant-a", "12:30:00"),
    "I06 underscore": lambda: in_gate("{lease_ms: 1_000}"),
    "I06 octal": lambda: in_gate("{lease_ms: 0o10}"),
    "I06 leading zero": lambda: changed("plant-a", "007"),
    "I06 number for text": lambda: changed("plant-a", "12"),
    "I06 text for truth": lambda: GOOD + "archive: {rejects: 'true'}\n",
    "I06 nothing": lambda: GOOD + "gate:\n",
    "I06 list for mapping": lambda: GOOD + "gate: [1]\n",
    "I07 alias bomb": bomb,
    "I07 depth": lambda: GOOD + "gate: " + "[" * 3000 + "]" * 3000 + "\n",
    "I08 python tag": lambda: changed("plant-a", "!!python/object/apply:os.system ['true']"),
    "I08 harmless tag": lambda: changed("plant-a", "!!str plant-a"),
    "I09 size": lambda: GOOD + "#" * (1 << 20),
    "I09 too many values": lambda: GOOD + "bridges: [" + "1, " * 60_000 + "]\n",
    "I09 wrong throughout": lambda: GOOD + "".join(f"key{i}: 1\n" for i in range(300)),
    "I09 NUL": lambda: changed("plant-a", "plant\0a"),
    "I09 UTF-16": lambda: GOOD.encode("utf-16"),
    "I09 UTF-8": lambda: GOOD.encode().replace(b"plant-a", b"plant-\xe4"),
    "I09 control character": lambda: changed("plant-a", "plant\x07a"),
    "I10 nan": lambda: GOOD + "journal: {keep_days: .nan}\n",
    "I10 infinity": lambda: GOOD + "journal: {keep_days: .inf}\n",
    "I10 too large": lambda: GOOD + "journal: {keep_days: 1e999}\n",
    "I10 minus zero": lambda: GOOD + "journal: {keep_days: -0.0}\n",
    "I10 unit": lambda: in_gate("{lease_ms: 5 ms}"),
    "I10 quoted": lambda: in_gate('{lease_ms: "200"}'),
    "I10 beyond what JSON holds": lambda: in_gate("{window_counts: 99999999999999999999}"),
    "I10 wrong unit": lambda: changed("    checks:\n", "    template: {drawing: a.dxf, mm_per_px: 5 mm}\n    checks:\n"),
    "I10 three for two": lambda: changed("    checks:\n", "    template: {drawing: a.dxf, scale_px_per_mm: [9, 5, 3]}\n    checks:\n"),
    "I10 one for two": lambda: changed("    checks:\n", "    template: {drawing: a.dxf, scale_px_per_mm: [9]}\n    checks:\n"),
    "I05 a key of two lines": lambda: GOOD + '"si\\nte": 1\n',
    "I10 fraction": lambda: in_gate("{lease_ms: 200.5}"),
    "I10 truth": lambda: in_gate("{lease_ms: true}"),
    "I11 above": lambda: changed("    checks:\n", "    template: {drawing: a.dxf, least_score_ratio: 1.5}\n    checks:\n"),
    "I11 below": lambda: changed("    checks:\n", "    template: {drawing: a.dxf, least_score_ratio: -0.5}\n    checks:\n"),
    "I11 low above high": lambda: changed("    checks:\n", "    template: {drawing: a.dxf, scale_px_per_mm: [9, 3]}\n    checks:\n"),
    "I11 choice": lambda: in_gate("{profile: permitt}"),
    "I11 none": lambda: changed("{kind: outline}", "{kind: outline}\n  gear: {checks: {}}"),
    "I12 lease": lambda: in_gate("{lease_ms: 900, travel_min_ms: 600}"),
    "I12 no lease at all": lambda: in_gate("{travel_min_ms: 45}"),
    "I13 heartbeat": lambda: in_gate("{hb_ms: 150}"),
    "I13 no time left beside the disk": lambda: in_gate("{durable_pass_ms: 510}"),
    "I13 rejects wait for no disk": lambda: in_gate("{travel_min_ms: 900, profile: fire, durable_pass_ms: 50}"),
    "I14 same camera": lambda: WITH_TWO.replace("id: side", "id: top"),
    "I14 same serial": lambda: WITH_TWO.replace("kind: replay", "kind: replay, serial: '42'"),
    "I14 same lane": lambda: WITH_TWO.replace("lane: 1", "lane: 0"),
    "I14 unknown recipe": lambda: changed("recipe: plate", "recipe: plat"),
    "I15 space": lambda: changed("plant-a", "plant a"),
    "I15 slash": lambda: changed("plant-a", "plant/a"),
    "I15 upper case": lambda: changed("plant-a", "Plant-a"),
    "I15 empty": lambda: changed("plant-a", "''"),
    "I15 33 characters": lambda: changed("plant-a", "a" * 33),
    "I15 a recipe's name": lambda: changed("  plate:", "  Plate No 1:"),
    "I16 below 1024": lambda: in_gate("{bind: 'tcp://127.0.0.1:80'}"),
    "I16 above 65535": lambda: in_gate("{bind: 'tcp://127.0.0.1:70000'}"),
    "I16 no port": lambda: in_gate("{bind: 'tcp://127.0.0.1'}"),
    "I16 same port twice": lambda: GOOD + "events: {bind: 'tcp://127.0.0.1:7000'}\nmetrics: {gate_bind: '127.0.0.1:7000'}\n",
    "I16 a default's port": lambda: in_gate("{bind: 'tcp://127.0.0.1:5561'}"),
    "travel in two ways": lambda: in_gate("{travel_counts: 600, travel_mm: 60, counts_per_mm: 10}"),
    "travel without a resolution": lambda: in_gate("{travel_mm: 60}"),
    "a guard that nothing reaches": lambda: GOOD + "guards: {reject_ratio: 1.0, rejects_in_row: -1}\n",
    "I47 no credentials": lambda: GOOD + "security: {server_key: '${CREDENTIALS_DIRECTORY}/server.key', clients: clients}\n",
    "I17 all interfaces": lambda: in_gate("{bind: 'tcp://0.0.0.0:5562'}"),
    "I17 star": lambda: GOOD + "events: {bind: 'tcp://*:5561'}\n",
    "I17 page": lambda: GOOD + "desk: {bind: '192.168.1.5:8080'}\n",
    "everything at once": lambda: (
        changed("site: plant-a", "site: Plant A\nsites: x").replace("recipe: plate", "recipe: plat")
        + "gate: {lease_ms: 900, hb_ms: 400, colour: red}\njournal: {keep_days: .inf}\ndesk: {bind: '0.0.0.0:80'}\n"
    ),
}


def test_the_good_one_is_good(tmp_path: Path) -> None:
    path = tmp_path / "line.yaml"
    path.write_text(GOOD)
    found = config.read(path, environment={})
    assert (found.site, found.cameras[0].source.kind, found.gate.lease_ms) == ("plant-a", "replay", 300)
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert config.read(path, environment={}).model_dump() == found.model_dump()


def test_texts_of_the_errors_are_the_golden_ones(tmp_path: Path) -> None:
    said = []
    for row, text in ROWS.items():
        errors = refused(tmp_path, text())
        told = errors if len(errors) < 20 else (errors[0], errors[-1])
        said += [f"# {row}", *(str(e).replace(str(tmp_path), "configs") for e in told), ""]
    for row, place in {"I01 missing": tmp_path / "none.yaml", "I01 folder": tmp_path, "I01 device": Path(os.devnull)}.items():
        with pytest.raises(ConfigErrors) as raised:
            config.read(place, environment={})
        said_of_it = str(raised.value).replace(str(tmp_path), "configs").replace(f"user {os.geteuid()}", "user UID")
        said += [f"# {row}", said_of_it, ""]
    found = "\n".join(said)
    if os.environ.get("INSPECTOR_ACCEPT"):
        GOLDEN.write_text(found)
    assert found == GOLDEN.read_text()


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("I02 empty", "E_CFG_EMPTY"),
        ("I03 tab", "E_CFG_SYNTAX"),
        ("I04 duplicate", "E_CFG_DUP"),
        ("I05 unknown in a section", "E_CFG_UNKNOWN"),
        ("I06 no", "E_CFG_TYPE"),
        ("I07 alias bomb", "E_CFG_ALIAS"),
        ("I07 depth", "E_CFG_DEPTH"),
        ("I08 python tag", "E_CFG_TAG"),
        ("I09 size", "E_CFG_SIZE"),
        ("I09 UTF-16", "E_CFG_ENCODING"),
        ("I10 unit", "E_CFG_NUMBER"),
        ("I11 above", "E_CFG_RANGE"),
        ("I12 lease", "E_TIMING"),
        ("I13 heartbeat", "E_TIMING"),
        ("I14 same serial", "E_CFG_CLASH"),
        ("I15 slash", "E_CFG_NAME"),
        ("I16 same port twice", "E_BIND"),
        ("I17 all interfaces", "E_SEC_BIND"),
    ],
)
def test_each_row_of_the_table_has_its_code_and_no_other(tmp_path: Path, row: str, code: str) -> None:
    assert {e.code for e in refused(tmp_path, ROWS[row]())} == {code}


def test_all_errors_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    errors = refused(tmp_path, ROWS["everything at once"]())
    lines = [e.line or 0 for e in errors]
    assert lines == sorted(lines)
    assert len(errors) >= 8


def test_a_file_that_cannot_be_read_says_what_the_system_said(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path = tmp_path / "line.yaml"
    path.write_text(GOOD)
    path.chmod(0)
    with pytest.raises(ConfigErrors, match=r"E_CFG_OPEN .*Permission denied"):
        config.read(path)


def test_paths_begin_at_the_folder_of_the_file_and_take_variables(tmp_path: Path) -> None:
    path = tmp_path / "configs" / "line.yaml"
    path.parent.mkdir()
    drawing = "{drawing: '${PARTS:-../drawings}/plate.dxf', calibration: /abs/c.yaml}"
    path.write_text(changed("    checks:\n", f"    template: {drawing}\n    checks:\n") + "state_dir: ${STATE}/s\n")
    found = config.read(path, environment={"STATE": "/var/lib/x"})
    template = found.recipes["plate"].template
    assert template is not None
    assert template.drawing == tmp_path / "drawings" / "plate.dxf"
    assert template.calibration == Path("/abs/c.yaml")
    assert found.state_dir == Path("/var/lib/x/s")
    with pytest.raises(ConfigErrors, match=r"E_ENV .*:12: state_dir: .*STATE is not set"):
        config.read(path, environment={})
    path.write_text(GOOD)
    assert config.read(path, environment={}).state_dir == path.parent / "state"


def test_the_environment_overrides_and_its_errors_name_the_variable(tmp_path: Path) -> None:
    path = tmp_path / "line.yaml"
    path.write_text(GOOD)
    found = config.read(path, environment={"INSPECTOR__GATE__LEASE_MS": "150", "INSPECTOR__GATE__HB_MS": "50", "INSPECTOR__SITE": "b"})
    assert (found.gate.lease_ms, found.gate.hb_ms, found.site) == (150, 50, "b")
    wrong = {"INSPECTOR__GATE__LEASE_MS": "soon", "INSPECTOR__GATE__COLOUR": "red", "INSPECTOR__CAMERAS__X": "1", "INSPECTOR__LINE": "no"}
    errors = refused(tmp_path, GOOD, wrong)
    assert {e.key: e.code for e in errors} == dict.fromkeys(wrong, "E_ENV")
    assert not any(e.file for e in errors)


class Exposure(Strict):
    exposure_us: float
    size_px: tuple[int, int] = (640, 480)
    folder: Path | None = None


def test_the_settings_of_a_kind_are_checked_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "line.yaml"
    path.write_text(changed("kind: replay}", "kind: replay,\n    exposre_us: 5 ms,\n    size_px: [1, 2, 3]}"))
    kind = config.read(path, environment={}).cameras[0].source
    with pytest.raises(ConfigErrors) as raised:
        config.settings_of("sources", kind, Exposure)
    said = str(raised.value).splitlines()
    assert len(said) == 3
    assert said[0].startswith(f"E_CFG_MISSING {path}:6: cameras[0].source.exposure_us: ")
    assert said[1].startswith(f"E_CFG_RANGE {path}:8: cameras[0].source.size_px: ")
    assert said[2].startswith(f"E_CFG_UNKNOWN {path}:7: cameras[0].source.exposre_us: ")
    assert "did you mean exposure_us?" in said[2]
    path.write_text(changed("kind: replay}", "kind: replay, exposure_us: 5, size_px: [1, 2], folder: pictures}"))
    found = config.settings_of("sources", config.read(path, environment={}).cameras[0].source, Exposure)
    assert found == Exposure(exposure_us=5, size_px=(1, 2), folder=tmp_path / "pictures")


def test_a_kind_that_the_file_leaves_to_the_default_has_settings_too(tmp_path: Path) -> None:
    path = tmp_path / "line.yaml"
    path.write_text(GOOD)
    assert config.settings_of("conveyor", config.read(path, environment={}).conveyor, Strict) == Strict()


def test_a_kind_made_in_python_has_settings_too() -> None:
    assert config.settings_of("sources", Kind.model_validate({"kind": "x", "exposure_us": 4.5}), Exposure).exposure_us == 4.5
    with pytest.raises(ConfigErrors, match=r"^E_CFG_NUMBER: sources.exposure_us"):
        config.settings_of("sources", Kind.model_validate({"kind": "x", "exposure_us": "y"}), Exposure)


@given(
    travel=st.integers(1, 5000),
    actuator=st.integers(0, 500),
    scan=st.integers(0, 500),
    lease=st.integers(1, 5000),
    heartbeat=st.integers(1, 2000),
)
def test_timing_faults_are_the_invariants(travel: int, actuator: int, scan: int, lease: int, heartbeat: int) -> None:
    found = dict(config.timing_faults(travel_min_ms=travel, actuator_ms=actuator, scan_ms=scan, lease_ms=lease, hb_ms=heartbeat))
    assert ("lease_ms" in found) == (lease + scan + actuator > travel)
    assert ("hb_ms" in found) == (3 * heartbeat > lease)
    assert ("travel_min_ms" in found) == (travel - actuator - scan - 40 <= 0)
    if "largest legal" in found.get("lease_ms", ""):
        legal = int(found["lease_ms"].rsplit(" ", 1)[1])
        again = dict(config.timing_faults(travel_min_ms=travel, actuator_ms=actuator, scan_ms=scan, lease_ms=legal, hb_ms=1))
        assert "lease_ms" not in again


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(str.encode),
        st.tuples(st.integers(0, len(GOOD)), st.text(alphabet=":{}[]-,&*!|>'\"%@`#? \n\tx0", max_size=6)).map(
            lambda cut: (GOOD[: cut[0]] + cut[1] + GOOD[cut[0] :]).encode(errors="surrogatepass")
        ),
    )
)
def test_no_bytes_make_anything_but_settings_or_a_refusal(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "line.yaml"
    path.write_bytes(data)
    with contextlib.suppress(ConfigErrors):
        config.read(path, environment={})


def test_reading_settings_loads_no_numpy() -> None:
    heavy = "numpy cv2 onnxruntime torch ezdxf"
    code = f"import sys, inspector.config; print([m for m in {heavy.split()!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_that_we_ship_are_good(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    config.read(path, kinds=True)


@pytest.mark.parametrize(
    ("gate", "refused"), [("{}", True), ("{count: frames}", True), ("{count: plc}", False), ("{profile: fire}", False)]
)
def test_a_camera_that_does_not_number_its_exposures_cannot_count_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str, refused: bool
) -> None:
    monkeypatch.undo()
    path = tmp_path / "line.yaml"
    path.write_text(changed("source: {kind: replay}", "source: {kind: opencv, device: 0}") + f"gate: {gate}\n")
    if refused:
        with pytest.raises(
            ConfigErrors, match=r"E_CFG_COUNT .*line.yaml:6: cameras\[0\].source.kind: opencv .* gate.count: conveyor or plc"
        ):
            config.read(path, kinds=True)
    else:
        config.read(path, kinds=True)


@pytest.mark.parametrize(("kind", "refused"), [("timed", True), ("encoder", True), ("simulated", False)])
def test_a_belt_without_part_sensor_cannot_count_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, refused: bool) -> None:
    monkeypatch.undo()
    path = tmp_path / "line.yaml"
    text = changed("source: {kind: replay}", "source: {kind: opencv, device: 0}")
    path.write_text(f"{text}conveyor: {{kind: {kind}}}\ngate: {{count: conveyor}}\n")
    if refused:
        with pytest.raises(ConfigErrors, match=rf"E_CFG_COUNT .*line.yaml:12: gate.count: {kind} has no part sensor; allowed: gate.count"):
            config.read(path, kinds=True)
    else:
        config.read(path, kinds=True)


@pytest.mark.parametrize(
    ("source", "check", "refused"),
    [("{kind: opencv, device: 0}", "", True), ("{kind: opencv, device: 0}", ", mm_per_px: 0.1", False), (LINES, "", False)],
)
def test_a_check_of_a_web_needs_a_camera_that_gives_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, check: str, refused: bool
) -> None:
    monkeypatch.undo()
    path = tmp_path / "line.yaml"
    text = changed("source: {kind: replay}", f"source: {source}")
    path.write_text(text.replace("outline: {kind: outline}", f"spots: {{kind: web{check}}}") + "gate: {count: plc}\n")
    if refused:
        said = r"E_CFG_WEB .*line.yaml:\d+: recipes.plate.checks.spots.kind: web, but camera .* \(opencv\) is no line-scan camera; "
        with pytest.raises(ConfigErrors, match=said):
            config.read(path, kinds=True)
    else:
        config.read(path, kinds=True)


def test_what_a_plug_in_fails_with_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = "from inspector.config import Strict\nclass Settings(Strict): pass\ndef build(settings, name): return {}['cable']\n"
    (tmp_path / "theirs_built.py").write_text(theirs)
    (tmp_path / "theirs_loaded.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(config, "known_kinds", lambda _: ("built", "loaded"))
    monkeypatch.setattr(config, "_place_of", lambda _, kind: f"theirs_{kind}")
    with pytest.raises(ConfigError, match=r"E_CFG_KIND.*the plug-in theirs_built failed while it was built: KeyError: 'cable'"):
        config.build("bridges", Kind.model_validate({"kind": "built"}), "line")
    with pytest.raises(ConfigError, match=r"E_CFG_KIND.*the plug-in theirs_loaded failed while it was loaded: ZeroDivisionError"):
        config.plugin("bridges", "loaded")


def test_our_own_bug_stays_ours() -> None:
    broken = ModuleType("inspector.checks.broken")
    with pytest.raises(AttributeError):
        config.built(broken, None)


def test_the_example_shows_every_key() -> None:
    example = next(path for path in CONFIGS if path.name == "line.example.yaml").read_text()
    sections: list[type[Strict]] = [config.Config, config.Gate, config.Guards, config.Events, config.Metrics, config.Admin]
    sections += [config.Journal, config.Archive, config.Desk, config.Vision, config.Camera, config.Ring, config.RecipeSettings]
    sections += [config.PartTemplate]
    missing = {key for section in sections for key in section.model_fields if f"{key}:" not in example}
    assert not missing
