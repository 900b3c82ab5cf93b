"""The Grafana dashboards, built here and committed as JSON beside this file: python -m deploy.grafana.dashboards

A panel is a line of the tables below. `$line` is the label that `deploy/prometheus/prometheus.yml` gives to everything of one line.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

FOLDER = Path(__file__).parent
ACROSS = 24
OURS = model.DataSourceRef(type_val="prometheus", uid="${source}")


@dataclass(frozen=True, slots=True)
class Panel:
    """What is drawn: `queries` are (expression, legend). `bad` turns a number red from there on, or below it where it is negative.

    `may_be_empty`: no series before the first of what it counts has happened, or where the line has none of it.
    """

    title: str
    text: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    number: bool = False
    bad: float | None = None
    may_be_empty: bool = False


def of_line(expression: str) -> str:
    """The expression with every `inspector_…` metric held to the dashboard's line, and `[r]` as long as Grafana finds it right."""
    held = re.sub(r"inspector_(\w+)({)?", lambda found: f'inspector_{found[1]}{{line="$line"' + ("," if found[2] else "}"), expression)
    return held.replace("[r]", "[$__rate_interval]")


def quantiles(histogram: str, by: str = "") -> list[tuple[str, str]]:
    """Median, 99 % and 99.9 % of a histogram, for each of `by`."""
    return [
        (f"histogram_quantile({q}, sum by (le{', ' + by if by else ''}) (rate(inspector_{histogram}_bucket[r])))",
         f"{{{{{by}}}}} {name}" if by else name)
        for q, name in ((0.5, "median"), (0.99, "99 %"), (0.999, "99.9 %"))
    ]  # fmt: skip


def share(part: str, whole: str) -> str:
    """One rate as a share of another, 0 where there is nothing."""
    return f"sum(rate({part}[r])) / clamp_min(sum(rate({whole}[r])), 1e-9)"


LINE = [
    Panel("Permit", "1 while parts may pass: without it the PLC rejects every part.", [("inspector_permit", "")], number=True, bad=-1),
    Panel("Parts that nothing accounts for", "0, always.", [("inspector_parts_unexplained", "")], number=True, bad=1),
    Panel("Gateways", "PLC gateways in session.", [("inspector_gateways", "")], number=True, bad=-1),
    Panel("Vision", "1 while pictures are judged.", [("inspector_vision_up", "")], number=True, bad=-1),
    Panel("Parts by outcome", "A part has one.", [("sum by (outcome) (rate(inspector_parts_total[r]))", "{{outcome}}")], "pps"),
    Panel("Not inspected", "Share of the parts that nobody could judge in time.",
          [(share('inspector_parts_total{outcome="not_inspected"}', "inspector_triggers_total"), "share")], "percentunit"),
    Panel("State", "1 for the state that the daemon is in.", [("inspector_state == 1", "{{state}}")]),
    Panel("Alarms", "By code; deploy/OPERATIONS.md says what each wants.",
          [("sum by (code) (increase(inspector_alarms_total[5m]))", "{{code}}")], may_be_empty=True),
    Panel("Parts under way", "Triggered and without an outcome.", [("inspector_parts_pending", "")]),
    Panel("Verdicts sent again, or not confirmed", "A gateway did not answer in time.",
          [("rate(inspector_resent_total[r])", "again"), ("rate(inspector_unconfirmed_total[r])", "not confirmed")], "ops"),
    Panel("No messages", "By why.", [("sum by (why) (rate(inspector_bad_messages_total[r]))", "{{why}}")], "ops", may_be_empty=True),
    Panel("Vision started again", "Times since the daemon began.", [("inspector_vision_restarts_total", "")]),
]  # fmt: skip

