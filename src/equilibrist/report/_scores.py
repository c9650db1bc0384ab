"""The report's section on scores of the samples."""

from __future__ import annotations

import html
import math
from typing import Any

import numpy as np

from equilibrist.report import _charts as charts
from equilibrist.report import _words as words
from equilibrist.report._load import Record, Series, as_number

_BETTER = {"lower": "lower is better", "higher": "higher is better"}


def scores(record: Record) -> str:
    """A table of the last figures beside their floors, and each figure over training."""
    if not record.scores:
        return ""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in record.scores:
        by_name.setdefault(str(row.get("name")), []).append(row)
    rows, figures = [], []
    for name, history in by_name.items():
        last = history[-1]
        floors, better = last.get("floor") or {}, last.get("better") or {}
        if last.get("failed"):
            rows.append(_row(name, "failed", str(last["failed"]), "", ""))
        for key in last.get("values") or {}:
            value = as_number(last["values"][key])
            way = _BETTER.get(str(better.get(key)), "")
            rows.append(_row(name, words.label(key), _said(value), _said(floors.get(key)), way))
            figures.append(_figure(history, name, key))
    lead = (
        "Scores compare samples with real data; they say nothing about equilibria. Each is named after "
        "the network whose features it uses, and stands beside the same figure for real data "
        "against real data: no generator can be told from the data below that floor."
    )
    head = "".join(
        f'<th scope="col"{kind}>{title}</th>'
        for title, kind in (
            ("Score", ""),
            ("Figure", ""),
            ("Samples", ' class="figure"'),
            ("Real against real", ' class="figure"'),
            ("", ""),
        )
    )
    table = (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    step = words.count(int(record.scores[-1]["step"]))
    return (
        f'<p class="lead">{_e(lead)}</p><p>At step {step}:</p>{table}'
        f'<div class="charts">{"".join(f for f in figures if f)}</div>'
    )


def _figure(history: list[dict[str, Any]], name: str, key: str) -> str:
    points = [(r["step"], as_number((r.get("values") or {}).get(key))) for r in history]
    if len(points) < 2:
        return ""
    steps = np.array([step for step, _ in points], dtype=float)
    values = np.array([math.nan if v is None else v for _, v in points], dtype=float)
    # "Frechet distance: Frechet distance (pixels-8x8, ...)" would say it twice.
    said = words.label(key)
    title = name if name.lower().startswith(said.lower()) else f"{said}: {name}"
    chart, note = charts.training_chart(Series(steps, values), "generator", title, log=True)
    return (
        f'<figure><h4><span class="swatch generator"></span>{_e(title)}</h4>{chart}'
        f"<figcaption>Last value {_said(values[-1])}. {_e(note)}</figcaption></figure>"
    )


def _row(name: str, figure: str, value: str, floor: str, way: str) -> str:
    return (
        f"<tr><td>{_e(name)}</td><td>{_e(figure)}</td>"
        f'<td class="figure" data-name="Samples">{_e(value)}</td>'
        f'<td class="figure" data-name="Real against real">{_e(floor)}</td><td>{_e(way)}</td></tr>'
    )


def _said(value: Any) -> str:
    number = as_number(value)
    return "" if number is None else words.number(float(number))


def _e(text: object) -> str:
    return html.escape(str(text))
