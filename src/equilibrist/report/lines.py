"""Curves over one number, as hand-written SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equilibrist.certificates import Chart
from equilibrist.report._html import escape
from equilibrist.report.charts import WIDE, Axes, Size, render_sizes, svg_path
from equilibrist.report.formatting import format_number

Array = NDArray[np.float64]
LABEL = 40  # characters of an axis' label that fit on a phone


@dataclass(frozen=True)
class Line:
    """One curve: its name, its points, its colour (0 to 5)."""

    name: str
    x: Array
    y: Array
    colour: int


def line_chart(
    lines: Sequence[Line],
    x_words: str,
    words: str,
    marks: Sequence[float] = (),
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    xs = np.concatenate([line.x for line in lines])
    ys = np.concatenate([line.y for line in lines])
    shown = ys[np.isfinite(ys) & ((ys > 0) if log_y else True)]
    low, high = float(shown.min()), float(shown.max())
    pad = 0.06 * ((high - low) or 1.0)
    y0, y1 = (low / 1.5, high * 1.5) if log_y else (low - pad, high + pad)
    x0, x1 = float(xs.min()), float(xs.max())

    def at(x: float) -> float:
        return math.log10(x) if log_x else x

    def draw(size: Size) -> str:
        axes = Axes(size, at(x0), at(x1), y0, y1, log_y, left=64)
        drawn = ""
        for mark in marks:
            x = axes.x(at(mark))
            drawn += svg_path([(x, 0), (x, axes.height)], "tolerance")
        for line in lines:
            kept = np.isfinite(line.y) & ((line.y > 0) if log_y else True)
            points = [
                (axes.x(at(float(x))), axes.y(float(y)))
                for x, y in zip(line.x[kept], line.y[kept], strict=True)
            ]
            if len(points) > 1:
                drawn += svg_path(points, f"line c{line.colour}")
        return axes.draw(drawn, x_words, _powers(axes) if log_x else None)

    return render_sizes(draw, WIDE, words)


def _powers(axes: Axes) -> list[tuple[float, str]]:
    """Powers of ten along x, at their logarithms."""
    powers = range(math.ceil(axes.x0 - 1e-9), math.floor(axes.x1 + 1e-9) + 1)
    every = max(1, math.ceil(len(powers) / max(2, int(axes.width // 70))))
    return [(float(power), format_number(10.0**power)) for power in powers[::every]]


def legend(lines: Sequence[Line], dashed: str = "") -> str:
    items = "".join(f'<li><i class="c{line.colour}"></i>{escape(line.name)}</li>' for line in lines)
    if dashed:
        items += f'<li><i class="dash"></i>{escape(dashed)}</li>'
    return f'<ul class="legend">{items}</ul>'


def chart_picture(chart: Chart) -> str:
    """The picture of a claim, with its legend; "" where no line has two points to join."""
    x = np.array(chart.x, dtype=float)
    lines = [
        Line(name, x, np.array([math.nan if y is None else y for y in values], dtype=float), colour)
        for colour, (name, values) in enumerate(chart.lines.items())
    ]
    sound = [np.isfinite(line.y) & ((line.y > 0) if chart.log_y else True) for line in lines]
    if max(int(kept.sum()) for kept in sound) < 2 or not x.max() > x.min():
        return ""
    if chart.log_x and not x.min() > 0:
        return ""
    short = len(chart.x_label) <= LABEL
    picture = line_chart(
        lines,
        chart.x_label if short else "",
        chart.alt,
        chart.marks,
        chart.log_x,
        chart.log_y,
    )
    below = "" if short else f'<p class="small">Along x: {escape(chart.x_label)}</p>'
    return picture + below + (legend(lines) if len(lines) > 1 else "")
