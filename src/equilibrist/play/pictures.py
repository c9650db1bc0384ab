"""Charts of the plane as hand-written SVG, with the report's means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from equilibrist.play.trajectories import DIVERGED, NONE
from equilibrist.report.charts import (
    BROAD,
    Axes,
    Size,
    px,
    render_sizes,
    svg_path,
    svg_text,
)
from equilibrist.report.plane import SQUARE, axes_of, complex_plane, disc

__all__ = [
    "SQUARE",
    "axes_of",
    "basin_class",
    "broad",
    "complex_plane",
    "curve",
    "disc",
    "distances",
    "plane",
    "point_mark",
    "squared",
]

Array = NDArray[np.float64]

CHOICES = 6  # colours of solvers and of basins
MARKS = {
    "local nash": "●",
    "local minimax": "■",
    "non-nash attractor": "◆",
    "saddle of the dynamics": "✕",
    "neither": "✚",
}
KIND_CLASSES = {kind: f"k{i}" for i, kind in enumerate(MARKS)}


def squared(window: Sequence[float]) -> tuple[float, float, float, float]:
    """The window with its shorter side extended, so that circles are round."""
    x0, x1, y0, y1 = window
    side = max(x1 - x0, y1 - y0)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - side / 2, x + side / 2, y - side / 2, y + side / 2


def arrows_at(window: Sequence[float], count: int) -> Array:
    """Centres of count x count cells [count^2, 2]."""
    x0, x1, y0, y1 = window
    middles = (np.arange(count) + 0.5) / count
    x, y = np.meshgrid(x0 + middles * (x1 - x0), y0 + middles * (y1 - y0))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def plane(
    window: Sequence[float],
    names: Sequence[str],
    fields: dict[int, Array],
    paths: Array,
    points: Sequence[tuple[Array, str]],
    colour: int,
    basins: NDArray[np.int64] | None,
    words: str,
) -> str:
    """One solver's picture: basins below, then the field, the trajectories, the stationary points.

    Args:
        window: least and largest first coordinate, then of the second.
        names: of the axes.
        fields: v at `arrows_at(window, count)` for each count that a size asks for.
        paths: trajectories [T, S, 2].
        points: (place, kind) of each stationary point.
        colour: the solver's number.
        basins: for each cell of a square grid, rows from below, the colour's number, `NONE` or `DIVERGED`.
    """

    def draw(size: Size) -> str:
        axes = axes_of(size, window)
        marks = _cells(axes, basins) if basins is not None else ""
        marks += _arrows(axes, arrows_at(window, size.bins), fields[size.bins], size.bins)
        for k in range(paths.shape[1]):
            marks += _trajectory(axes, paths[:, k], f"way s{colour % CHOICES}")
        for k in range(paths.shape[1]):
            x, y = axes.x(float(paths[0, k, 0])), axes.y(float(paths[0, k, 1]))
            marks += f'<circle class="start s{colour % CHOICES}" cx="{px(x)}" cy="{px(y)}" r="3"/>'
        for place, kind in points:
            marks += point_mark(axes.x(float(place[0])), axes.y(float(place[1])), kind)
        up = svg_text(axes.left, 16, names[1], "middle", "axis")
        return up + axes.draw(marks, names[0])

    return render_sizes(draw, SQUARE, words)


def point_mark(x: float, y: float, kind: str) -> str:
    """A stationary point: its shape says its kind, whatever colours the reader sees."""
    name = KIND_CLASSES[kind]
    at = f'cx="{px(x)}" cy="{px(y)}"'
    if kind == "local nash":
        return f'<circle class="mark {name}" {at} r="5.5"/>'
    corners = {
        "local minimax": "M{0} {2}H{1}V{3}H{0}Z",
        "non-nash attractor": "M{4} {2}L{1} {5}L{4} {3}L{0} {5}Z",
    }
    r = 5.0 if kind == "local minimax" else 6.5
    if kind in corners:
        d = corners[kind].format(
            px(x - r),
            px(x + r),
            px(y - r),
            px(y + r),
            px(x),
            px(y),
        )
        return f'<path class="mark {name}" d="{d}"/>'
    if kind == "neither":
        d = f"M{px(x - 6)} {px(y)}H{px(x + 6)}M{px(x)} {px(y - 6)}V{px(y + 6)}"
    else:
        d = f"M{px(x - 5)} {px(y - 5)}L{px(x + 5)} {px(y + 5)}M{px(x - 5)} {px(y + 5)}L{px(x + 5)} {px(y - 5)}"
    return f'<path class="halo" d="{d}"/><path class="cross {name}" d="{d}"/>'


def _trajectory(axes: Axes, path: Array, kind: str) -> str:
    """A line through the iterates, without those within 1.2 pixels of the last one drawn."""
    kept: list[tuple[float, float]] = []
    for x, y in path:
        at = axes.x(float(x)), axes.y(float(y))
        if not kept or math.dist(at, kept[-1]) >= 1.2:
            kept.append(at)
    return svg_path(kept, kind) if len(kept) > 1 else ""


def _arrows(axes: Axes, at: Array, v: Array, count: int) -> str:
    """-v, the direction of a gradient step. Length: the square root of the speed, relative to the fastest."""
    speed = np.linalg.norm(v, axis=1)
    sound = np.isfinite(speed) & (speed > 0)
    if not sound.any():
        return ""
    fastest = float(speed[sound].max())
    cell = axes.width / count
    parts = []
    for (x, y), (a, b), s in zip(at[sound], v[sound], speed[sound], strict=True):
        length = cell * (0.22 + 0.56 * (float(s) / fastest) ** 0.5)
        # Up is less in SVG: -v has the direction (-a, +b) there.
        dx, dy = -float(a / s), float(b / s)
        x1, y1 = axes.x(float(x)) + dx * length / 2, axes.y(float(y)) + dy * length / 2
        x0, y0 = x1 - dx * length, y1 - dy * length
        head = min(4.0, 0.45 * length)
        wings = [
            (x1 - head * (dx + s_ * 0.5 * -dy), y1 - head * (dy + s_ * 0.5 * dx)) for s_ in (1, -1)
        ]
        parts.append(
            f"M{px(x0)} {px(y0)}L{px(x1)} {px(y1)}M{px(wings[0][0])} {px(wings[0][1])}"
            f"L{px(x1)} {px(y1)}L{px(wings[1][0])} {px(wings[1][1])}"
        )
    return f'<path class="flow" d="{"".join(parts)}"/>'


def _cells(axes: Axes, basins: NDArray[np.int64]) -> str:
    """Cells of one colour as one path, runs of a row as one rectangle."""
    rows, columns = basins.shape
    w, h = axes.width / columns, axes.height / rows
    found: dict[int, list[str]] = {}
    for i in range(rows):
        j = 0
        while j < columns:
            end = j
            while end < columns and basins[i, end] == basins[i, j]:
                end += 1
            y = axes.height - (i + 1) * h
            run = f"M{px(j * w)} {px(y)}H{px(end * w)}V{px(y + h)}H{px(j * w)}Z"
            found.setdefault(int(basins[i, j]), []).append(run)
            j = end
    return "".join(
        f'<path class="basin {basin_class(kind)}" d="{"".join(runs)}"/>'
        for kind, runs in sorted(found.items())
        if kind != NONE
    )


def basin_class(kind: int) -> str:
    """The CSS class of a basin's colour."""
    return "gone" if kind == DIVERGED else f"b{kind % CHOICES}"


