"""Lambda on paper: its axis from Stackelberg to Nash, and lambda* drawn on it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from equilibrist.report.charts import SLIM, Size, render_sizes, svg_path, svg_text
from equilibrist.report.formatting import format_number


@dataclass(frozen=True)
class LambdaAxis:
    """Lambda on a logarithmic axis, with 0 (Stackelberg) before its first and infinity (Nash) behind its last."""

    first: float
    last: float

    @property
    def gap(self) -> float:
        """Distance of either end from its neighbour, in powers of ten."""
        return max(0.7, 0.13 * (math.log10(self.last) - math.log10(self.first)))

    def at(self, lam: float) -> float:
        """The place of lambda, in powers of ten."""
        if lam <= 0:
            return math.log10(self.first) - self.gap
        if math.isinf(lam):
            return math.log10(self.last) + self.gap
        low, high = self.at(0.0), self.at(math.inf)
        return min(max(math.log10(lam), low), high)

    @property
    def span(self) -> tuple[float, float]:
        """The frame's ends: a little room beside 0 and infinity."""
        low, high = self.at(0.0), self.at(math.inf)
        room = 0.05 * (high - low)
        return low - room, high + room

    def labels(self, width: float) -> list[tuple[float, str]]:
        """0, as many powers of ten as fit into an axis of so many pixels, infinity."""
        room = 52 * (self.span[1] - self.span[0]) / width
        low, high = math.log10(self.first), math.log10(self.last)
        powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
        every = max(1, math.ceil(room))
        middle = [
            (float(p), format_number(10.0**p))
            for p in powers
            if p % every == 0 and min(p - self.at(0.0), self.at(math.inf) - p) >= 0.75 * room
        ]
        return [(self.at(0.0), "0"), *middle, (self.at(math.inf), "∞")]


def axis_through(values: Sequence[float]) -> LambdaAxis:
    """An axis that shows these values, and at least those from 1e-3 to 1e3."""
    sound = [v for v in values if 1e-150 < v < 1e150]
    return LambdaAxis(min([1e-3, *sound]), max([1e3, *sound]))


def scale_chart(low: float, high: float, tone: str, alt: str) -> str:
    """lambda* between Stackelberg and Nash: where the pair holds, where it is open, where it is lost."""
    axis = axis_through((low / 2, low * 2, high / 2, high * 2))

    def draw(size: Size) -> str:
        left, right, line = 10.0, 10.0, 30.0
        start, stop = axis.span

        def x(lam: float) -> float:
            return left + (size.width - left - right) * (axis.at(lam) - start) / (stop - start)

        ends = x(0.0), x(math.inf)
        parts = [svg_path([(ends[0], line), (ends[1], line)], "grid")]
        if low > 0:
            parts.append(svg_path([(ends[0], line), (x(low), line)], f"bar {tone}"))
        if high > low:
            parts.append(svg_path([(x(low), line), (x(high), line)], f"bar maybe {tone}"))
        for lam in {low, high} if math.isfinite(low) else set():
            if math.isfinite(lam):
                parts.append(svg_path([(x(lam), line - 9), (x(lam), line + 9)], f"bar edge {tone}"))
        if x(low) - ends[0] > 60:
            parts.append(svg_text((ends[0] + x(low)) / 2, line - 12, "holds", "middle"))
        if ends[1] - x(high) > 60:
            parts.append(svg_text((x(high) + ends[1]) / 2, line - 12, "lost", "middle"))
        for place, wording in axis.labels(size.width - left - right):
            at = left + (size.width - left - right) * (place - start) / (stop - start)
            parts.append(svg_path([(at, line + 3), (at, line + 7)], "zero"))
            parts.append(svg_text(at, line + 22, wording, "middle"))
        parts.append(svg_text(left, 76, "Stackelberg", "start", "axis"))
        parts.append(svg_text(size.width - right, 76, "Nash", "end", "axis"))
        return "".join(parts)

    return render_sizes(draw, SLIM, alt)


def format_lambda(value: float) -> str:
    """A value of lambda for a table."""
    if math.isinf(value):
        return "∞ (Nash)"
    return "0 (Stackelberg)" if value == 0 else format_number(value)
