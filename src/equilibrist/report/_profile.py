"""The equilibrium profile: what the generator gains at each lambda, from Stackelberg to Nash."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equilibrist.report._claims import interval_name
from equilibrist.report._html import escape, fold, table
from equilibrist.report._lambda_axis import LambdaAxis, axis_through, format_lambda
from equilibrist.report._measures import lambda_words
from equilibrist.report._record import CertificateRecord, RunRecord, as_number, numbers
from equilibrist.report.charts import BROAD, Axes, Size, px, render_sizes, svg_path, svg_text
from equilibrist.report.formatting import (
    format_estimate,
    format_number,
    format_tolerance,
    with_unit,
)

Array = NDArray[np.float64]
CLAIM = "profile"


@dataclass(frozen=True)
class Profile:
    """r(lambda) as recorded: lambda rising from 0 to infinity, r isotonic with its interval, the raw estimates,
    what the critic gains within reach, and the sum of both (Definition 1). Where the searches failed nothing was
    measured: raw and sum are NaN there."""

    lam: Array
    r: Array
    low: Array
    high: Array
    raw: Array
    slack: Array
    both: Array


def profile_of(certificate: CertificateRecord) -> Profile | None:
    """The recorded profile; None where it is not whole."""
    lam = numbers(certificate.evidence.get("lambda"))
    if lam is None or not lam.size:
        return None
    parts = []
    for key in ("r", "low", "high", "raw", "slack_within_reach", "definition_1"):
        part = numbers(certificate.evidence.get(key))
        parts.append(np.full(lam.size, math.nan) if part is None or part.size != lam.size else part)
    failed = _failed(certificate, lam)
    parts[3][failed] = parts[5][failed] = math.nan
    order = np.argsort(np.where(np.isnan(lam), math.inf, lam), kind="stable")
    order = order[~np.isnan(lam[order]) & (lam[order] >= 0)]
    found = Profile(lam[order], *(part[order] for part in parts))
    return found if np.isfinite(found.r).sum() >= 2 else None


def _failed(certificate: CertificateRecord, lam: Array) -> NDArray[np.bool_]:
    trials = certificate.evidence.get("trials")
    bad = np.zeros(lam.size, dtype=bool)
    if isinstance(trials, list) and len(trials) == lam.size:
        for k, trial in enumerate(trials):
            bad[k] = isinstance(trial, dict) and bool(trial.get("failed"))
    return bad


def profile_section(record: RunRecord) -> str:
    """The section's body; "" where the audit has no profile."""
    certificate = record.audit.find(CLAIM) if record.audit else None
    if certificate is None:
        return ""
    lead = (
        "The horizontal axis is λ, the price that the critic pays for answering a move of the generator. On the "
        "left it may answer freely (Stackelberg), on the right not at all (Nash). The curve r(λ) is what the best "
        "generator found still gains. Where it leaves the tolerance is λ*: the further to the right, the less "
        "the pair depends on a critic that keeps up."
    )
    found = profile_of(certificate)
    if found is None:
        return f'<p class="lead">{escape(lead)}</p><p>{escape(certificate.summary)}</p>'
    limit = certificate.limit
    star = _star(certificate)
    alt = f"What the generator gains at {found.lam.size} values of lambda. {certificate.summary}"
    chart, note = _chart(found, limit, star, alt)
    caption = (
        f"What the generator gains{', in ' + certificate.unit if certificate.unit else ''}. {note}"
    )
    return (
        f'<p class="lead">{escape(lead)}</p>{_legend(certificate, star)}'
        f"<figure>{chart}<figcaption>{escape(caption.strip())}</figcaption></figure>"
        f'<p class="gap">{escape(certificate.summary)} {escape(_slack(certificate))}</p>'
        + fold("The numbers", _numbers_table(certificate, found))
    )


def _star(certificate: CertificateRecord) -> tuple[float, float] | None:
    ends = certificate.ends("lambda_star")
    return ends if ends is not None and not any(map(math.isnan, ends)) else None


