"""A judgement as the archive keeps it, in the shape in which the page shows parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from inspector.desk.state import Defect, Exposure, Measured, Part
from inspector.outputs.archive import Judgement, Stored
from inspector.records import Decision, Verdict

VERDICTS = {Decision.PASS: Verdict.PASS, Decision.FAIL: Verdict.REJECT_DEFECT}


def judged(judgement: Judgement, stored: Stored | None = None) -> Part:
    """A judgement in the shape in which the page shows parts; without `stored` it is of no part of the line."""
    stamp = None if stored is None else stored.stamp
    return Part(
        epoch="",
        seq=0,
        part_seq=0,
        lane=0 if stored is None else stored.lane,
        verdict=VERDICTS.get(judgement.decision, Verdict.REJECT_NOT_INSPECTED).name,
        reason=judgement.reason,
        reason_text=judgement.reason_text,
        at_utc_ns=0 if stored is None else stored.at_utc_ns,
        findings=tuple(_measured(each) for each in judgement.findings),
        defects=tuple(_defect(each["evidence"]) for each in judgement.findings if each["evidence"] is not None),
        exposures=() if stamp is None else (Exposure(stamp.camera, stamp.seq, stamp.complete, None, None),),
        pose=judgement.pose,
        recipe=judgement.recipe,
        recipe_name=judgement.recipe_name,
    )


def _measured(finding: Mapping[str, Any]) -> Measured:
    value, low, high, at_mm = (finding[key] for key in ("value", "low", "high", "at_mm"))
    number = _finite(value)
    ok = number is not None and (low is None or low <= number) and (high is None or number <= high)
    place = None if at_mm is None else (at_mm[0], at_mm[1])
    return Measured(finding["check"], finding["feature"], number, low, high, finding["unit"], ok, place)


def _defect(evidence: Mapping[str, Any]) -> Defect:
    score, threshold, area_mm2 = (_finite(evidence[key]) for key in ("score", "threshold", "area_mm2"))
    return Defect(evidence["class_name"], score, threshold, tuple(evidence["bbox_px"]), area_mm2)


def _finite(value: float | str | None) -> float | None:
    """A number of a record, where what is not finite is a word."""
    return None if value is None or not math.isfinite(float(value)) else float(value)
