"""The charts of a comparison: mean lines within their intervals, over steps and over seconds."""

from __future__ import annotations

import math
from typing import Literal

from equilibrist.compare import _words as say
from equilibrist.compare._facts import ComparisonFacts, CurveFacts, FigureFacts
from equilibrist.report import charts
from equilibrist.report.shell import escape

COLOURS = 8
Axis = Literal["steps", "seconds"]


def legend(facts: ComparisonFacts) -> str:
    """Which colour is which solver's."""
    items = "".join(
        f'<li class="s{i % COLOURS}">{line_key()}{escape(name)}</li>'
        for i, name in enumerate(solver_names(facts))
    )
    return f'<ul class="legend">{items}</ul>'


def line_key() -> str:
    """A short line in the solver's colour."""
    return '<svg class="key" viewBox="0 0 32 12" aria-hidden="true"><path d="M0 6H32"/></svg>'


def figure_charts(facts: ComparisonFacts, figure: FigureFacts) -> str:
    """One figure over steps, and over seconds."""
    over: tuple[tuple[Axis, str], ...] = (
        ("steps", "training step"),
        ("seconds", "seconds of training, one seed"),
    )
    drawn = [_chart(facts, figure, axis, axis_title) for axis, axis_title in over]
    return f'<div class="charts">{"".join(drawn)}</div>'


def _chart(facts: ComparisonFacts, figure: FigureFacts, axis: Axis, axis_title: str) -> str:
    """Mean lines within their intervals."""
    curves = [figure["curves"][name] for name in solver_names(facts)]
    bounds = [b for c in curves for b in _bounds(c)]
    means = [m for c in curves for m in c["mean"] if abs(m) < 1e150]
    bounds = [b for b in bounds if abs(b) < 1e150]
    xs = [x for c in curves for x in c[axis] if math.isfinite(x)]
    if not means or not xs:
        return (
            '<figure><figcaption class="note">No finite figure was recorded.</figcaption></figure>'
        )
    low, high = min(bounds + means), max(bounds + means)
    ordered = sorted(means)
    core = (ordered[round(0.02 * (len(means) - 1))], ordered[round(0.98 * (len(means) - 1))])
    logarithmic = min(means) > 0 and max(means) > 50 * min(means)
    if logarithmic:
        low, high, cut = min(means) / 1.3, max(means) * 1.3, False
    else:
        low, high, cut = charts.axis_range(low, high, core)
    x1 = max(xs) or 1.0

    def draw(size: charts.Size) -> str:
        axes = charts.Axes(size, 0.0, x1, low, high, logarithmic)
        both = [_marks(axes, c, axis) for c in curves]
        marks = "".join(  # bands first: no line lies under another solver's band
            f'<g class="s{i % COLOURS}">{pair[layer]}</g>'
            for layer in (0, 1)
            for i, pair in enumerate(both)
        )
        return axes.draw(marks, axis_title)

    notes = ["logarithmic scale"] if logarithmic else []
    if cut:
        notes.append("some values lie beyond the frame")
    caption = ". ".join(n[:1].upper() + n[1:] for n in notes)
    label = f"{say.title(figure)}, over {axis_title}"
    return (
        f"<figure>{charts.render_sizes(draw, charts.WIDE, label)}"
        f"<figcaption>Over {escape(axis_title)}. {escape(caption)}{'.' if caption else ''}</figcaption></figure>"
    )


def _bounds(curve: CurveFacts) -> list[float]:
    return [end for pair in curve["interval"] if pair is not None for end in pair]


def _marks(axes: charts.Axes, curve: CurveFacts, axis: Axis) -> tuple[str, str]:
    """(band, line) of one solver."""
    rows = [
        (float(x), mean, interval)
        for x, mean, interval in zip(curve[axis], curve["mean"], curve["interval"], strict=True)
        if math.isfinite(x) and abs(mean) < 1e150
    ]
    floor = axes.y0 if axes.log else -1e150
    banded = [(x, i) for x, _, i in rows if i is not None and abs(i[0]) + abs(i[1]) < 1e150]
    line = [(axes.x(x), axes.y(mean)) for x, mean, _ in rows]
    band = ""
    if len(banded) > 1:
        upper = [(axes.x(x), axes.y(max(i[1], floor))) for x, i in banded]
        lower = [(axes.x(x), axes.y(max(i[0], floor))) for x, i in banded]
        band = charts.svg_path(upper + lower[::-1], "band mark")
    if len(line) == 1:
        x, y = line[0]
        return band, f'<circle class="dot mark" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    return band, charts.svg_path(line, "line mark") if line else ""


def solver_names(facts: ComparisonFacts) -> list[str]:
    """The solvers' names, in order."""
    return [entry["name"] for entry in facts["solvers"]]
