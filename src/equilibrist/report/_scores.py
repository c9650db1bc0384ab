"""The report's section on scores of the samples."""

from __future__ import annotations

import html
import math

import numpy as np

from equilibrist.certificates import Json
from equilibrist.report import charts
from equilibrist.report._record import RunRecord, Series, as_number
from equilibrist.report.formatting import as_label, format_count, format_number, format_value

_BETTER = {"lower": "lower is better", "higher": "higher is better"}


def scores(record: RunRecord) -> str:
    """For each score its last figures beside their floors, and each figure over training."""
    if not record.scores:
        return ""
    by_name: dict[str, list[Json]] = {}
    for row in record.scores:
        by_name.setdefault(str(row.get("name")), []).append(row)
    lead = (
        "Scores compare samples with real data; they say nothing about equilibria. Each is named after "
        "the network whose features it uses, and stands beside the same figure for real data "
        "against real data: no generator can be told from the data below that floor."
    )
    parts = [_score(name, history) for name, history in by_name.items()]
    return f'<p class="lead">{_e(lead)}</p>{"".join(parts)}'


def _score(name: str, history: list[Json]) -> str:
    last = history[-1]
    floors, better = last.get("floor") or {}, last.get("better") or {}
    step = format_count(int(last["step"]))
    caption = f"At step {step}, from {format_value(last.get('samples'))} samples of each kind."
    if last.get("failed"):
        caption = f"At step {step} there is no figure: {last['failed']}."
    rows = "".join(
        f"<tr><td>{_e(as_label(key))}</td><td>{_e(_BETTER.get(str(better.get(key)), ''))}</td>"
        f'<td class="figure" data-name="Samples">{_e(_shown(value))}</td>'
        f'<td class="figure" data-name="Real against real">{_e(_shown(floors.get(key)))}</td></tr>'
        for key, value in (last.get("values") or {}).items()
        if as_number(value) is not None
    )
    head = (
        '<th scope="col">Figure</th><th scope="col"></th><th scope="col" class="figure">Samples</th>'
        '<th scope="col" class="figure">Real against real</th>'
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
    figures = "".join(_figure(history, key) for key in last.get("values") or {})
    charted = f'<div class="charts">{figures}</div>' if figures else ""
    return f"<h3>{_e(name)}</h3><p>{_e(caption)}</p>{table}{charted}"


def _figure(history: list[Json], key: str) -> str:
    points = [(r["step"], as_number((r.get("values") or {}).get(key))) for r in history]
    if len(points) < 2:
        return ""
    steps = np.array([step for step, _ in points], dtype=float)
    values = np.array([math.nan if v is None else v for _, v in points], dtype=float)
    title = as_label(key)
    chart, note = charts.training_chart(Series(steps, values), "generator", title, log=True)
    return (
        f'<figure><h4><span class="swatch generator"></span>{_e(title)}</h4>{chart}'
        f"<figcaption>Last value {_shown(values[-1])}. {_e(note)}</figcaption></figure>"
    )


def _shown(value: object) -> str:
    number = as_number(value)
    return "" if number is None else format_number(float(number))


def _e(text: object) -> str:
    return html.escape(str(text))
