"""Clouds of points in the plane, as hand-written SVG."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equilibrist.report.charts import (
    px,
)
from equilibrist.report.formatting import format_number

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """The part of the plane that all scatter plots of a run share."""

    x0: float
    y0: float
    side: float

    def __str__(self) -> str:
        x1, y1 = self.x0 + self.side, self.y0 + self.side
        return (
            f"{format_number(self.x0, 2)} to {format_number(x1, 2)} across, "
            f"{format_number(self.y0, 2)} to {format_number(y1, 2)} up"
        )


def window(clouds: Sequence[Array]) -> Window:
    """A square that holds the first cloud (the real points) with a margin, or else all of them."""
    sound = [c[np.isfinite(c).all(axis=1) & (np.abs(c) < 1e150).all(axis=1)] for c in clouds]
    first = next((c for c in sound if c.size), None)
    if first is None:
        return Window(-1.0, -1.0, 2.0)
    low, high = first.min(axis=0), first.max(axis=0)
    side = float((high - low).max()) * 1.3 or 2.0
    centre = (low + high) / 2
    return Window(float(centre[0]) - side / 2, float(centre[1]) - side / 2, side)


def scatter(
    points: Array,
    real: Array | None,
    frame: Window,
    words: str,
    kind: str = "made",
    most: int = 900,
) -> tuple[str, int]:
    """(picture, how many points fall outside it): points over the real ones, one square."""

    def dots(cloud: Array, kind: str) -> tuple[str, int]:
        thin = cloud[np.unique(np.linspace(0, len(cloud) - 1, min(most, len(cloud))).astype(int))]
        with np.errstate(over="ignore", invalid="ignore"):
            x = 300 * (thin[:, 0] - frame.x0) / frame.side
            y = 300 * (1 - (thin[:, 1] - frame.y0) / frame.side)
            far = (cloud - (frame.x0, frame.y0)) / frame.side
            outside = int((~((far >= 0) & (far <= 1)).all(axis=1)).sum())
            seen = (x >= 0) & (x <= 300) & (y >= 0) & (y <= 300)
        # A line of no length with round ends is a dot: the leanest there is.
        marks = "".join(f"M{px(a)} {px(b)}h0" for a, b in zip(x[seen], y[seen], strict=True))
        return f'<path class="dots {kind}" d="{marks}"/>', outside

    under = dots(real, "real")[0] if real is not None and len(real) else ""
    over, outside = dots(points, kind) if len(points) else ("", 0)
    svg = (
        f'<svg class="scatter" viewBox="0 0 300 300" role="img" aria-label="{html.escape(words)}">'
        f"{under}{over}</svg>"
    )
    return svg, outside
