"""Charts as hand-written SVG: small, the same bytes every time, coloured by the page's CSS.

Each chart is drawn twice, wide and narrow, and CSS shows the one that fits, so that its text keeps
its size on a phone. No ids and no scripts are used: many charts share one page.
"""

import html
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equilibrist.report._record import Curve, Series
from equilibrist.report.formatting import format_fixed, format_number

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """A chart's size in CSS pixels; also how many points a line may have."""

    kind: str
    width: int
    height: int
    bins: int


WIDE = (Size("wide", 520, 270, 170), Size("narrow", 328, 220, 90))
BROAD = (Size("wide", 1000, 320, 300), Size("narrow", 328, 250, 90))
SLIM = (Size("wide", 460, 92, 0), Size("narrow", 296, 96, 0))


def render_sizes(draw: Callable[[Size], str], sizes: Sequence[Size], words: str) -> str:
    """The chart in both sizes; `words` is what a screen reader says instead."""
    label = html.escape(words)
    return "".join(
        f'<svg class="chart {size.kind}" viewBox="0 0 {size.width} {size.height}" role="img" '
        f'aria-label="{label}">{draw(size)}</svg>'
        for size in sizes
    )


def px(value: float) -> str:
    """A coordinate: one decimal, kept within what browsers draw exactly."""
    text = f"{min(max(value, -20000.0), 20000.0):.1f}"
    return text.removesuffix(".0")


def svg_text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text{name} x="{px(x)}" y="{px(y)}" text-anchor="{anchor}">{html.escape(words)}</text>'


