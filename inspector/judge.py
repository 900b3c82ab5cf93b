"""The heart, pure: frames and a recipe in, one inspection for each frame out; `decide` is the rule.

What goes wrong with one frame never touches another: a check that fails on a batch is asked again frame by frame, and a frame that it
still fails on is UNJUDGED, which the gate makes a reject.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from inspector.geometry import calibrate, polygon, raster
from inspector.interfaces import Clock
from inspector.records import (
    FIRST_CLASS_REASON,
    LAST_CLASS_REASON,
    Check,
    Decision,
    Finding,
    Frame,
    Image,
    Inspection,
    Plan,
    Pose,
    Reason,
    Recipe,
    Template,
    View,
    Web,
)

LOCATE = "locate"
LONGEST_TEXT_BYTES = 200
BORDER_PX = 1.0
OUTLINE_STEP_PX = 4.0
_PASS, _FAIL = Decision.PASS, Decision.FAIL
"""Names of their own: looking a member up in its class takes as long as a call."""


class _Case:
    """One frame on its way: what has been found so far, and why it cannot be judged, if so."""

    __slots__ = ("findings", "frame", "pose", "spent_ns", "trouble", "view")

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.findings: list[Finding] = []
        self.pose: Pose | None = None
        self.view: View | None = None
        self.trouble: tuple[Reason, str] | None = None
        self.spent_ns: dict[str, int] = {}


def judge(frames: Sequence[Frame], recipe: Recipe, now_ns: Clock) -> list[Inspection]:
    """One inspection for each frame, in order. Frames of one camera are judged as a batch; `now_ns` only times the stages."""
    cases = [_Case(frame) for frame in frames]
    by_camera: dict[str, list[_Case]] = {}
    for case in cases:
        if case.frame.stamp.complete:
            by_camera.setdefault(case.frame.stamp.camera, []).append(case)
        else:
            case.trouble = Reason.FRAME_INCOMPLETE, "the picture is not whole"
    for camera, batch in by_camera.items():
        _judge_batch(batch, recipe.plans[camera], now_ns)
    return [_inspection(case, recipe) for case in cases]


def decide(findings: Sequence[Finding], reasons: Sequence[str]) -> tuple[Decision, int, str]:
    """The rule: decision, reason code and its text (`reasons` as in `Recipe`).

    A number that is not finite makes the part UNJUDGED, and so does having nothing to judge by: the locating finding alone is not
    enough. PASS is: every finding finite and within its limits. The first finding out of its limits names the reason.
    """
    failed: Finding | None = None
    measured = False
    for finding in findings:
        if not math.isfinite(finding.value):
            return Decision.UNJUDGED, Reason.NON_FINITE, _short(f"{finding.check} {finding.feature}: {finding.value}")
        if failed is None and not finding.ok:
            failed = finding
        measured = measured or finding.check != LOCATE
    if failed is not None:
        code = FIRST_CLASS_REASON + (reasons.index(failed.check) if failed.check in reasons else 0)
        return _FAIL, min(code, LAST_CLASS_REASON), _short(_text(failed))
    if not measured:
        return Decision.UNJUDGED, Reason.OUT_OF_DISTRIBUTION, "no check had anything to say"
    return _PASS, 0, ""


def _judge_batch(batch: list[_Case], plan: Plan, now_ns: Clock) -> None:
    for case in batch:
        try:
            case.view = _view(case, plan, now_ns)
        except Exception as error:  # noqa: BLE001 - one frame's trouble, whatever it is, is that frame's alone
            case.trouble = Reason.INFER_ERROR, f"{LOCATE}: {type(error).__name__}: {error}"
    for name, check in plan.checks:
        seen = [case for case in batch if case.view is not None and case.trouble is None]
        if not seen:
            return
        start_ns = now_ns()
        _ask(name, check, seen)
        share_ns = (now_ns() - start_ns) // len(seen)
        for case in seen:
            case.spent_ns[name] = share_ns


def _view(case: _Case, plan: Plan, now_ns: Clock) -> View | None:
    """The frame with its drawing laid over it; None when the part was not found, which is a finding."""
    frame = case.frame
    if plan.correct is not None:
        start_ns = now_ns()
        frame = frame._replace(image=plan.correct(frame.image))
        case.spent_ns["correct"] = now_ns() - start_ns
    if plan.straighten is not None:
        start_ns = now_ns()
        frame = frame._replace(image=plan.straighten(frame.image))
        case.spent_ns["straighten"] = now_ns() - start_ns
    if plan.locator is None:
        return View(frame, None, plan.template, frame.image)
    start_ns = now_ns()
    shown = calibrate.shown_by(plan.straighten)
    found = plan.locator.find(frame.image, max_parts=1, shown=shown)
    located_ns = now_ns()
    case.spent_ns[LOCATE] = located_ns - start_ns
    score = found[0].pose.score_ratio if found else 0.0
    case.findings.append(Finding(LOCATE, "part", score, plan.least_score_ratio, None, "ratio"))
    if not found:
        return None
    case.pose = found[0].pose
    image = frame.image
    if plan.raster and plan.template is not None:
        case.findings.append(Finding(LOCATE, "in_view", _in_view(plan.template, found[0].pose, image, shown), 1.0, None, "ratio"))
        image = raster.rectify(frame.image, found[0].pose, plan.template)
        case.spent_ns["view"] = now_ns() - located_ns
    return View(frame, found[0].pose, plan.template, image, found[0].gauged)


def _in_view(template: Template, pose: Pose, image: Image, shown: Image | None) -> float:
    """The share of the outline that lies where the picture is `shown`: beyond its border the last pixel is repeated, which shows no defect.

    A polygon lies in a rectangle when its corners do, but not in what a lens shows. `BORDER_PX` beyond the border is the pose's own error.
    """
    outlines = [contour.points_mm for contour in template.contours if contour.kind == "outer"]
    if shown is not None:
        outlines = [polygon.finely(points, OUTLINE_STEP_PX * template.mm_per_px) for points in outlines]
    inside = [raster.inside(raster.to_picture(points, pose), image.shape, shown, BORDER_PX) for points in outlines]
    return float(sum(map(np.count_nonzero, inside))) / sum(map(len, inside)) if inside else 1.0


def _ask(name: str, check: Check, cases: list[_Case]) -> None:
    """Let one check judge the cases together, and each alone if that fails."""
    try:
        answers = [tuple(findings) for findings in check([case.view for case in cases if case.view is not None])]
        if len(answers) != len(cases):
            raise ValueError(f"{len(answers)} answers to {len(cases)} views")
    except TimeoutError as error:  # what took too long would take as long again
        for case in cases:
            case.trouble = Reason.INFER_TIMEOUT, f"{name}: {error}"
        return
    except Exception as error:  # noqa: BLE001 - see the module
        if len(cases) > 1:
            for case in cases:
                _ask(name, check, [case])
        else:
            cases[0].trouble = Reason.INFER_ERROR, f"{name}: {type(error).__name__}: {error}"
        return
    for case, findings in zip(cases, answers, strict=True):
        if not findings:  # what a check does not measure it has not found good
            case.trouble = Reason.OUT_OF_DISTRIBUTION, f"{name}: no findings"
        web = case.frame.stamp.web
        case.findings.extend(findings if web is None else (_placed(finding, web) for finding in findings))


def _placed(finding: Finding, web: Web) -> Finding:
    """Where on the web the finding is: at the middle of its evidence."""
    if finding.at_mm is not None or finding.evidence is None:
        return finding
    x, y, width, height = finding.evidence.bbox_px
    return finding._replace(at_mm=web.place(x + (width - 1) / 2, y + (height - 1) / 2))


def _inspection(case: _Case, recipe: Recipe) -> Inspection:
    if case.trouble is None:
        try:
            decision, reason, text = decide(case.findings, recipe.reasons)
        except Exception as error:  # noqa: BLE001 - a check may have said anything
            case.trouble = Reason.INFER_ERROR, f"findings: {type(error).__name__}: {error}"
    if case.trouble is not None:
        decision, reason, text = Decision.UNJUDGED, case.trouble[0], _short(case.trouble[1])
    return Inspection(case.frame.stamp, decision, int(reason), text, tuple(case.findings), case.pose, recipe.digest, case.spent_ns)


def _text(finding: Finding) -> str:
    what = finding.evidence.class_name if finding.evidence else finding.feature
    return f"{finding.check} {what}: {finding.value:.4g} {finding.unit}, allowed {_limits(finding.low, finding.high)}"


def _limits(low: float | None, high: float | None) -> str:
    if low is None:
        return "anything" if high is None else f"at most {high:.4g}"
    if high is None:
        return f"at least {low:.4g}"
    return f"{low:.4g} to {high:.4g}" if low < high else f"{low:.4g}"


def _short(text: str) -> str:
    """At most as many bytes of UTF-8 as an event may carry."""
    return text.encode()[:LONGEST_TEXT_BYTES].decode(errors="ignore")