def _slack(certificate: CertificateRecord) -> str:
    slack = certificate.number("slack")
    interval = certificate.ends("slack_interval")
    limit = certificate.limit
    if slack is None or not math.isfinite(slack):
        return ""
    if limit is not None and abs(slack) < 1e-6 * limit:
        return "So the critic answers best: it has no slack to speak of."
    value, low, high = format_estimate(slack, interval)
    between = f" ({interval_name(certificate)} {low} to {high})" if interval else ""
    return (
        f"That slack, {with_unit(value, certificate.unit)}{between}, is what the critic itself still gains against the "
        "generator at rest. It is part of r(λ) with the opposite sign, which is why r may lie below zero on the left."
    )


def _legend(certificate: CertificateRecord, star: tuple[float, float] | None) -> str:
    items = [
        '<li><i class="generator"></i>r(λ), made monotone; the band is its '
        f"{escape(interval_name(certificate))}</li>",
        '<li><i class="point"></i>each estimate as measured</li>',
        '<li><i class="critic dashes"></i>with the slack added that the critic has within reach (Definition 1)</li>',
    ]
    if certificate.limit is not None:
        wording = f"tolerance, {format_tolerance(certificate.tolerance)}"
        items.append(f'<li><i class="dash"></i>{escape(wording)}</li>')
    if star is not None:
        items.append(f'<li><i class="range"></i>λ* {escape(lambda_words(*star))}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _chart(
    found: Profile, tolerance: float | None, star: tuple[float, float] | None, alt: str
) -> tuple[str, str]:
    finite = found.lam[(found.lam > 0) & np.isfinite(found.lam)]
    axis = LambdaAxis(float(finite.min()), float(finite.max())) if finite.size else axis_through(())
    shown = [found.r, found.low, found.high, found.raw, found.both]
    values = np.concatenate(shown)
    values = values[np.isfinite(values) & (np.abs(values) < 1e150)]
    limit = tolerance if tolerance is not None and math.isfinite(tolerance) else None
    edges = [0.0] + ([limit] if limit is not None and abs(limit) < 1e150 else [])
    low, high = min(float(values.min()), *edges, 0.0), max(float(values.max()), *edges, 0.0)
    # Of an interval that reaches far beyond all estimates, the part near them is enough.
    core = np.concatenate([found.r, found.raw, found.both])
    core = core[np.isfinite(core) & (np.abs(core) < 1e150)]
    least, most = min(float(core.min()), *edges, 0.0), max(float(core.max()), *edges, 0.0)
    room = 1.5 * (most - least) or 1.0
    cut = low < least - room or high > most + room
    low, high = max(low, least - room), min(high, most + room)
    start, stop = axis.span

    scale = _Scale(limit if limit is not None and limit > 0 and high > 12 * limit else None)
    bottom, top = scale.at(low), scale.at(high)
    room = 0.08 * (top - bottom) or 1.0

    def draw(size: Size) -> str:
        axes = Axes(size, start, stop, bottom - room, top + room, bottom=56)
        marks = _marks(axes, axis, found, limit, star, scale)
        names = svg_text(axes.left, size.height - 20, "Stackelberg", "start", "axis") + svg_text(
            size.width - axes.right, size.height - 20, "Nash", "end", "axis"
        )
        middle = "λ, the price of an answer"
        return names + axes.draw(marks, middle, axis.labels(axes.width), scale.labels(axes))

    notes = []
    if scale.unit is not None:
        notes.append("Upwards the scale is linear within the tolerance and logarithmic beyond.")
    if cut:
        notes.append("Intervals that reach far beyond the estimates are cut off.")
    with np.errstate(invalid="ignore"):
        if bool((found.low > found.r + 1e-9 * np.abs(found.r)).any()):
            notes.append(
                "Where the curve lies below its band, searches at a greater λ found less than those at a smaller one: "
                "longer searches (prox_steps, prox_starts) may help."
            )
    if lost := [format_lambda(float(v)) for v in found.lam[np.isnan(found.raw)]]:
        notes.append(f"At λ = {', '.join(lost)} the searches failed: no point is drawn.")
    return render_sizes(draw, BROAD, alt), " ".join(notes)