def svg_path(points: Sequence[tuple[float, float]], kind: str) -> str:
    steps = " ".join(f"{px(x)} {px(y)}" for x, y in points)
    return f'<path class="{kind}" d="M{steps}"/>'


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers in [low, high], about `most` of them."""
    span = high - low
    if not math.isfinite(span) or span < 1e-300:
        return [low]
    unit = 10.0 ** math.floor(math.log10(span / most))
    step = next(unit * m for m in (1, 2, 5, 10, 20) if span / (unit * m) <= most or m == 20)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [0.0 if i == 0 else i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / most))
    return [10.0**power for power in range(first, last + 1, every)]


@dataclass(frozen=True)
class Axes:
    """A frame with scales. Lines are drawn in a nested svg, which clips them to the frame."""

    size: Size
    x0: float
    x1: float
    y0: float
    y1: float
    log: bool = False
    left: float = 58
    right: float = 12
    top: float = 10
    bottom: float = 40

    @property
    def width(self) -> float:
        return self.size.width - self.left - self.right

    @property
    def height(self) -> float:
        return self.size.height - self.top - self.bottom

    def x(self, value: float) -> float:
        return self.width * (value - self.x0) / ((self.x1 - self.x0) or 1.0)

    def y(self, value: float) -> float:
        low, high, at = self.y0, self.y1, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(value)
        return self.height * (1 - (at - low) / ((high - low) or 1.0))

    def _levels(self) -> list[float]:
        most = max(3, int(self.height // 38))
        levels = _log_ticks(self.y0, self.y1, most) if self.log else []
        if len(levels) >= 2:
            return levels
        # Less than two powers of ten in sight: round numbers say more.
        return [v for v in ticks(self.y0, self.y1, most) if not self.log or v > 0]

    def draw(
        self,
        marks: str,
        x_words: str,
        at_x: Sequence[tuple[float, str]] | None = None,
        at_y: Sequence[tuple[float, str]] | None = None,
    ) -> str:
        """The frame with its labels around `marks`; `at_x` and `at_y` are labels of an axis, by place (default: round
        numbers)."""
        parts = []
        if at_y is None:
            at_y = labelled(self._levels())
        for value, label in at_y:
            at = self.top + self.y(value)
            kind = "zero" if value == 0 else "grid"
            line = [(self.left, at), (self.left + self.width, at)]
            parts.append(svg_path(line, kind))
            parts.append(svg_text(self.left - 8, at + 4, label, "end"))
        if at_x is None:
            even = ticks(self.x0, self.x1, max(3, int(self.width // 90)))
            at_x = labelled(even)
        for value, label in at_x:
            at = self.left + self.x(value)
            anchor = "end" if at > self.size.width - 24 else "middle"
            parts.append(svg_text(at, self.size.height - self.bottom + 18, label, anchor))
        middle = self.left + self.width / 2
        parts.append(svg_text(middle, self.size.height - 4, x_words, "middle", "axis"))
        parts.append(
            f'<svg x="{px(self.left)}" y="{px(self.top)}" width="{px(self.width)}" '
            f'height="{px(self.height)}" overflow="hidden">{marks}</svg>'
        )
        return "".join(parts)


def labelled(values: Sequence[float]) -> list[tuple[float, str]]:
    """Places on an axis with their labels: as many digits as tell neighbours apart, the same for all."""
    gaps = [b - a for a, b in itertools.pairwise(sorted(values)) if b > a]
    least, most = min(gaps, default=0.0), max(map(abs, values), default=0.0)
    even = not gaps or max(gaps) <= 1.5 * least  # powers of ten are not
    if even and least >= 1e-4 and most < 1e6:
        decimals = max(0, math.ceil(-math.log10(least) - 1e-9))
        return [(v, format_fixed(v, decimals) if v else "0") for v in values]
    labels = [format_number(v) for v in values]
    for digits in range(4, 16):
        if len(set(labels)) == len(values):
            break
        labels = [format_number(v, digits) for v in values]
    return list(zip(values, labels, strict=True))


def axis_range(low: float, high: float, core: tuple[float, float]) -> tuple[float, float, bool]:
    """Padded limits; a few wild values are cut off where they would flatten all others."""
    cut = False
    spread = core[1] - core[0]
    if spread > 0 and math.isfinite(spread) and not high - low <= 15 * spread:
        new_low, new_high = max(low, core[0] - spread), min(high, core[1] + spread)
        cut = new_low > low or new_high < high
        low, high = new_low, new_high
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        pad = abs(high) * 0.1 or 1.0
    else:
        pad = 0.06 * (high - low)
    return low - pad, high + pad, cut


def training_chart(series: Series, player: str, words: str, log: bool) -> tuple[str, str]:
    """(chart, note) of one number over training.

    Many points become a mean line within its minimum and maximum. The note says what the chart
    leaves out, and is empty where it leaves out nothing.
    """
    sound = np.isfinite(series.values)
    steps, values = series.steps[sound], series.values[sound]
    notes = []
    if not values.size:
        return "", "No finite value was logged."
    # Beyond this, differences overflow. Nobody reads a loss of 1e300 off a chart.
    wild = np.abs(values) > 1e150
    if wild.any():
        notes.append(f"{int(wild.sum())} logged values exceed 10¹⁵⁰ and are not drawn")
        steps, values = steps[~wild], values[~wild]
        if not values.size:
            return "", notes[0] + "."
    logarithmic = bool(log and values.min() > 0 and values.max() > 50 * values.min())
    if logarithmic:
        low, high, cut = values.min() / 1.3, values.max() * 1.3, False
    else:
        core = (float(np.quantile(values, 0.02)), float(np.quantile(values, 0.98)))
        low, high, cut = axis_range(float(values.min()), float(values.max()), core)
    if logarithmic:
        notes.append("logarithmic scale")
    if cut:
        notes.append(
            f"values run from {format_number(float(values.min()))} to {format_number(float(values.max()))}, "
            "beyond the frame"
        )
    lost = int((~sound).sum())
    if lost:
        notes.append(f"{lost} of {sound.size} logged values are not finite")
    banded = steps.size > min(size.bins for size in WIDE)
    if banded:
        notes.append("line: mean, band: smallest to largest")
    x1 = float(series.steps[-1])
    x0 = 0.0 if x1 > 0 else -1.0
    last_sound = float(series.steps[sound][-1])

    def draw(size: Size) -> str:
        axes = Axes(size, x0, x1, low, high, logarithmic)
        marks = _envelope(axes, steps, values, player)
        if not sound[-1]:
            at = axes.x(last_sound)
            marks += f'<rect class="lost" x="{px(at)}" y="0" width="{px(axes.width - at)}" '
            marks += f'height="{px(axes.height)}"/>'
        return axes.draw(marks, "training step")

    return render_sizes(draw, WIDE, words), (_sentence(notes))


def _sentence(notes: list[str]) -> str:
    text = "; ".join(notes)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _envelope(axes: Axes, steps: Array, values: Array, player: str) -> str:
    if values.size == 1:
        at = axes.x(float(steps[0])), axes.y(float(values[0]))
        return f'<circle class="dot {player}" cx="{px(at[0])}" cy="{px(at[1])}" r="3.5"/>'
    if values.size <= axes.size.bins:
        return svg_path(_points(axes, steps, values), f"line {player}")
    edges = np.linspace(0, values.size, axes.size.bins + 1).astype(int)
    pieces = [slice(a, b) for a, b in itertools.pairwise(edges)]
    centre = np.array([steps[piece].mean() for piece in pieces])
    low = np.array([values[piece].min() for piece in pieces])
    mean = np.array([values[piece].mean() for piece in pieces])
    high = np.array([values[piece].max() for piece in pieces])
    band = _points(axes, centre, high) + _points(axes, centre, low)[::-1]
    return svg_path(band, f"band {player}") + svg_path(
        _points(axes, centre, mean), f"line {player}"
    )


def _points(axes: Axes, xs: Array, ys: Array) -> list[tuple[float, float]]:
    return [(axes.x(float(x)), axes.y(float(y))) for x, y in zip(xs, ys, strict=True)]


def gain_chart(
    curves: list[Curve],
    chosen: tuple[int, float | None] | None,
    tolerance: float | None,
    player: str,
    words: str,
) -> tuple[str, str]:
    """(chart, note) of a Nash check: the gain of each start, the chosen one marked."""
    gains = np.concatenate([c.gain for c in curves]) if curves else np.array([])
    steps = np.concatenate([c.steps for c in curves]) if curves else np.array([])
    shown = np.isfinite(gains) & np.isfinite(steps) & (np.abs(gains) < 1e150)
    if not shown.any():
        return "", "No finite gain was recorded."
    notes = []
    reference = [0.0] + ([tolerance] if tolerance is not None and math.isfinite(tolerance) else [])
    low, high = min(float(gains[shown].min()), 0.0), max(float(gains[shown].max()), *reference)
    # A start that was disturbed badly begins far below zero; what matters is what lies above it.
    if high > 0 and low < -1.2 * high:
        notes.append(f"curves below the frame are cut (down to {format_number(low)})")
        low = -1.2 * high
    pad = 0.07 * (high - low) or 1.0
    low, high = low - pad, high + pad
    x1 = max(float(steps[shown].max()), 1.0)
    broken = int((~shown).sum())
    if broken:
        notes.append(f"{broken} recorded gains are not finite")

    def draw(size: Size) -> str:
        # A little room at the end, so that the chosen point there is not cut in half.
        axes = Axes(size, 0.0, 1.015 * x1, low, high)
        marks = ""
        if tolerance is not None and math.isfinite(tolerance):
            at = axes.y(tolerance)
            marks += svg_path([(0, at), (axes.width, at)], "tolerance")
        picked = chosen[0] if chosen else None
        for curve in sorted(curves, key=lambda c: c.start == picked):
            marks += _curve(axes, curve, f"line {player}" if curve.start == picked else "line rest")
        mark = _chosen_point(curves, chosen)
        if mark is not None:
            x, y = axes.x(mark[0]), axes.y(mark[1])
            marks += f'<circle class="dot {player}" cx="{px(x)}" cy="{px(y)}" r="5"/>'
        return axes.draw(marks, "optimisation step of the lone player")

    return render_sizes(draw, BROAD, words), _sentence(notes)


def _chosen_point(
    curves: list[Curve], chosen: tuple[int, float | None] | None
) -> tuple[float, float] | None:
    if chosen is None or chosen[1] is None:
        return None
    for curve in curves:
        if curve.start == chosen[0]:
            at = np.flatnonzero((curve.steps == chosen[1]) & np.isfinite(curve.gain))
            if at.size:
                return float(curve.steps[at[0]]), float(curve.gain[at[0]])
    return None


def _curve(axes: Axes, curve: Curve, kind: str) -> str:
    sound = np.isfinite(curve.steps) & np.isfinite(curve.gain) & (np.abs(curve.gain) < 1e150)
    steps, gain = curve.steps[sound], curve.gain[sound]
    if steps.size > 2 * axes.size.bins:  # evenly thinned; the ends stay
        keep = np.unique(np.linspace(0, steps.size - 1, 2 * axes.size.bins).astype(int))
        steps, gain = steps[keep], gain[keep]
    return svg_path(_points(axes, steps, gain), kind) if steps.size > 1 else ""


def interval_chart(
    value: float, interval: tuple[float, float], tolerance: float | None, tone: str, words: str
) -> str:
    """An estimate with its interval on a line, beside what counts as zero."""
    marks = [0.0, value, *interval] + ([tolerance] if tolerance is not None else [])
    if not all(map(math.isfinite, marks)) or max(map(abs, marks)) > 1e150:
        return ""
    low, high = min(marks), max(marks)
    pad = 0.08 * (high - low) or 1.0
    low, high = low - pad, high + pad

    def draw(size: Size) -> str:
        left, right, line = 8.0, 8.0, 40.0

        def x(at: float) -> float:
            return left + (size.width - left - right) * (at - low) / (high - low)

        parts = []
        if tolerance is not None and tolerance > 0:
            edge = x(tolerance)
            parts.append(
                f'<rect class="within" x="{px(left)}" y="18" width="{px(edge - left)}" '
                f'height="44"/>'
            )
            parts.append(svg_path([(edge, 18), (edge, 62)], "tolerance"))
            far = edge > size.width * 0.6
            at = edge if far else max(edge, left)
            parts.append(svg_text(at, 13, "tolerance", "end" if far else "start"))
        parts.append(svg_path([(left, line), (size.width - right, line)], "grid"))
        parts.append(svg_path([(x(0.0), line - 7), (x(0.0), line + 7)], "zero"))
        ends = x(interval[0]), x(interval[1])
        parts.append(svg_path([(ends[0], line), (max(ends[1], ends[0] + 1), line)], f"bar {tone}"))
        parts.append(f'<circle class="dot {tone}" cx="{px(x(value))}" cy="{px(line)}" r="5.5"/>')
        for at in ticks(low, high, 5):
            place = x(at)
            anchor = "start" if place < 20 else "end" if place > size.width - 20 else "middle"
            parts.append(svg_text(place, 84, format_number(at), anchor))
        return "".join(parts)

    return render_sizes(draw, SLIM, words)
