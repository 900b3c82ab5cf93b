"""One page with a model's figures and the pictures it did worst on, as files that any browser shows without a network."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from inspector.checks import anomaly
from inspector.neural import model as models
from inspector.neural import pictures
from inspector.records import Image
from inspector.workshop import evaluate, places, plots
from inspector.workshop.datasets import Classified, GoodAndBad, Paired, Segmented

WORST = 12
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}td.bar{width:16rem;text-align:left}"
    ".track{position:relative;height:.8rem;background:#eee}.range{position:absolute;height:.8rem;background:#9bc}.mark{position:absolute;width:2px;height:.8rem;background:#036}"
    "figure{display:inline-block;margin:.5rem;vertical-align:top}img{max-width:20rem;image-rendering:auto}figcaption{font-size:.85rem}"
)


def write(folder: Path, model: models.Model, data: Segmented | Classified | Paired | GoodAndBad, figures: dict[str, Any]) -> Path:
    """index.html and worst-*.png in the folder; returns the page. `figures` are those of `inspector evaluate`. Raises E_OUT."""
    places.folder(folder, "--report")
    shown = []
    for number, (caption, picture) in enumerate(_worst(model, data)):
        name = f"worst-{number:02d}.png"
        pictures.write(folder / name, picture)
        shown.append(f'<figure><img src="{name}" alt=""><figcaption>{html.escape(caption)}</figcaption></figure>')
    rows = [_row(name, value) for name, value in figures.items() if name != "confusion"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(model.path.name)}</title><style>{STYLE}</style>",
        f"<h1>{html.escape(model.path.name)}</h1>",
        f"<p>{html.escape(model.card.task)} of {html.escape(', '.join(model.card.classes))}; sha256 {model.card.sha256[:16]}…</p>",
        f"<p>Trained on: {html.escape(model.card.data)}</p>",
        f"<table><tr><th>figure<th>value<th>95 %<th></tr>{''.join(rows)}</table>",
        _confusion(figures.get("confusion"), model.card.classes),
        f"<h2>Worst {len(shown)}</h2>{''.join(shown)}",
    ]
    page = folder / "index.html"
    with places.written(page, "--report"):
        page.write_text("\n".join(parts), "utf-8")
    return page


def _row(name: str, value: Any) -> str:
    """One figure; those with an interval between 0 and 1 are drawn as well."""
    if not isinstance(value, dict):
        return f"<tr><td>{html.escape(name)}<td>{html.escape(str(value))}<td><td></tr>"
    low, high = value["interval"]
    text = "–" if value["value"] is None else f"{value['value']:.4f}"
    if low is None or value["value"] is None:
        return f"<tr><td>{html.escape(name)}<td>{text}<td><td></tr>"
    bar = ""
    if low >= 0 and high <= 1:
        bar = f'<div class=track><div class=range style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></div>'
        bar += f'<div class=mark style="left:{100 * value["value"]:.1f}%"></div></div>'
    return f"<tr><td>{html.escape(name)}<td>{text}<td>{low:.4f} … {high:.4f}<td class=bar>{bar}</tr>"


def _confusion(counts: list[list[int]] | None, classes: list[str]) -> str:
    """Truth down, found across."""
    if counts is None:
        return ""
    head = "".join(f"<th>{html.escape(name)}" for name in classes)
    rows = "".join(f"<tr><td>{html.escape(n)}{''.join(f'<td>{c}' for c in row)}</tr>" for n, row in zip(classes, counts, strict=True))
    return f"<h2>Confusion</h2><table><tr><th>truth ↓ found →{head}</tr>{rows}</table>"


def _worst(model: models.Model, data: Segmented | Classified | Paired | GoodAndBad) -> Iterator[tuple[str, Image]]:
    """(caption, picture) of the worst cases, worst first."""
    if isinstance(data, Classified):
        scores = evaluate.scores(model, data)
        for i in np.argsort(scores[np.arange(len(data.labels)), data.labels])[:WORST]:
            said = int(scores[i].argmax())
            yield f"{data.names[i]}: {data.classes[data.labels[i]]} seen as {data.classes[said]} ({scores[i, said]:.2f})", data.images[i]
    elif isinstance(data, Segmented):
        maps = [evaluate.predict_maps(model, image)[0] for image in data.images]
        wrong = [int((found != mask).sum()) for found, mask in zip(maps, data.masks, strict=True)]
        for i in np.argsort(wrong)[::-1][:WORST]:
            both = [plots.overlay(data.images[i], seen, data.classes) for seen in (maps[i], data.masks[i])]
            yield f"{data.names[i]}: {wrong[i]} px differ; left the model, right the truth", np.hstack(both)
    elif isinstance(data, GoodAndBad):
        maps_of = [anomaly.score_map(image, model) for image in data.images]
        limit = model.card.threshold(anomaly.CLASS)
        over = np.array([anomaly.score_of(each) - limit for each in maps_of])
        for i in np.argsort(np.where(data.bad, over, -over))[:WORST]:  # bad parts far below the threshold, good ones far above
            yield f"{data.names[i]}: {over[i] + limit:.2f}, threshold {limit:.2f}", plots.heat(data.images[i], maps_of[i], limit)
    else:
        found = [[d for d in ds if d.score >= model.card.threshold(d.class_name)] for ds in evaluate.detect(model, data)]
        m = evaluate.match(found, data, 0.33)
        hits = np.bincount(m.pair[m.hit], minlength=len(data.names))
        wrong = [len(ds) + len(b) - 2 * int(h) for ds, b, h in zip(found, data.boxes, hits, strict=True)]
        for i in np.argsort(wrong)[::-1][:WORST]:
            yield f"{data.names[i]}: {wrong[i]} missed or wrong; grey is the truth", plots.boxes(data.images[i], found[i], data.boxes[i])
