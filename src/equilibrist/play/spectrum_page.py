"""The page and the record of a run's spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from equilibrist.files.atomic import json_bytes
from equilibrist.files.owned import publish
from equilibrist.play import pictures
from equilibrist.report.formatting import format_count, format_number
from equilibrist.report.shell import document, escape, table
from equilibrist.spectra import Eigenvalues, SpectralDensity, Spectrum

if TYPE_CHECKING:
    from equilibrist.run import Run

_OWN = (
    "The game is not zero-sum: J is the derivative of each player's own-loss gradient. Its eigenvalues are those "
    "of training, and not those of the zero-sum value V."
)


def write_spectrum(found: Spectrum, run: Run, iterate: str = "last") -> Path:
    """Writes RUN/spectrum.json and RUN/spectrum.html, atomically; returns the page's path.

    RecordError where a file of the user's has such a name.
    """
    facts = {
        "run": run.directory.name,
        "step": run.step,
        "iterate": iterate,
        "checkpoint": run.checkpoint,
        "sha256": run.sha256,
        **found.describe(),
    }
    title = run.recipe.title or run.directory.name
    html = spectrum_html(found, title, run.step).encode("utf-8", "replace")
    publish(run.directory, {"spectrum.json": json_bytes(facts), "spectrum.html": html})
    return run.directory / "spectrum.html"


def sentences(found: Spectrum) -> list[str]:
    """The findings in words, the verdict first."""
    plain = found.stepped
    remarks = [_verdict(found)]
    if found.scaled is not None:
        rates = ", ".join(f"{player} {format_number(rate)}" for player, rate in found.rates.items())
        remarks.append(
            f"Players have step sizes of their own ({rates}): disc and step refer to (H/h) J, H the step sizes, h "
            "the largest."
        )
    rotation = (
        "is infinite: some eigenvalue lies on the imaginary axis"
        if plain.q == float("inf")
        else f"is {format_number(plain.q)}"
    )
    if plain.nonzero.size:
        remarks.append(f"Rotation q = max |Im/Re| {rotation}.")
    if zeros := len(plain.values) - len(plain.nonzero):
        remarks.append(
            f"{format_count(zeros)} of {format_count(len(plain.values))} eigenvalues are zero to rounding: directions "
            "in which nothing pulls. They count neither for nor against stability."
        )
    if found.consensus is not None and found.gamma is not None:
        remarks.append(
            f"With consensus, gamma {format_number(found.gamma)}: {_numbers(found.consensus, found.h)}"
        )
    if (symmetric := found.densities.get("symmetric")) is not None:
        low = symmetric.lowest
        limit = "is" if symmetric.probes == 0 else "is at most"
        grows = (
            "some pushes grow at first"
            if low.value < 0
            else "no push was found to grow, not even at first"
        )
        remarks.append(
            f"The numerical abscissa {limit} {format_number(low.value)}: {grows} under gradient flow."
        )
    for words, why in plain.missing.items():
        remarks.append(f"The search for the {words} is incomplete: {why}.")
    pulls = ", ".join(
        f"{player} {format_number(size)} at |x| = {format_number(found.norms[player])}"
        for player, size in found.gradients.items()
    )
    remarks.append(
        f"The analysis is exact for a stationary pair. Here the gradients' norms are: {pulls}."
    )
    if not found.zero_sum:
        remarks.append(_OWN)
    return [*remarks, *found.notes]


def _verdict(found: Spectrum) -> str:
    plain, h = found.stepped, found.h
    some = "" if plain.complete else " found"
    if not plain.nonzero.size:
        return "No eigenvalue differs from zero: the linear analysis says nothing."
    bad = int((plain.nonzero.real <= 0).sum())
    if bad:
        least = format_number(float(plain.nonzero.real.min()))
        return (
            f"No step size makes plain gradient steps stable here: {format_count(bad)} eigenvalues{some} of J have a "
            f"real part that is not positive (the least: {least})."
        )
    upto = "below" if plain.complete else "at most below"
    limit = f"plain gradient steps are locally stable {upto} h_max = {format_number(plain.h_max)}"
    if h is None:
        return f"All eigenvalues{some} of J have positive real parts: {limit}."
    if out := plain.outside(h):
        return (
            f"Not stable at the step size in use: {format_count(out)} eigenvalues{some} lie outside of the disc of "
            f"h = {format_number(h)}; {limit}."
        )
    sure = "Locally stable at" if plain.complete else "Nothing found speaks against stability at"
    return f"{sure} the step size in use, h = {format_number(h)}: {limit}."


def _numbers(found: Eigenvalues, h: float | None) -> str:
    q = "infinite" if found.q == float("inf") else format_number(found.q)
    text = f"h_max = {format_number(found.h_max)}, q = {q}"
    if h is not None:
        text += f", {format_count(found.outside(h))} eigenvalues outside of the disc of h = {format_number(h)}"
    return f"{text}."


def spectrum_html(found: Spectrum, title: str, step: int) -> str:
    """The page as one HTML document."""
    verdict, *rest = sentences(found)
    plain = found.stepped
    figures = _views(plain, found.h, "plain", "J" if found.scaled is None else "(H/h) J")
    if found.consensus is not None:
        name = f"J + {format_number(found.gamma)} JᵀJ"
        if found.scaled is not None:
            name = f"(H/h) ({name})"
        figures += _views(found.consensus, found.h, "pulled", name)
    curves = "".join(_density(name, part) for name, part in found.densities.items())
    items = "".join(f"<li>{escape(text)}</li>" for text in rest)
    parts = [
        f'<div class="top"><span><b>{escape(title)}</b></span><span>step {format_count(step)}</span></div>',
        f'<main class="head"><h1>Spectrum</h1><p>{escape(verdict)}</p>'
        f'<p class="lead">{escape(_lead(found))}</p></main>',
        _legend(found),
        f'<div class="charts">{"".join(figures)}</div>',
        f"<section><h2>Findings</h2><ul>{items}</ul></section>",
        _numbers_table(found),
        _listed(plain),
        f'<section><h2>Densities</h2><p>{escape(_DENSITIES)}</p></section><div class="charts">{curves}</div>'
        if curves
        else "",
        f"<section><h2>How to read this</h2><p>{escape(_READING)}</p></section>",
    ]
    return document(f"{title}: spectrum", parts)


_DENSITIES = (
    "The share of eigenvalues near each number, on a logarithmic axis, for the matrices whose eigenvalues are real: "
    "each player's own Hessian, and the symmetric part (J + Jᵀ)/2. Where the lowest end of the latter is negative, "
    "some small pushes grow at first under gradient flow, whatever the eigenvalues of J are."
)
_READING = (
    "J is the derivative of v, the gradients of the players' own losses. Close to a stationary pair a gradient step "
    "x \N{MINUS SIGN} h v multiplies the part along an eigenvalue λ by 1 \N{MINUS SIGN} hλ, so it is locally stable if "
    "and only if every λ lies in the open disc |1 \N{MINUS SIGN} hλ| < 1, of centre and radius 1/h: eigenvalues far "
    "from the real axis rotate and force small steps, and one left of the imaginary axis no step size can hold. "
    "The largest stable step is h_max = min 2 Re λ / |λ|². A residual |Ju \N{MINUS SIGN} λu| says that λ is an exact "
    "eigenvalue of a matrix that differs from J by no more than that; J is not symmetric, so that its "
    "eigenvalues may move by much more."
)


def _lead(found: Spectrum) -> str:
    how = "all eigenvalues" if found.jacobian.complete else "extreme eigenvalues, by Krylov-Schur"
    over = f", J averaged over {format_count(found.samples)} samples" if found.samples else ""
    if found.samples and found.batches > 1:
        over += f" in {format_count(found.batches)} minibatches"
    return f"{format_count(found.parameters)} parameters: {how}{over}, float64."


def _legend(found: Spectrum) -> str:
    items = ['<li><span class="key in"></span>eigenvalues of J</li>']
    if found.consensus is not None:
        items.append('<li><span class="key pulled"></span>those with consensus</li>')
    if found.h is not None:
        items.append('<li><span class="key out"></span>outside of the disc</li>')
        items.append(
            f'<li><span class="key disc"></span>the disc of h = {escape(format_number(found.h))}: stable</li>'
        )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _views(found: Eigenvalues, h: float | None, kind: str, name: str) -> list[str]:
    """Pictures of all eigenvalues, and of those near the origin where some are far larger."""
    values = found.values
    if not values.size:
        return []
    out = np.zeros(len(values), dtype=bool)
    if h is not None:
        out = (np.abs(1 - h * values) >= 1) & np.isin(values, found.nonzero)
    series = ((values[~out], kind), (values[out], "bad"))
    size = np.abs(values)
    frames = [("", _frame(values))]
    inner = float(np.quantile(size[size > 1e-8 * found.size], 0.5)) if found.nonzero.size else 0.0
    if inner > 0 and float(size.max()) > 8 * inner:
        frames.append(("near the origin", _frame(values[size <= 2 * inner])))
    figures = []
    for where, frame in frames:
        seen = int(
            (
                (values.real >= frame[0])
                & (values.real <= frame[1])
                & (values.imag >= frame[2])
                & (values.imag <= frame[3])
            ).sum()
        )
        words = f"Eigenvalues of {name} {where}: {seen} of {len(values)} in the frame".strip()
        title = f"{name}{', ' + where if where else ''}"
        picture = pictures.complex_plane(frame, series, h, words)
        caption = f"{format_count(seen)} of {format_count(len(values))} eigenvalues."
        figures.append(
            f"<figure><h3>{escape(title)}</h3>{picture}<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return figures


def _density(name: str, part: SpectralDensity) -> str:
    """The picture of a density: log10 of the smoothed masses."""
    title = "(J + Jᵀ)/2" if name == "symmetric" else f"the {name}'s Hessian"
    curve = part.curve()
    at, height = np.array(curve["at"]), np.array(curve["density"])
    log = np.log10(np.clip(height, 1e-6 * height.max(), None))
    low, high = float(log.min()), float(log.max())
    room = 0.08 * ((high - low) or 1.0)
    window = (float(at[0]), float(at[-1]), low - room, high + room)
    ends = f"{format_number(part.lowest.value)} to {format_number(part.highest.value)}"
    how = "all eigenvalues" if part.probes == 0 else f"{format_count(part.steps)} Lanczos steps"
    picture = pictures.curve(window, at, log, "log10 of the density", f"Density of {title}: {ends}")
    return f"<figure><h3>{escape(title)}</h3>{picture}<figcaption>{escape(f'{ends}; {how}.')}</figcaption></figure>"


def _frame(values: NDArray[np.complex128]) -> tuple[float, float, float, float]:
    """A square that holds the origin and the values, symmetric about the real axis."""
    low, high = min(0.0, float(values.real.min())), max(0.0, float(values.real.max()))
    tall = float(np.abs(values.imag).max())
    side = max(high - low, 2 * tall) * 1.16 or 1.0
    middle = (low + high) / 2
    return middle - side / 2, middle + side / 2, -side / 2, side / 2


def _numbers_table(found: Spectrum) -> str:
    rows: list[Sequence[str]] = []
    matrices = [("J", found.jacobian), ("(H/h) J", found.scaled)]
    if found.gamma is not None:
        matrices.append((f"with consensus, gamma {format_number(found.gamma)}", found.consensus))
    for name, part in matrices:
        if part is None:
            continue
        rows.append(
            (
                name,
                format_number(part.h_max)
                if part.complete
                else f"at most {format_number(part.h_max)}",
                format_number(part.q),
                "" if found.h is None else f"{part.radius(found.h):.6g}",
                _departure(part),
                format_number(float(part.residuals.max())) if part.residuals.size else "",
            )
        )
    head = [
        "Matrix",
        "h_max",
        "q",
        "Factor per step",
        "Departure from normality",
        "Largest residual",
    ]
    return f"<section><h2>Numbers</h2>{table(head, rows, (1, 2, 3, 4, 5))}</section>"


def _departure(part: Eigenvalues) -> str:
    if part.departure is not None:
        return format_number(part.departure)
    bounds = part.departure_bounds
    if bounds is None:
        return "not known"
    return f"{format_number(bounds.low, 2)} to {format_number(bounds.high, 2)}, estimated"


def _listed(found: Eigenvalues) -> str:
    """The decisive eigenvalues: those that allow the smallest step."""
    l, r = found.values, found.residuals  # noqa: E741
    keep = np.abs(l) > 1e-8 * found.size
    l, r = l[keep], r[keep]  # noqa: E741
    if not l.size:
        return ""
    allowed = 2 * l.real / np.abs(l) ** 2
    # Where some have no stable step at all, the least real part decides.
    least = (l.real <= 0).any()
    order = np.lexsort((-l.imag, l.real if least else allowed))[:12]
    remarks = "Those with the least real part." if least else "Those that allow the smallest step."
    rows = [
        (
            _complex(l[k]),
            format_number(float(allowed[k])) if allowed[k] > 0 else "none",
            format_number(float(r[k])),
        )
        for k in order
    ]
    head = ["Eigenvalue", "Largest stable step", "Residual"]
    return (
        f"<section><h2>The eigenvalues that decide</h2><p>{remarks}</p>"
        f"{table(head, rows, (1, 2))}</section>"
    )


def _complex(value: complex) -> str:
    real, size = format_number(float(value.real)), format_number(abs(float(value.imag)))
    if value.imag == 0:
        return real
    return f"{real} {'+' if value.imag > 0 else chr(0x2212)} {size}i"