CAMERAS = [
    Panel("Working", "1 while the camera works.", [("inspector_camera_up", "{{camera}}")], number=True, bad=-1),
    Panel("Exposures", "Arrived, a second.", [("rate(inspector_frames_total[r])", "{{camera}}")], "cps"),
    Panel("Never arrived", "Exposure numbers that are missing.", [("rate(inspector_frames_lost_total[r])", "{{camera}}")], "cps"),
    Panel("Arrived damaged", "Packets lost on the way: cable, switch, socket buffer.",
          [("rate(inspector_frames_incomplete_total[r])", "{{camera}}")], "cps"),
    Panel("Gave way", "The computer does not keep up with the camera.", [("rate(inspector_frames_dropped_total[r])", "{{camera}}")], "cps"),
    Panel("Came twice", "Ignored.", [("rate(inspector_frames_repeated_total[r])", "{{camera}}")], "cps"),
    Panel("Pictures that wait", "For a thread that judges.", [("inspector_ring_waiting_frames", "{{camera}}")]),
    Panel("Built anew", "Times a camera was lost and opened again.", [("inspector_camera_rebuilds_total", "{{camera}}")]),
    Panel("Grey level", "Mean, and from the darkest to the brightest hundredth: the light, the lens, the exposure.",
          [("inspector_picture_exposure_grey", "{{camera}} mean"), ("inspector_picture_contrast_grey", "{{camera}} contrast")]),
    Panel("Focus", "The steepest step as a share of the contrast.", [("inspector_picture_focus_ratio", "{{camera}}")], "percentunit"),
    Panel("Black, white, dirty", "Shares of the picture.",
          [("inspector_picture_saturated_ratio", "{{camera}} black or white"), ("inspector_picture_dirt_ratio", "{{camera}} dirt")],
          "percentunit"),
    Panel("Drift", "From what was learnt; 1 is an alarm.", [("inspector_picture_drift_ratio", "{{camera}} {{what}}")], may_be_empty=True),
    Panel("The driver's own count", "Where it counts: packets, resends, underruns.",
          [("inspector_camera_driver", "{{camera}} {{what}}")], may_be_empty=True),
]  # fmt: skip

LATENCY = [
    Panel("Margin to the deadline", "From a verdict to the moment when it would have been too late: the smallest is what counts.",
          [(f"histogram_quantile({q}, sum by (le) (rate(inspector_deadline_margin_seconds_bucket[r])))", name)
           for q, name in ((0.001, "worst 0.1 %"), (0.01, "worst 1 %"), (0.5, "median"))], "s"),
    Panel("Judged too late", "The part was rejected before.", [("rate(inspector_late_results_total[r])", "")], "ops"),
    Panel("Exposure to judgement", "As told to the gate.", quantiles("inspection_latency_seconds", "camera"), "s"),
    Panel("Waiting in the ring", "Before a thread takes the picture.", quantiles("ring_wait_seconds"), "s"),
    Panel("Vision's word to the socket", "The gate's own share.", quantiles("gate_step_seconds"), "s"),
    Panel("One commit", "The journal's disk; verdicts do not wait for it.", quantiles("fsync_seconds"), "s"),
    Panel("Events that wait for the disk", "At 20,000 they are published without being kept.", [("inspector_journal_backlog", "")]),
    Panel("Events not kept", "0, unless the disk has failed.", [("inspector_journal_lost_events_total", "")], bad=1, number=True),
    Panel("Oldest step of each thread", "What does not move for long is frozen.", [("inspector_worker_age_seconds", "{{worker}}")], "s"),
    Panel("Not told to the gate", "The parts are rejected as not inspected.", [("rate(inspector_link_untold_total[r])", "")], "ops"),
    Panel("Memory", "Resident, of each process.", [("inspector_process_resident_memory_bytes", "{{job}}")], "bytes"),
    Panel("CPU", "Cores in use.", [("rate(inspector_process_cpu_seconds_total[r])", "{{job}}")]),
    Panel("Open files", "Flat, or something leaks.", [("inspector_process_open_fds", "{{job}}")]),
]  # fmt: skip

QUALITY = [
    Panel("Rejected", "Share of all parts.", [(share('inspector_parts_total{outcome="reject"}', "inspector_triggers_total"), "share")],
          "percentunit", number=True),
    Panel("Passed in the last hour", "Parts.", [('sum(increase(inspector_parts_total{outcome="pass"}[1h]))', "")], number=True),
    Panel("Rejected in the last hour", "Parts.", [('sum(increase(inspector_parts_total{outcome="reject"}[1h]))', "")], number=True),
    Panel("Judgements", "Of each camera, by decision.",
          [("sum by (camera, decision) (rate(inspector_inspections_total[r]))", "{{camera}} {{decision}}")], "cps"),
    Panel("Failed, of each camera", "Share of its pictures; a step without a new batch of parts is a camera or a light.",
          [('sum by (camera) (rate(inspector_inspections_total{decision="fail"}[r])) / sum by (camera) '
            "(rate(inspector_inspections_total[r]))", "{{camera}}")], "percentunit"),
    Panel("Pictures kept", "Rejects, and every n-th pass.",
          [("rate(inspector_archive_pictures_total[r])", "kept"), ("rate(inspector_archive_pictures_dropped_total[r])", "not kept"),
           ("rate(inspector_archive_pictures_removed_total[r])", "made room")], "ops"),
    Panel("Kept pictures take", "Within archive.keep_mib.", [("inspector_archive_bytes", "")], "bytes"),
]  # fmt: skip

