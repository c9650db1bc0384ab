"""The scale curves as one picture: a panel a curve, seconds above and memory below, both axes logarithmic."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from bench_rows import Curve

PANEL, HEIGHT, GAP, LEFT, TOP = 210, 120, 24, 56, 44
TIME, MEMORY, INK, FRAME = "#1d4ed8", "#b45309", "#374151", "#d1d5db"


def picture(curves: Sequence[Curve]) -> str:
    """The picture as SVG, four panels a row."""
    across = min(4, len(curves))
    down = -(-len(curves) // across)
    tall = TOP + 2 * (HEIGHT + GAP) + 30
    wide, high = across * (PANEL + LEFT) + GAP, down * tall
    panels = "".join(
        f'<g transform="translate({(k % across) * (PANEL + LEFT) + LEFT} {(k // across) * tall})">{_panel(curve)}</g>'
        for k, curve in enumerate(curves)
    )
    words = "; ".join(
        f"{c.name}: seconds grow as x to the {c.time_power:.2f}, memory as x to the {c.memory_power:.2f}"
        for c in curves
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" font-family="sans-serif" '
        f'font-size="11" role="img" aria-label="{html.escape(words)}"><rect width="100%" height="100%" fill="#fff"/>'
        f"{panels}</svg>\n"
    )


def _panel(curve: Curve) -> str:
    mebibytes = [held / 2**20 for held in curve.bytes]
    title = f'<text y="16" font-weight="bold" fill="{INK}">{html.escape(curve.name)}</text>'
    parts = [title]
    for k, (values, unit, power, colour) in enumerate(
        (
            (curve.seconds, "s", curve.time_power, TIME),
            (mebibytes, "MiB", curve.memory_power, MEMORY),
        )
    ):
        y = TOP + k * (HEIGHT + GAP)
        grows = f"x^{power:.2f}" if power else "constant"
        label = f'<text y="-6" fill="{colour}">{unit}, {grows}</text>'
        parts.append(
            f'<g transform="translate(0 {y})">{label}{_lines(curve.x, values, colour)}</g>'
        )
    below = TOP + 2 * (HEIGHT + GAP) + 8
    ends = (
        (0, "start", curve.x[0]),
        (PANEL, "end", curve.x[-1]),
    )
    parts += [
        f'<text x="{x}" y="{below - 12}" text-anchor="{anchor}" fill="{INK}">{value:,}</text>'
        for x, anchor, value in ends
    ]
    parts.append(
        f'<text x="{PANEL / 2}" y="{below - 12}" text-anchor="middle" fill="{INK}">{html.escape(curve.axis)}</text>'
    )
    return "".join(parts)


def _lines(x: Sequence[float], y: Sequence[float], colour: str) -> str:
    low, high = math.floor(math.log10(min(y))), math.ceil(math.log10(max(y)))
    high += low == high
    first, last = math.log10(x[0]), math.log10(x[-1])

    def up(value: float) -> float:
        return HEIGHT * (1 - (math.log10(value) - low) / (high - low))

    points = [
        (PANEL * (math.log10(a) - first) / (last - first), up(b)) for a, b in zip(x, y, strict=True)
    ]
    grid = "".join(
        f'<path d="M0 {up(10.0**k):.1f}H{PANEL}" stroke="{FRAME}"/><text x="-6" y="{up(10.0**k) + 4:.1f}" '
        f'text-anchor="end" fill="{INK}">{10.0**k:g}</text>'
        for k in range(low, high + 1)
    )
    path = "M" + " ".join(f"{a:.1f} {b:.1f}" for a, b in points)
    dots = "".join(
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour}"/>' for a, b in points
    )
    return f'{grid}<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>{dots}'
