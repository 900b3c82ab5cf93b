"""The pieces of what vision says: both ways of finding them agree, and nothing that is no JSON gets through."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inspector.gate import protocol, said
from inspector.gate.protocol import Refused
from inspector.gate.said import NOTHING, Said

FINDING = {"check": "outline", "feature": "hole-3e", "value": 0.01, "ok": True, "at_mm": [1.0, -2.5]}
BODIES: list[dict[str, Any]] = [
    {},
    {
        "findings": [FINDING] * 3,
        "defects": [{"class": "scratch"}],
        "camera": {"cam_id": "top"},
        "timing_ms": {"acq": 1.0},
        "pose": {"x_px": 1.5},
    },
    {"findings": None, "defects": None, "camera": None, "timing_ms": {}, "pose": None, "image_ref": None},
    {"recipe": "ab" * 32, "recipe_name": "plate", "recipe_number": 7, "image_ref": "2026/1.png", "part_uid": "x"},
    {"recipe_name": "", "recipe_number": 7},
    {"recipe_name": "plate"},
    {"camera": {"cam_id": "größe"}, "findings": [{"feature": "loch \N{DIAMETER SIGN}"}]},
    {"findings": [{"value": 1e-7}, {"value": 2.5e300}], "timing_ms": {"acq": 1e3}},
]
WRONG = [
    b"", b"[]", b"1", b"null", b"\xff", b"{", b'{"findings":3}', b'{"defects":"x"}', b'{"findings":[NaN]}',
    b'{"timing_ms":{"infer":1e999}}', b'{"findings":[{"value":-2.5E+400}]}', b'{"pose":{"x_px":Infinity}}',
    b'{"camera":{"cam_id":"\xff"}}', b'{"findings":["\xc3"]}', b'{"findings":[{"a":1,}]}', b'{"camera":{"a":tru}}',
    b'{"findings":[' + b"[" * 100_000, b'{"findings":[{"value":' + b"9" * 400 + b'.5}]}', b'{"timing_ms":{"acq":' + b"9" * 5000 + b"}}",
]  # fmt: skip


@pytest.mark.parametrize("read", [said.read, said._portable])
@pytest.mark.parametrize("body", BODIES)
def test_the_pieces_are_what_was_said(body: dict[str, Any], read: Any) -> None:
    found = read(json.dumps(body).encode())
    assert isinstance(found, Said)
    assert json.loads(b"[%b]" % found.findings) == (body.get("findings") or [])
    assert json.loads(b"[%b]" % found.defects) == (body.get("defects") or [])
    for name, text in (("camera", found.camera), ("timing_ms", found.timing_ms), ("pose", found.pose)):
        assert (json.loads(text) if text else {}) == (body.get(name) or {})
    assert found.image_ref == body.get("image_ref")
    assert found.recipe == body.get("recipe", "")
    assert found.named == ((body["recipe_name"], body.get("recipe_number")) if body.get("recipe_name") else None)


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(Refused):
        said.read(text)


def test_what_has_another_shape_than_expected_is_left_out() -> None:
    assert said.read(b'{"camera":[1],"timing_ms":"soon","pose":3,"recipe":5,"image_ref":{}}') == NOTHING
    assert said.read(b'{"timing_ms":{ },"camera":{},"pose":{\n}}') == NOTHING
    assert said.read(b'{"timing_ms":{"acq":1.5,"trigger_to_verdict":2}}').timing_ms == b'{"acq":1.5}'
    assert said.read(b'{"findings":["' + b"7" * 400 + b'"]}').findings == b'"' + b"7" * 400 + b'"'
    assert Said() == NOTHING


def test_the_pieces_are_utf_8() -> None:
    findings = said.read(json.dumps(BODIES[6], ensure_ascii=False).encode()).findings
    assert protocol.decode_json(findings) == BODIES[6]["findings"][0]
