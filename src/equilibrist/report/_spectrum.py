"""The spectrum of the game's Jacobian: eigenvalues beside the disc of stable steps, curvatures of the players."""

import math

import numpy as np
from numpy.typing import NDArray

from equilibrist.report._html import escape, fold, player_class, table
from equilibrist.report._record import CertificateRecord, Json, RunRecord, as_number, numbers
from equilibrist.report.charts import WIDE, Axes, Size, render_sizes, svg_path
from equilibrist.report.formatting import as_label, format_count, format_number
from equilibrist.report.plane import complex_plane

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
CLAIM = "stable"


def spectrum_section(record: RunRecord) -> str:
    """The section's body; "" where the audit has no eigenvalues."""
    certificate = record.audit.find(CLAIM) if record.audit else None
    values = eigenvalues_of(certificate) if certificate is not None else None
    if certificate is None or values is None or not shows_spectrum(certificate):
        return ""
    h, known = step_size_of(certificate)
    lead = (
        "Each dot is an eigenvalue of the game's Jacobian, a way in which the pair can move. To the right of the "
        "vertical line motion dies out, to the left of it, it grows; the further from the horizontal line, the more "
        "the players circle each other. Plain gradient steps settle down only where every dot lies inside the disc, "
        "whose radius is one over the step size: circling forces small steps."
    )
    figures = "".join(_planes(values, h, known, certificate))
    parts = [
        f'<p class="lead">{escape(lead)}</p>',
        f'<p class="gap">{escape(_reading(certificate))}</p>',
        _legend(h, known, bool(_sorted(values, None, certificate)[0].any())),
        f'<div class="charts">{figures}</div>',
        _numbers_table(certificate),
    ]
    curves = "".join(_densities(certificate))
    if curves:
        remarks = (
            "How the curvatures of each player's own loss are spread, and those of the Jacobian's symmetric part. "
            "Curvature left of zero is a direction in which a player alone could gain."
        )
        parts.append(
            fold(
                "Curvature of each player",
                f'<p class="note">{escape(remarks)}</p><div class="charts">{curves}</div>',
            )
        )
    return "".join(parts)


def eigenvalues_of(certificate: CertificateRecord) -> Complex | None:
    """The recorded eigenvalues [n], without those that are not finite."""
    rows = certificate.evidence.get("eigenvalues")
    if not isinstance(rows, list):
        return None
    pairs = [numbers(row) for row in rows]
    found = [complex(p[0], p[1]) for p in pairs if p is not None and p.size == 2]
    values = np.array(found, dtype=np.complex128)
    return values[np.isfinite(values) & (np.abs(values) < 1e150)]


def shows_spectrum(certificate: CertificateRecord) -> bool:
    """Whether there are eigenvalues to draw."""
    values = eigenvalues_of(certificate)
    return values is not None and values.size > 0


def step_size_of(certificate: CertificateRecord) -> tuple[float | None, bool]:
    """(step size of the disc, whether it is the one in use: else the largest stable one). None: no disc can be
    drawn, as where players' steps differ, which scales J."""
    steps = certificate.evidence.get("steps")
    if isinstance(steps, dict):
        sizes = steps.get("sizes")
        h = as_number(steps.get("h"))
        even = isinstance(sizes, dict) and len({as_number(v) for v in sizes.values()}) == 1
        if even and h is not None and 1e-150 < h < 1e150:
            return h, True
        return None, False
    limit = certificate.number("h_max")
    if limit is None or not 1e-150 < limit < 1e150:
        return None, False
    return limit, False


def _reading(certificate: CertificateRecord) -> str:
    """The numbers in sentences: rotation, steps, what consensus would change."""
    found, remarks = certificate.evidence, []
    q = certificate.number("q")
    if "q" in found:
        if q is None:
            remarks.append("Some motion turns without dying out at all.")
        else:
            bound = "at least " if found.get("q_is") == "a lower bound" else ""
            remarks.append(
                f"The motion that circles most turns {bound}{format_number(q)} times as fast as it dies out or grows"
                " (rotation q)."
                if q >= 0.005
                else "No motion circles."
            )
    limit = certificate.number("h_max")
    if limit is not None:
        bound = "at most " if found.get("h_max_is") == "an upper bound" else ""
        remarks.append(
            f"The largest stable step of plain gradient descent is {bound}{format_number(limit)}."
            if limit > 0
            else "By these eigenvalues no step size of plain gradient descent is stable."
        )
    steps = found.get("steps")
    if isinstance(steps, dict) and (h := as_number(steps.get("h"))) is not None:
        outside = as_number(steps.get("outside"))
        if outside is not None:
            where = "all lie inside" if outside == 0 else f"{format_number(outside)} lie outside of"
            remarks.append(
                f"Of the eigenvalues found, {where} the disc of the step in use, {format_number(h)}."
            )
        elif steps.get("why_not"):
            remarks.append(
                f"The step in use, {format_number(h)}, was not judged: {steps['why_not']}."
            )
    return " ".join(remarks)


