"""The report of a shift as a PDF: the page's figures on A4. What the fonts that every reader has cannot write is a question mark."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from inspector.desk import charts, words
from inspector.desk.history import Dimension
from inspector.desk.opinions import Opinion
from inspector.desk.report import MOST_DIMENSIONS, Report

MARGIN = 15 * mm
WIDTH = A4[0] - 2 * MARGIN
LONGEST_TEXT = 300
TEXT = ParagraphStyle("text", fontName="Helvetica", fontSize=8.5, leading=10.5)
HEAD = ParagraphStyle("head", fontName="Helvetica-Bold", fontSize=11, leading=14, spaceBefore=10, spaceAfter=3, keepWithNext=True)
TITLE = ParagraphStyle("title", fontName="Helvetica-Bold", fontSize=16, leading=20)
RULED = [
    ("FONT", (0, 0), (-1, -1), "Helvetica", 8.5),
    ("FONT", (0, 0), (-1, 0), "Helvetica-Bold", 8.5),
    ("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.grey),
    ("VALIGN", (0, 0), (-1, -1), "TOP"),
    ("TOPPADDING", (0, 0), (-1, -1), 2),
    ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
]


def pdf(report: Report, opinions: Sequence[Opinion], dimensions: Sequence[Dimension], *, station: str, made_ns: int) -> bytes:
    """The document. `dimensions` are in the order in which they are to stand there, `opinions` those of the report's time."""
    out = io.BytesIO()
    whole, read = report.whole, report.reasons
    story: list[Flowable] = [
        _lines("Shift report", TITLE),
        _lines(f"{station}: {report.window.text}, made {words.moment(made_ns)}"),
        *_table(
            "Parts",
            ("", "Count", "Share"),
            [
                ("Parts", whole.parts, ""),
                *(
                    (name, count, _percent(count, whole.parts))
                    for name, count in (("Passed", whole.passed), ("Rejected", whole.rejected), ("Not inspected", whole.not_inspected))
                ),
            ],
            (4, 1, 1),
        ),
        *_pareto("Why parts were rejected", charts.pareto(read.reasons)),
        *_pareto("Which feature failed", charts.pareto(charts.named(read.features))),
        *_table(
            "By the hour",
            ("From", "Parts", "Passed", "Rejected", "Not inspected", "Rejects"),
            [
                (words.moment(h.from_ns), h.parts, h.passed, h.rejected, h.not_inspected, _percent(h.rejected, h.passed + h.rejected))
                for h in report.hours
            ],
            (2, 1, 1, 1, 1.3, 1),
        ),
        *_table(
            "Dimensions, least capable first",
            ("Dimension", "Recipe", "Lane", "Allowed", "Unit", "Mean", "Sigma", "Cp", "Cpk", "Drift, 1/h"),
            [_dimension(d) for d in dimensions[:MOST_DIMENSIONS]],
            (3, 2, 0.8, 2.4, 0.8, 1.3, 1.2, 1, 1, 1.3),
            texts=2,
        ),
    ]
    if len(dimensions) > MOST_DIMENSIONS:
        story.append(_lines(f"{len(dimensions) - MOST_DIMENSIONS} more, more capable ones, are in the CSV."))
    if opinions:
        said = [(o.part_seq, words.verdict_name(o.verdict), o.said, o.who, o.note) for o in opinions]
        story += _table("People disagreed", ("Part", "Verdict", "Said", "By", "Note"), said, (1, 1, 1, 1.5, 4), texts=5)
    document = SimpleDocTemplate(
        out, pagesize=A4, topMargin=MARGIN, bottomMargin=MARGIN, leftMargin=MARGIN, rightMargin=MARGIN, title=f"Report {report.window.text}"
    )
    foot = _foot(_plain(f"{station}, {report.window.text}"))
    document.build(story, onFirstPage=foot, onLaterPages=foot)
    return out.getvalue()


def _plain(text: object) -> str:
    """As the fonts can write it."""
    return str(text).replace("−", "-").encode("cp1252", "replace").decode("cp1252")


def _lines(text: object, style: ParagraphStyle = TEXT) -> Paragraph:
    """The same, broken into lines; no markup. Of a long text the beginning: a row of a table must fit on a page."""
    plain = _plain(text)
    return Paragraph(escape(plain if len(plain) <= LONGEST_TEXT else f"{plain[:LONGEST_TEXT]} …"), style)


def _percent(count: int, of_all: int) -> str:
    return f"{words.number(100 * count / of_all, 3)} %" if of_all else "–"


def _pareto(title: str, rows: Sequence[charts.Slice]) -> list[Flowable]:
    cells = [(r.label, r.count, f"{100 * r.share_ratio:.0f} %", f"{100 * r.running_ratio:.0f} %") for r in rows]
    return _table(title, ("", "Count", "Share", "Running"), cells, (4, 1, 1, 1))


def _dimension(d: Dimension) -> tuple[object, ...]:
    s = d.series
    figures = (words.number(d.mean), words.number(d.sigma, 3), words.number(d.cp, 3), words.number(d.cpk, 3))
    drift = words.number(d.drift_per_h, 3) if d.drift_per_h else "none"
    return s.name, s.recipe, s.lane, words.limits(s.low, s.high), words.unit_name(s.unit), *figures, drift


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]], widths: Sequence[float], *, texts: int = 1) -> list[Flowable]:
    """A heading and a table of the page's width; the first `texts` columns are broken into lines, the others stand to the right."""
    if not rows:
        return [_lines(title, HEAD), _lines("None.")]
    cells: list[list[Any]] = [[_plain(name) for name in head]]
    cells += [[_lines(c) if i < texts else _plain(c) for i, c in enumerate(row)] for row in rows]
    style = TableStyle([*RULED, ("ALIGN", (texts, 0), (-1, -1), "RIGHT")])
    each = WIDTH / sum(widths)
    return [_lines(title, HEAD), Table(cells, [w * each for w in widths], style=style, repeatRows=1), Spacer(1, 2 * mm)]


def _foot(text: str) -> Callable[[Canvas, Any], None]:
    """What stands below each page: `text` and the page's number."""

    def draw(canvas: Canvas, document: Any) -> None:
        canvas.setFont("Helvetica", 7.5)
        canvas.drawString(MARGIN, 8 * mm, text)
        canvas.drawRightString(A4[0] - MARGIN, 8 * mm, str(document.page))

    return draw
