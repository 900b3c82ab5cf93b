"""GenTL through the producer that comes with GenICam's own package: three small cameras that show a ball game."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector.commands import _producer
from inspector.conveyor.timed import Timed
from inspector.records import DeviceError, Stamp
from inspector.sources import gentl
from inspector.sources.gentl import GenTlCamera, Settings

pytestmark = [pytest.mark.real, pytest.mark.skipif(find_spec("harvesters") is None, reason="pip install 'inspector[gentl]'")]


@pytest.fixture(scope="module")
def producer() -> Path:
    spec = find_spec("genicam")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "viky.cti"


def opened(producer: Path, **given: Any) -> GenTlCamera:
    return gentl.build(Settings.model_validate({"producer": producer, **given}), "cam", time.monotonic_ns, Timed(1000.0))


def pictures(source: GenTlCamera, count: int) -> list[tuple[Stamp, bytes]]:
    into = np.zeros(source.max_bytes, np.uint8)
    found: list[tuple[Stamp, bytes]] = []
    until_s = time.monotonic() + 20
    while len(found) < count and time.monotonic() < until_s:
        stamp = source.read(into, 0.2)
        if stamp is not None:
            found.append((stamp, into[: int(np.prod(stamp.shape))].tobytes()))
    return found


@pytest.mark.parametrize(
    ("pixel_format", "colour", "shape"),
    [("Mono8", False, (200, 300)), ("RGBa8", True, (200, 300, 3)), ("RGBa8", False, (200, 300))],
)
def test_pictures_come_numbered_in_what_was_asked_for(producer: Path, pixel_format: str, colour: bool, shape: tuple[int, ...]) -> None:
    asked = {"Width": 300, "Height": 200, "PixelFormat": pixel_format, "AcquisitionFrameRate": 50.0}
    source = opened(producer, device="VikyTL_DEV_green", colour=colour, features=asked)
    found = pictures(source, 6)
    source.close()
    source.close()
    assert [stamp.seq for stamp, _ in found] == sorted({stamp.seq for stamp, _ in found})
    assert {stamp.shape for stamp, _ in found} == {shape}
    assert len({picture for _, picture in found}) > 1, "the ball moves"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"features": {"Width": 7}}, "refuses Width: 7: Value = 7 must be equal or greater than Min = 100"),
        ({"features": {"PixelFormt": "Mono8"}}, r"has no feature PixelFormt; did you mean PixelFormat\?"),
        ({"features": {"PixelFormat": "Mono12"}}, "refuses PixelFormat: Mono12"),
        ({"features": {"AcquisitionFrameRate": 20.0, "AcquisitionMode": "SingleFrame"}}, "refuses AcquisitionMode: SingleFrame"),
        ({"serial": "4711"}, "no such camera at viky.cti; there is 0, 1, 2"),
    ],
)
def test_a_camera_that_does_not_obey_is_down(producer: Path, given: dict[str, Any], text: str) -> None:
    with pytest.raises(DeviceError, match=text):
        opened(producer, **given)


def test_what_is_no_producer_is_said(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no such GenTL producer"):
        opened(tmp_path / "none.cti")
    (tmp_path / "text.cti").write_text("no library")
    with pytest.raises(DeviceError, match=r"text.cti: cannot be loaded: it is no GenTL producer"):
        opened(tmp_path / "text.cti")
    library = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libm" in line)
    crashing = tmp_path / "crashing.cti"
    crashing.write_bytes(Path(library).read_bytes() + b"GCInitLib\0")
    with pytest.raises(DeviceError, match=r"crashing.cti: cannot be loaded"):
        _producer.devices(crashing)


def test_a_second_camera_of_a_producer_wants_a_process_of_its_own(producer: Path) -> None:
    first = opened(producer)
    with pytest.raises(DeviceError, match="isolated: true"):
        opened(producer)
    code = f"from tests.sources.test_gentl import *; s = opened(Path({str(producer)!r}), serial='2'); print(len(pictures(s, 2)))"
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert second.stdout == "2\n", second.stderr
    assert len(pictures(first, 2)) == 2
    first.close()


def test_cameras_and_features_are_listed(producer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENICAM_GENTL64_PATH", str(producer.parent))
    found = [device for path in gentl.producers() for device in _producer.devices(path)]
    assert [each.serial for each in found] == ["0", "1", "2"]
    assert found[0].select == {"producer": str(producer), "serial": "0"}
    shown = {each.name: each for each in gentl.features(Settings(producer=producer))}
    assert shown["PixelFormat"].values == ("RGBa8", "Mono8")
    assert (shown["AcquisitionFrameRate"].low, shown["AcquisitionFrameRate"].high, shown["AcquisitionFrameRate"].unit) == (1.0, 200.0, "Hz")
