"""Section 6.1's experiment: a generator that trains on alone, with the critic frozen and with one that answers."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equilibrist.report import scatter
from equilibrist.report._claims import BADGES, claim_short, interval_name
from equilibrist.report._html import escape, picture, table, window
from equilibrist.report._record import CertificateRecord, RunRecord, as_number, numbers
from equilibrist.report.charts import BROAD, Axes, Size, render_sizes, svg_path
from equilibrist.report.formatting import format_estimate, format_number, with_unit

Array = NDArray[np.float64]
CLAIM = "generator-vs-prox"
_WHEN = {"before": "Before", "during": "Half-way", "after": "After"}


@dataclass(frozen=True)
class DescentPath:
    """A generator's way: steps, and what it went down."""

    steps: Array
    objective: Array
    failed: str


def ways(certificate: CertificateRecord) -> dict[str, DescentPath]:
    """The recorded ways, "proximal" and "frozen", without points that are not finite."""
    curves = certificate.evidence.get("curves")
    found = {}
    for name, curve in curves.items() if isinstance(curves, dict) else ():
        if name not in ("proximal", "frozen") or not isinstance(curve, dict):
            continue
        steps, values = numbers(curve.get("step")), numbers(curve.get("objective"))
        if steps is None or values is None or steps.size != values.size:
            continue
        sound = np.isfinite(steps) & np.isfinite(values) & (np.abs(values) < 1e150)
        if sound.any():
            failed = str(curve.get("failed") or "")
            found[name] = DescentPath(steps[sound], values[sound], failed)
    return found


def experiment_section(record: RunRecord) -> str:
    """The section's body; "" where the audit has not made the experiment."""
    certificate = record.audit.find(CLAIM) if record.audit else None
    if certificate is None:
        return ""
    lam = certificate.number("lambda")
    price = "" if lam is None else f", at the price λ = {format_number(lam)},"
    lead = (
        "The generator trains on alone, twice, from the same weights. Once the critic is frozen; once the "
        f"critic answers every step{price} and the generator goes down V_prox, the value with that answer. A frozen "
        "critic can nearly always be fooled. What matters is whether the other curve falls."
    )
    parts = [f'<p class="lead">{escape(lead)}</p>']
    found = ways(certificate)
    if found:
        alt = f"The value along both ways. {certificate.summary}"
        unit = f", in {certificate.unit}" if certificate.unit else ""
        notes = [f"The value that the generator goes down{unit}, on the data that selects."]
        notes += [f"{_NAMES[n]}: {w.failed}." for n, w in found.items() if w.failed]
        parts.append(_legend(certificate, found))
        caption = escape(" ".join(notes))
        parts.append(f"<figure>{_chart(found, alt)}<figcaption>{caption}</figcaption></figure>")
    parts.append(f'<p class="gap">{escape(certificate.summary)}</p>')
    for prefix, name in (("", _NAMES["proximal"]), ("frozen-", _NAMES["frozen"])):
        parts.append(_sheets(certificate, record, prefix, name))
    return "".join(parts)


_NAMES = {"proximal": "The critic answers (V_prox)", "frozen": "The critic is frozen (V)"}
_KINDS = {"proximal": "generator", "frozen": "critic dashed"}


def _legend(certificate: CertificateRecord, found: dict[str, DescentPath]) -> str:
    items = []
    falls = {
        "proximal": (certificate.number("fall"), certificate.interval),
        "frozen": (certificate.number("frozen_fall"), certificate.ends("frozen_interval")),
    }
    for name in found:
        value, interval = falls[name]
        wording = _NAMES[name]
        if value is not None and math.isfinite(value):
            shown, low, high = format_estimate(value, interval)
            wording += f": falls by {with_unit(shown, certificate.unit)}"
            wording += f" ({interval_name(certificate)} {low} to {high})" if interval else ""
        key = "generator" if name == "proximal" else "critic dashes"
        items.append(f'<li><i class="{key}"></i>{escape(wording)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _chart(found: dict[str, DescentPath], alt: str) -> str:
    values = np.concatenate([way.objective for way in found.values()])
    low, high = float(values.min()), float(values.max())
    pad = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
    last = max(max(float(way.steps.max()) for way in found.values()), 1.0)

    def draw(size: Size) -> str:
        axes = Axes(size, 0.0, 1.015 * last, low - pad, high + pad)
        marks = ""
        for name, way in reversed(found.items()):
            points = [
                (axes.x(float(s)), axes.y(float(v)))
                for s, v in zip(way.steps, way.objective, strict=True)
            ]
            marks += svg_path(points, f"line {_KINDS[name]}") if len(points) > 1 else ""
        return axes.draw(marks, "step of the generator")

    return render_sizes(draw, BROAD, alt)


def _sheets(certificate: CertificateRecord, record: RunRecord, prefix: str, name: str) -> str:
    frame: scatter.Window = window(record)
    figures = []
    for when, wording in _WHEN.items():
        sample = certificate.samples.get(f"{prefix}{when}")
        if sample is not None:
            alt = f"Samples of the generator, {wording.lower()}. {name}"
            figures.append(picture(sample, record.real, frame, f"<b>{escape(wording)}</b>", alt))
    if not figures:
        return ""
    return f'<h3 class="gap">{escape(name)}</h3><div class="strip three">{"".join(figures)}</div>'


# --- gaps -------------------------------------------------------------------------------------

_GAPS = ("duality-gap", "proximal-duality-gap")


def gaps_section(record: RunRecord) -> str:
    """Both duality gaps and what they are made of, as a table; "" where the audit has none."""
    found = [c for name in _GAPS if record.audit and (c := record.audit.find(name)) is not None]
    rows = []
    for certificate in found:
        lam = as_number(certificate.evidence.get("lambda"))
        price = (
            "" if lam is None else " (λ = ∞)" if math.isinf(lam) else f" (λ = {format_number(lam)})"
        )
        name = claim_short(certificate) + price
        whole = _with_interval(certificate.evidence, "gap", certificate.unit)
        parts = []
        for player in ("critic", "generator"):
            part = certificate.evidence.get(player)
            part = part if isinstance(part, dict) else {}
            status = str(part.get("status") or "")
            value = _with_interval(part, "gain", certificate.unit)
            parts.append(value if status in ("found", "") else f"{value}; {status}")
        rows.append((name, BADGES[certificate.verdict], whole, *parts))
    if not rows:
        return ""
    lead = (
        "A duality gap is what the best critic gains against this generator plus what the best generator gains "
        "against this critic. With a price λ on the critic's answers the second meets a critic that moves."
    )
    head = ("Gap", "That it is zero", "Size", "The critic gains", "The generator gains")
    return f'<p class="lead">{escape(lead)}</p>' + table(head, rows, (2, 3, 4))


def _with_interval(values: dict[str, object], key: str, unit: str) -> str:
    ends = numbers(values.get("interval"))
    interval = None if ends is None or ends.size != 2 else (float(ends[0]), float(ends[1]))
    shown, low, high = format_estimate(as_number(values.get(key)), interval)
    return f"{with_unit(shown, unit)} ({low} to {high})" if interval else with_unit(shown, unit)