@dataclass(frozen=True)
class _Scale:
    """Heights: as they are, or asinh(value / unit), which is linear near zero and logarithmic far from it."""

    unit: float | None

    def at(self, value: float) -> float:
        return value if self.unit is None else math.asinh(value / self.unit)

    def labels(self, axes: Axes) -> list[tuple[float, str]] | None:
        """0 and the powers of ten in sight, 20 pixels apart; None for the axis' own."""
        if self.unit is None:
            return None
        chosen = [0.0]
        first = math.floor(math.log10(self.unit))
        powers = [10.0**p for p in range(first + 12, first - 1, -1)]
        for value in [sign * size for size in powers for sign in (1, -1)]:
            place = self.at(value)
            sits = axes.y0 <= place <= axes.y1
            near = [abs(axes.y(place) - axes.y(self.at(v))) < 20 for v in chosen]
            if sits and not any(near):
                chosen.append(value)
        return [(self.at(value), format_number(value)) for value in sorted(chosen)]


def _marks(
    axes: Axes,
    axis: LambdaAxis,
    found: Profile,
    limit: float | None,
    star: tuple[float, float] | None,
    scale: _Scale,
) -> str:
    x = np.array([axes.x(axis.at(float(lam))) for lam in found.lam])

    def line(values: Array) -> list[tuple[float, float]]:
        sound = np.isfinite(values) & (np.abs(values) < 1e150)
        return [
            (float(a), axes.y(scale.at(float(b))))
            for a, b in zip(x[sound], values[sound], strict=True)
        ]

    marks = ""
    if star is not None and not math.isinf(star[0]):
        a, b = axes.x(axis.at(star[0])), axes.x(axis.at(star[1]))
        marks += (
            f'<rect class="range" x="{px(a)}" y="0" width="{px(max(b - a, 2.0))}" '
            f'height="{px(axes.height)}"/>'
        )
    band = line(np.maximum(found.high, found.low)) + line(found.low)[::-1]
    if len(band) > 2:
        marks += svg_path(band, "band generator")
    if limit is not None:
        at = axes.y(scale.at(limit))
        marks += svg_path([(0, at), (axes.width, at)], "tolerance")
    if len(whole := line(found.both)) > 1:
        marks += svg_path(whole, "line critic dashed")
    marks += svg_path(line(found.r), "line generator")
    for where, y in line(found.raw):
        marks += f'<circle class="dot generator" cx="{px(where)}" cy="{px(y)}" r="3"/>'
    if star is not None and not math.isinf(star[0]):
        middle = (axes.x(axis.at(star[0])) + axes.x(axis.at(star[1]))) / 2
        marks += svg_text(min(max(middle, 12.0), axes.width - 12), 14, "λ*", "middle", "axis")
    return marks


def _numbers_table(certificate: CertificateRecord, found: Profile) -> str:
    rows = []
    for k in range(found.lam.size):
        low, high = float(found.low[k]), float(found.high[k])
        r, a, b = format_estimate(float(found.r[k]), (low, high))
        slack = format_number(float(found.slack[k]))
        rows.append((format_lambda(float(found.lam[k])), r, f"{a} to {b}", slack))
    head = ("λ", "r(λ)", interval_name(certificate).capitalize(), "Critic's slack in reach")
    return table(head, rows, (1, 2, 3))


def trials_table(certificate: CertificateRecord) -> str:
    """What was tried at each lambda, of a check that keeps trials; else ""."""
    trials = certificate.evidence.get("trials")
    if not isinstance(trials, list):
        return ""
    rows = []
    for trial in trials:
        if not isinstance(trial, dict) or (lam := as_number(trial.get("lambda"))) is None:
            continue
        value, low, high = format_estimate(
            as_number(trial.get("gain")), _pair(trial.get("gain_interval"))
        )
        wording = str(trial.get("failed") or trial.get("verdict") or "")
        rows.append((format_lambda(lam), wording, f"{value} ({low} to {high})"))
    head = ("λ", "Said", "Gain, the critic answering")
    return table(head, rows, (2,)) if rows else ""


def _pair(value: object) -> tuple[float, float] | None:
    found = numbers(value)
    return (float(found[0]), float(found[1])) if found is not None and found.size == 2 else None