def distances(
    lines: Sequence[tuple[str, Array]], sizes: Sequence[Size], words: str
) -> tuple[str, str]:
    """(chart, note) of distance to the nearest stationary point over steps: of each solver the median over
    its starts [T], on a logarithmic axis."""
    values = np.concatenate([d for _, d in lines])
    shown = values[np.isfinite(values) & (values > 1e-14)]
    if not shown.size:
        return "", "Every iterate is at a stationary point throughout."
    low, high = float(shown.min()) / 1.5, min(float(shown.max()), 1e12) * 1.5
    steps = max(len(d) for _, d in lines) - 1

    def draw(size: Size) -> str:
        axes = Axes(size, 0.0, float(steps), low, high, True, left=72)
        marks = ""
        for i, (_, d) in enumerate(lines):
            at = [
                (axes.x(float(t)), axes.y(float(v)))
                for t, v in enumerate(np.clip(d, low / 2, high))
                if np.isfinite(v)
            ]
            every = max(1, len(at) // 400)
            marks += svg_path([*at[::every], at[-1]], f"line c{i % CHOICES}")
        return axes.draw(marks, "step")

    note = "Below 10⁻¹⁴ nothing is drawn." if (values <= 1e-14).any() else ""
    return render_sizes(draw, sizes, words), note


def broad() -> Sequence[Size]:
    """Sizes of a chart as wide as the page."""
    return BROAD


def curve(window: Sequence[float], x: Array, y: Array, upward: str, words: str) -> str:
    """One line y over x in a frame; `upward` says what y is."""

    def draw(size: Size) -> str:
        axes = axes_of(size, window)
        inside = window[0] <= 0 <= window[1]
        marks = svg_path([(axes.x(0.0), 0), (axes.x(0.0), axes.height)], "zero") if inside else ""
        at = [(axes.x(float(a)), axes.y(float(b))) for a, b in zip(x, y, strict=True)]
        up = svg_text(axes.left, 16, upward, "middle", "axis")
        up = up.replace('text-anchor="middle"', 'text-anchor="start"')
        return up + axes.draw(marks + svg_path(at, "line c0"), "eigenvalue")

    return render_sizes(draw, SQUARE, words)
