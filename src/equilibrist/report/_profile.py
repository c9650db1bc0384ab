"""The equilibrium profile: what the generator gains at each lambda, from Stackelberg to Nash."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equilibrist.report import words
from equilibrist.report._html import e, fold, table
from equilibrist.report._measures import lambda_words
from equilibrist.report._numbers import count, duration, number, with_unit
from equilibrist.report._record import Certificate, Record, Verdict, as_number, numbers
from equilibrist.report.charts import BROAD, SLIM, Axes, Size, both, px, svg_path, svg_text

Array = NDArray[np.float64]
CLAIM = "profile"


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
            (float(p), number(10.0**p))
            for p in powers
            if p % every == 0 and min(p - self.at(0.0), self.at(math.inf) - p) >= 0.75 * room
        ]
        return [(self.at(0.0), "0"), *middle, (self.at(math.inf), "∞")]


def _axis(values: Sequence[float]) -> LambdaAxis:
    sound = [v for v in values if 1e-150 < v < 1e150]
    return LambdaAxis(min([1e-3, *sound]), max([1e3, *sound]))


def scale_chart(low: float, high: float, tone: str, alt: str) -> str:
    """lambda* between Stackelberg and Nash: where the pair holds, where it is open, where it is lost."""
    axis = _axis((low / 2, low * 2, high / 2, high * 2))

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

    return both(draw, SLIM, alt)


# --- the section ------------------------------------------------------------------------------


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


def profile_of(certificate: Certificate) -> Profile | None:
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


def _failed(certificate: Certificate, lam: Array) -> NDArray[np.bool_]:
    trials = certificate.evidence.get("trials")
    bad = np.zeros(lam.size, dtype=bool)
    if isinstance(trials, list) and len(trials) == lam.size:
        for k, trial in enumerate(trials):
            bad[k] = isinstance(trial, dict) and bool(trial.get("failed"))
    return bad


def profile(record: Record) -> str:
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
        return f'<p class="lead">{e(lead)}</p><p>{e(certificate.summary)}</p>'
    limit = certificate.limit
    star = _star(certificate)
    alt = f"What the generator gains at {found.lam.size} values of lambda. {certificate.summary}"
    chart, note = _chart(found, limit, star, alt)
    caption = (
        f"What the generator gains{', in ' + certificate.unit if certificate.unit else ''}. {note}"
    )
    return (
        f'<p class="lead">{e(lead)}</p>{_legend(certificate, star)}'
        f"<figure>{chart}<figcaption>{e(caption.strip())}</figcaption></figure>"
        f'<p class="gap">{e(certificate.summary)} {e(_slack(certificate))}</p>'
        + fold("The numbers", _numbers_table(certificate, found))
    )


def _star(certificate: Certificate) -> tuple[float, float] | None:
    ends = certificate.ends("lambda_star")
    return ends if ends is not None and not any(map(math.isnan, ends)) else None


def _slack(certificate: Certificate) -> str:
    slack = certificate.number("slack")
    interval = certificate.ends("slack_interval")
    limit = certificate.limit
    if slack is None or not math.isfinite(slack):
        return ""
    if limit is not None and abs(slack) < 1e-6 * limit:
        return "So the critic answers best: it has no slack to speak of."
    value, low, high = words.estimate(slack, interval)
    between = f" ({words.interval_name(certificate)} {low} to {high})" if interval else ""
    return (
        f"That slack, {with_unit(value, certificate.unit)}{between}, is what the critic itself still gains against the "
        "generator at rest. It is part of r(λ) with the opposite sign, which is why r may lie below zero on the left."
    )


def _legend(certificate: Certificate, star: tuple[float, float] | None) -> str:
    items = [
        '<li><i class="generator"></i>r(λ), made monotone; the band is its '
        f"{e(words.interval_name(certificate))}</li>",
        '<li><i class="point"></i>each estimate as measured</li>',
        '<li><i class="critic dashes"></i>with the slack added that the critic has within reach (Definition 1)</li>',
    ]
    if certificate.limit is not None:
        wording = f"tolerance, {words.tolerance_words(certificate.tolerance)}"
        items.append(f'<li><i class="dash"></i>{e(wording)}</li>')
    if star is not None:
        items.append(f'<li><i class="range"></i>λ* {e(lambda_words(*star))}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _chart(
    found: Profile, tolerance: float | None, star: tuple[float, float] | None, alt: str
) -> tuple[str, str]:
    finite = found.lam[(found.lam > 0) & np.isfinite(found.lam)]
    axis = LambdaAxis(float(finite.min()), float(finite.max())) if finite.size else _axis(())
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
    if lost := [_lambda(float(v)) for v in found.lam[np.isnan(found.raw)]]:
        notes.append(f"At λ = {', '.join(lost)} the searches failed: no point is drawn.")
    return both(draw, BROAD, alt), " ".join(notes)


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
        return [(self.at(value), number(value)) for value in sorted(chosen)]


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


def _numbers_table(certificate: Certificate, found: Profile) -> str:
    rows = []
    for k in range(found.lam.size):
        low, high = float(found.low[k]), float(found.high[k])
        r, a, b = words.estimate(float(found.r[k]), (low, high))
        slack = number(float(found.slack[k]))
        rows.append((_lambda(float(found.lam[k])), r, f"{a} to {b}", slack))
    head = ("λ", "r(λ)", words.interval_name(certificate).capitalize(), "Critic's slack in reach")
    return table(head, rows, (1, 2, 3))


def _lambda(value: float) -> str:
    if math.isinf(value):
        return "∞ (Nash)"
    return "0 (Stackelberg)" if value == 0 else number(value)


def trials_table(certificate: Certificate) -> str:
    """What was tried at each lambda, of a check that keeps trials; else ""."""
    trials = certificate.evidence.get("trials")
    if not isinstance(trials, list):
        return ""
    rows = []
    for trial in trials:
        if not isinstance(trial, dict) or (lam := as_number(trial.get("lambda"))) is None:
            continue
        value, low, high = words.estimate(
            as_number(trial.get("gain")), _pair(trial.get("gain_interval"))
        )
        wording = str(trial.get("failed") or trial.get("verdict") or "")
        rows.append((_lambda(lam), wording, f"{value} ({low} to {high})"))
    head = ("λ", "Said", "Gain, the critic answering")
    return table(head, rows, (2,)) if rows else ""


def _pair(value: Any) -> tuple[float, float] | None:
    found = numbers(value)
    return (float(found[0]), float(found[1])) if found is not None and found.size == 2 else None


# --- the offer --------------------------------------------------------------------------------

# Work units of the searches (`equilibrist.checks.proximal._sampled`, which would import torch).
_POOL, _PENALISED, _PLAIN, _LEAD, _MEASURED = 64, 1.1, 0.6, 0.8, 2.5


def offer(record: Record) -> str:
    """Of an audit without a profile: the command that makes one, and about what it takes. "" where it has one, or
    where the game has no lambda."""
    audit = record.audit
    if audit is None or not audit.ladder or audit.find(CLAIM):
        return ""
    tests, near = audit.find("self-tests"), audit.find("proximal")
    if tests is not None and tests.verdict is not Verdict.VERIFIED:
        return ""
    if near is not None and "lambda_star" not in near.evidence:
        return ""
    if audit.find("not-saturated") is not None:  # a critic alone has no generator that could move
        return ""
    command = words.audit_command(record, more=(CLAIM,))
    return fold(
        "What lies between Stackelberg and Nash was not measured",
        f"<p>{e(_cost(record))}This audits again, with the profile:</p><pre>{e(command)}</pre>",
    )


def _cost(record: Record) -> str:
    assert record.audit is not None
    planned = planned_work(record.audit.settings)
    if planned is None:
        return ""
    pace = [
        (as_number(row.get("gradients")) or 0.0, as_number(row.get("seconds")) or 0.0)
        for row in record.audit.work.values()
    ]
    spent, seconds = sum(g for g, _ in pace), sum(s for _, s in pace)
    text = f"With this audit's settings it takes about {count(round(planned))} minibatch gradients"
    if spent > 0 and seconds > 0:
        text += f", some {duration(planned * seconds / spent)} at this audit's pace"
    return f"{text}. "


def planned_work(settings: dict[str, Any]) -> float | None:
    """The work that `equilibrist audit --check profile` announces for sampled losses, in minibatch gradients; None
    where the settings do not tell."""
    names = ["prox_starts", "prox_steps", "prox_track", "inner_steps", "look_batches", "batches"]
    values = [as_number(settings.get(name)) for name in names]
    grid = settings.get("prox_lambdas")
    if None in values or not isinstance(grid, list):
        return None
    starts, steps, track, inner, looked, batches = (v for v in values if v is not None)
    searches = starts + 1
    answer, look = 2 * inner * _PENALISED, looked * _MEASURED
    one = (
        2 * searches * steps * (track * _PENALISED + _LEAD)
        + searches * answer
        + 2 * (3 * searches + 2) * (answer + look)
        + 5 * (5 * answer + 3 * look)
        + 4 * batches * _MEASURED
    )
    return _POOL * _PLAIN + (len(grid) + 2) * one