MODELS = [
    Panel("Recipe in force", "Its digest is in every verdict.", [("inspector_recipe_info", "{{digest}}")], number=True),
    Panel("Networks in force", "By the first part of their sha256.", [("inspector_model_info", "{{name}} {{sha256}}")], number=True,
          may_be_empty=True),
    Panel("Program", "Version.", [("inspector_build_info", "{{version}}")], number=True),
    Panel("Time of each stage", "Locating, warping, and each check.", quantiles("stage_seconds", "stage"), "s"),
    Panel("Share of the time", "Where a faster model would help.",
          [("sum by (stage) (rate(inspector_stage_seconds_sum[r])) / scalar(sum(rate(inspector_stage_seconds_sum[r])))", "{{stage}}")],
          "percentunit"),
    Panel("Recipe of each camera", "1 for the one in use.", [("inspector_recipe_in_use", "{{camera}} {{name}}")]),
    Panel("Changeovers", "By what came of them.", [("inspector_changeovers_total", "{{outcome}}")]),
    Panel("A recipe in shadow", "What it said beside the present one.", [("inspector_shadow_pictures", "{{outcome}}")], may_be_empty=True),
    Panel("Not judged", "Pictures on which a check failed or the part was not found.",
          [('sum by (camera) (rate(inspector_inspections_total{decision="unjudged"}[r]))', "{{camera}}")], "cps", may_be_empty=True),
]  # fmt: skip

DASHBOARDS = {
    "line": ("Line", LINE),
    "cameras": ("Cameras", CAMERAS),
    "latency": ("Latency and deadline margin", LATENCY),
    "quality": ("Quality", QUALITY),
    "models": ("Models", MODELS),
}


def drawn(panel: Panel) -> timeseries.Panel | stat.Panel:
    """The panel in Grafana's words: a number, or lines over time."""
    made: timeseries.Panel | stat.Panel = stat.Panel() if panel.number else timeseries.Panel()
    made = made.title(panel.title).description(panel.text).unit(panel.unit).datasource(OURS).span(6 if panel.number else 12)
    made = made.height(4 if panel.number else 8)
    if panel.bad is not None:
        colours = ("green", "red") if panel.bad > 0 else ("red", "green")
        steps = [model.Threshold(color=colours[0]), model.Threshold(value=abs(panel.bad), color=colours[1])]
        made = made.thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
    for i, (expression, legend) in enumerate(panel.queries):
        query = prometheus.Dataquery().expr(of_line(expression)).legend_format(legend or "__auto").ref_id(chr(ord("A") + i))
        made = made.with_target(query.instant() if panel.number else query.range())
    return made


def built(name: str) -> str:
    """The JSON of one dashboard."""
    title, panels = DASHBOARDS[name]
    board = (
        dashboard.Dashboard(f"inspector: {title}")
        .uid(f"inspector-{name}")
        .tags(["inspector"])
        .refresh("10s")
        .time("now-1h", "now")
        .readonly()
    )
    board = board.with_variable(dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"))
    lines = dashboard.QueryVariable("line").label("Line").datasource(OURS).query("label_values(inspector_triggers_total, line)")
    board = board.with_variable(lines.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED))
    x = y = tall = 0
    for panel in panels:
        wide, high = (6, 4) if panel.number else (12, 8)
        if x + wide > ACROSS:
            x, y, tall = 0, y + tall, 0
        board = board.with_panel(drawn(panel).grid_pos(model.GridPos(x=x, y=y, w=wide, h=high)))
        x, tall = x + wide, max(tall, high)
    return JSONEncoder(sort_keys=True, indent=1).encode(board.build()) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        (FOLDER / f"{each}.json").write_text(built(each), encoding="utf-8")
        print(FOLDER / f"{each}.json", file=sys.stderr)
