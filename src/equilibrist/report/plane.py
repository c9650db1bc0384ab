"""The complex plane as hand-written SVG: eigenvalues, and the disc in which a step size is stable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from equilibrist.report.charts import Axes, Size, px, render_sizes, svg_path, svg_text

# Frames whose inside is square: 410 and 262 pixels.
SQUARE = (Size("wide", 480, 478, 15), Size("narrow", 332, 330, 11))


def axes_of(size: Size, window: Sequence[float]) -> Axes:
    """A frame for this window: least and largest first coordinate, then of the second."""
    x0, x1, y0, y1 = window
    return Axes(size, x0, x1, y0, y1, left=58, right=12, top=28, bottom=40)


def complex_plane(
    window: Sequence[float],
    series: Sequence[tuple[NDArray[np.complex128], str]],
    h: float | None,
    words: str,
) -> str:
    """Eigenvalues as dots, and the disc |1 - h l| < 1 of the step size."""

    def draw(size: Size) -> str:
        axes = axes_of(size, window)
        marks = disc(axes, h) if h is not None else ""
        marks += svg_path([(0, axes.y(0.0)), (axes.width, axes.y(0.0))], "zero")
        marks += svg_path([(axes.x(0.0), 0), (axes.x(0.0), axes.height)], "zero")
        for values, kind in series:
            dots = "".join(
                f"M{px(axes.x(float(z.real)))} {px(axes.y(float(z.imag)))}h0"
                for z in values
                if window[0] <= z.real <= window[1] and window[2] <= z.imag <= window[3]
            )
            marks += f'<path class="eigen {kind}" d="{dots}"/>' if dots else ""
        up = svg_text(axes.left, 16, "imaginary part", "middle", "axis")
        up = up.replace('text-anchor="middle"', 'text-anchor="start"')
        return up + axes.draw(marks, "real part")

    return render_sizes(draw, SQUARE, words)


def disc(axes: Axes, h: float) -> str:
    """The part of the disc of centre and radius 1/h that lies in the frame.

    Its edge is x = h y^2 / (1 +- sqrt(1 - h^2 y^2)): a form that is exact for any h, where the circle's own
    coordinates would be far outside of what a browser draws.
    """
    reach = 1 / h
    top, bottom = min(axes.y1, reach), max(axes.y0, -reach)
    if top <= bottom or axes.x1 <= 0 or axes.x0 >= 2 * reach:
        return ""
    ys = np.unique(
        np.concatenate(
            [np.linspace(bottom, top, 161), reach * np.sin(np.linspace(-np.pi / 2, np.pi / 2, 161))]
        )
    )
    ys = ys[(ys >= bottom) & (ys <= top)]
    root = np.sqrt(np.clip(1 - (h * ys) ** 2, 0, None))
    left, right = h * ys**2 / (1 + root), (1 + root) / h
    margin = 0.1 * (axes.x1 - axes.x0)
    left, right = (np.clip(side, axes.x0 - margin, axes.x1 + margin) for side in (left, right))
    edge = [(axes.x(float(x)), axes.y(float(y))) for x, y in zip(left, ys, strict=True)]
    edge += [
        (axes.x(float(x)), axes.y(float(y))) for x, y in zip(right[::-1], ys[::-1], strict=True)
    ]
    return svg_path(edge, "disc").replace('"/>', 'Z"/>')