def _legend(h: float | None, known: bool, zeros: bool) -> str:
    items = ['<li><b class="key in"></b>eigenvalues</li>']
    if zeros:
        items.append('<li><b class="key still"></b>zero within the tolerance: nothing pulls</li>')
    if h is not None:
        items.append('<li><b class="key out"></b>outside of the disc, or left of zero</li>')
        of = (
            f"the step in use, {format_number(h)}"
            if known
            else f"the largest stable step, {format_number(h)}"
        )
        items.append(f'<li><b class="key disc"></b>disc of {escape(of)}</li>')
    else:
        items.append('<li><b class="key out"></b>left of zero: it grows</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _planes(
    values: Complex, h: float | None, known: bool, certificate: CertificateRecord
) -> list[str]:
    """Pictures of all eigenvalues, and of those near the origin where some are far larger."""
    zero, bad = _sorted(values, h if known else None, certificate)
    series = ((values[zero], "still"), (values[~bad & ~zero], "plain"), (values[bad], "bad"))
    size = np.abs(values)
    largest = float(size.max())
    frames = [("All that were found", _frame(values))]
    inner = float(np.quantile(size[size > 1e-9 * largest], 0.5)) if largest > 0 else 0.0
    if inner > 0 and largest > 8 * inner:
        frames.append(("Near zero", _frame(values[size <= 2 * inner])))
    figures = []
    for title, frame in frames:
        a, b, c, d = frame
        inside = (values.real >= a) & (values.real <= b) & (values.imag >= c) & (values.imag <= d)
        seen = int(inside.sum())
        alt = (
            f"{seen} eigenvalues in the complex plane, {int((bad & inside).sum())} of them unstable"
        )
        picture = complex_plane(frame, series, h, alt)
        figures.append(
            f"<figure><h4>{escape(title)}</h4>{picture}"
            f"<figcaption>{escape(_caption(seen, certificate))}</figcaption></figure>"
        )
    return figures


def _sorted(
    values: Complex, h: float | None, certificate: CertificateRecord
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(which count as zero, which are unstable): within the tolerance; left of it, or outside of the disc of the
    step in use. (At the largest stable step an eigenvalue lies on the disc's edge: only a step in use judges.)"""
    limit = certificate.limit
    limit = limit if limit is not None and 0 <= limit < 1e150 else 0.0
    zero = np.abs(values) <= limit
    bad = values.real < -limit
    if h is not None:
        bad |= np.abs(1 - h * values) > 1 + 1e-9
    return zero, bad & ~zero


def _caption(seen: int, certificate: CertificateRecord) -> str:
    n = certificate.number("parameters")
    of = f" of {format_count(int(n))}" if n is not None and math.isfinite(n) else ""
    how = "" if certificate.evidence.get("complete") is True else ": the outermost that converged"
    return f"{format_count(seen)}{of} eigenvalues{how}."


def _frame(values: Complex) -> tuple[float, float, float, float]:
    """A square that holds the origin and the values, symmetric about the real axis."""
    low, high = min(0.0, float(values.real.min())), max(0.0, float(values.real.max()))
    side = max(high - low, 2 * float(np.abs(values.imag).max())) * 1.16 or 1.0
    middle = (low + high) / 2
    return middle - side / 2, middle + side / 2, -side / 2, side / 2


def _numbers_table(certificate: CertificateRecord) -> str:
    """Largest stable step and rotation: of plain steps, and as forecast with consensus."""
    rows = []
    for key, name in (
        ("plain", "Plain gradient steps"),
        ("consensus", "With consensus (forecast)"),
    ):
        part = certificate.evidence.get(key)
        if not isinstance(part, dict):
            continue
        gamma = as_number(part.get("gamma"))
        if key == "consensus" and gamma is not None:
            name = f"With consensus, gamma {format_number(gamma)} (forecast)"
        limit, q = as_number(part.get("h_max")), as_number(part.get("q"))
        shown = "none" if limit is not None and limit <= 0 else format_number(limit)
        turns = "infinite" if q is None else format_number(q)
        rows.append((name, str(part.get("how") or ""), shown, turns))
    head = ("Steps", "How it is known", "Largest stable step", "Rotation q")
    return table(head, rows, (2, 3)) if rows else ""


# --- curvatures -------------------------------------------------------------------------------


def _densities(certificate: CertificateRecord) -> list[str]:
    parts = certificate.evidence.get("densities")
    figures = []
    for name, part in parts.items() if isinstance(parts, dict) else ():
        if isinstance(part, dict) and (figure := _density(str(name), part)):
            figures.append(figure)
    return figures


def _density(name: str, part: Json) -> str:
    at, height = numbers(part.get("at")), numbers(part.get("density"))
    if at is None or height is None or at.size != height.size or at.size < 2:
        return ""
    sound = np.isfinite(at) & np.isfinite(height) & (np.abs(at) < 1e150) & (height < 1e150)
    at, height = at[sound], height[sound]
    if at.size < 2 or not height.max() > 0:
        return ""
    title = "Symmetric part of J" if name == "symmetric" else as_label(name)
    ends = f"{_end(part.get('lowest'))} to {_end(part.get('highest'))}"
    how = "exact" if part.get("exact") is True else "estimated from random directions"
    alt = f"Density of the curvatures of {title}, from {ends}"
    # Densities of networks span many powers of ten: the root shows a tail beside a peak.
    tall = np.sqrt(np.clip(height, 0, None))
    tall = tall / tall.max()

    def draw(size: Size) -> str:
        axes = Axes(size, float(at.min()), float(at.max()), 0.0, 1.06, left=14, top=10)
        points = [(axes.x(float(a)), axes.y(float(b))) for a, b in zip(at, tall, strict=True)]
        floor = [(points[-1][0], axes.height), (points[0][0], axes.height)]
        marks = svg_path([*points, *floor], f"band {player_class(name)}")
        marks += svg_path(points, f"line {player_class(name)}")
        if axes.x0 <= 0 <= axes.x1:
            marks += svg_path([(axes.x(0.0), 0), (axes.x(0.0), axes.height)], "tolerance")
        return axes.draw(marks, "curvature", at_y=())

    caption = f"From {ends}, {how}. Height: the density, on a root scale."
    return (
        f'<figure><h4><span class="swatch {player_class(name)}"></span>{escape(title)}</h4>'
        f"{render_sizes(draw, WIDE, alt)}<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _end(value: object) -> str:
    found = numbers(value)
    return "an unknown end" if found is None or not found.size else format_number(float(found[0]))
