"""Is the pair locally stable? The eigenvalues of the game's Jacobian that decide it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from equilibrist import tree
from equilibrist.checks._decide import Interval, decide
from equilibrist.checks._eigen import (
    FORWARD,
    TRANSPOSED,
    JacobianSpectrum,
    K,
    confirmed,
    draws_of,
    probe_cost,
    probes_of,
    search_cost,
    seen_at,
    share_of,
    witness_of,
)
from equilibrist.checks._second_order import Free, free, inexact
from equilibrist.checks.certificate import Certificate, Json, Tolerance, Verdict, not_assessed
from equilibrist.checks.context import AuditContext, Tick, no_tick
from equilibrist.errors import GameError
from equilibrist.spectra import consensus, density, krylov, normality, spectrum
from equilibrist.spectra.arrays import Complex
from equilibrist.spectra.consensus import Forecast
from equilibrist.spectra.eigenvalues import eigenvalues, largest_step

REFERENCES = (
    "Mescheder, Nowozin and Geiger 2017, inequality 5 (steps) and section 4 (consensus)",
    "Nagarajan and Kolter 2017 (local stability of GAN training)",
    krylov.REFERENCE,
    density.REFERENCE,
    *normality.REFERENCES,
)
SHOWN = 100  # numbers of each list of eigenvalues


def stable(context: AuditContext, tick: Tick = no_tick) -> list[Certificate]:
    """Certificate "stable": near the pair, gradient flow of own losses x' = -v(x) comes back to it.

    That is so if every eigenvalue l of J = dv/dx has a positive real part, and not if one has a negative
    one. Up to `spectrum_dense` free parameters all eigenvalues are found, beyond the outermost ones by
    Krylov-Schur with `spectrum_products` products, in the search's precision, those that decide
    refined in float64. J is the mean over `spectrum_batches` minibatches of the part to optimise.

    An eigenvalue counts as negative if its real part is below the tolerance by more than its error: residual
    and rounding, times 1 / |r^T c|, r and c its unit left and right eigenvectors (first-order perturbation
    theory: J is not normal). On sampled losses r^T J_B c / r^T c on batches B of the score split, whose mean is the
    eigenvalue of the mean J to first order, must confirm it.

    A Krylov space that has not separated the leftmost eigenvalue from its neighbours knows it to a residual: that is
    enough to refute where the eigenvalue is negative by more, and enough not to where the residual is below the
    tolerance.

    VERIFIED: losses are exact, J is dense, the pair is at rest, and every eigenvalue that is not zero to
    rounding has a positive real part. REFUTED: one is negative, by the whole of its interval; the witness is its
    eigenvector's real part. NOT_REFUTED: none found is, and the leftmost is known to the tolerance or enclosed by the
    symmetric part of J; also where it lies on the imaginary axis to the tolerance, which is neither stable nor
    unstable. UNASSESSED: the smallest real part is not known, or the noise of the score split is above the
    tolerance; with exact losses also an eigenvalue on the imaginary axis, or a pair not at rest.
    """
    if why := inexact(context):
        return [_unassessed(context, why)]
    moves = free(context)
    try:
        seen = seen_at(context, moves, tick)
    except (GameError, np.linalg.LinAlgError) as error:
        return [_unassessed(context, str(error).splitlines()[0])]
    if seen is None:
        return [_unassessed(context, "the boundary of the feasible set holds every parameter")]
    share = share_of(context)
    tolerance = Tolerance(
        share * seen.size,
        f"{context.unit} per squared unit of the parameters",
        f"{share:g} of the largest eigenvalue's modulus, {seen.size:.4g}",
    )
    return [_certificate(context, moves, seen, tolerance, tick)]


def planned_gradients(context: AuditContext) -> float:
    """About how many minibatch gradients `stable` takes."""
    settings, n = context.settings, tree.count(context.players)
    draws = len(draws_of(context))
    if n <= settings.spectrum_dense:
        return TRANSPOSED * n * draws
    search = search_cost(context) + TRANSPOSED * 4 * K + probe_cost(context) * probes_of(context)
    again = 0.0 if context.game.zero_sum else FORWARD * settings.spectrum_products
    return (search + again) * draws + 50


# -- the certificate -----------------------------------------------------------------------------------


def _certificate(
    context: AuditContext, moves: Free, seen: JacobianSpectrum, tolerance: Tolerance, tick: Tick
) -> Certificate:
    found, nothing = seen.found, tolerance.value
    live = found.values[np.abs(found.values) > nothing]
    at_rest = all(r <= context.tolerance().value for r in moves.residual.values())
    measured = confirmed(context, seen, moves, tick) if seen.column is not None else None
    leaving = _leaving(seen, measured)
    verdict, remarks = _judged(context, seen, leaving, live, nothing, at_rest)
    refuted = verdict is Verdict.REFUTED
    return Certificate(
        "stable",
        verdict,
        remarks + ".",
        _evidence(context, moves, seen, live, nothing, measured)
        | {"leaving": [leaving.low, leaving.mean, leaving.high]},
        tolerance,
        _scope(context, seen),
        _limits(context, moves, seen, at_rest, live),
        REFERENCES,
        witness=witness_of(context, seen, moves) if refuted else None,
        witness_kind="direction",
    )


def _leaving(seen: JacobianSpectrum, measured: Interval | None) -> Interval:
    """How fast the pair is left, minus the smallest real part: measured on the score split where that could be,
    and widened by the eigenvalue's error on the samples it was found on."""
    error = seen.error
    if measured is None:
        return Interval(-seen.value.real, -seen.value.real - error, -seen.value.real + error)
    return Interval(-measured.mean, -measured.high - error, -measured.low + error)


_CANNOT = "Cannot tell whether the pair is stable: "


def _judged(
    context: AuditContext,
    seen: JacobianSpectrum,
    leaving: Interval,
    live: Complex,
    nothing: float,
    at_rest: bool,
) -> tuple[Verdict, str]:
    """The verdict on "the pair is left no faster than the tolerance", and its sentence without the full stop."""
    found = seen.found
    on = f"{-leaving.high:.3g} to {-leaving.low:.3g} on samples of the score split"
    if seen.value.real < -nothing:
        return _judged_negative(context, seen, leaving, nothing, on)
    if not (found.complete or seen.residual <= nothing or seen.floor >= -nothing):
        return Verdict.UNASSESSED, _CANNOT + (
            f"the smallest real part did not converge within {found.products} products (found: "
            f"{_complex(seen.value)}, up to {seen.residual:.2g}; tolerance {nothing:.2g})"
        )
    if found.complete and not live.size:
        remarks = "No eigenvalue differs from zero: the linear analysis says nothing"
        return Verdict.UNASSESSED, remarks
    sure = decide(leaving, nothing, noise=0.0 if leaving.high <= nothing else None)
    if context.sampled and seen.column is not None and sure.verdict is Verdict.UNASSESSED:
        why = f"{sure.reason.value} (the smallest real part is {on}; tolerance {nothing:.2g})"
        return Verdict.UNASSESSED, _CANNOT + why
    searched = context.sampled or not found.complete
    circling = live[np.abs(live.real) <= nothing]
    if circling.size:
        around = _complex(complex(circling[np.argmax(np.abs(circling.imag))]))
        turns = (
            f"the eigenvalue {around} lies on the imaginary axis, where the linear analysis does not decide: the "
            "players circle the pair, and simultaneous gradient steps of any size leave it"
        )
        if not searched:
            return Verdict.UNASSESSED, _CANNOT + turns
        within = f"within the tolerance of {nothing:.2g}, "
        return (
            Verdict.NOT_REFUTED,
            "Neither stable nor unstable to first order: " + within + turns,
        )
    if searched:
        return Verdict.NOT_REFUTED, _none_below(seen, nothing)
    if not at_rest:
        remarks = "The players' gradients are not zero here: only a pair at rest can be stable"
        return Verdict.UNASSESSED, remarks
    return Verdict.VERIFIED, (
        "Locally stable: every eigenvalue that is not zero has a positive real part, the smallest "
        f"{float(live.real.min()):.3g}; gradient steps converge below a step of {largest_step(live):.3g}"
    )


def _judged_negative(
    context: AuditContext, seen: JacobianSpectrum, leaving: Interval, nothing: float, on: str
) -> tuple[Verdict, str]:
    """The same where an eigenvalue was found that leaves the pair: other samples must confirm it."""
    shown, decision = _complex(seen.value), decide(leaving, nothing)
    if decision.verdict is Verdict.REFUTED:
        span = f"; {on}" if context.sampled else ""
        return Verdict.REFUTED, (
            "Not locally stable: under gradient flow the players leave this pair along a direction whose "
            f"eigenvalue is {shown} (real part{span}; tolerance {nothing:.2g})"
        )
    if seen.column is None:
        return Verdict.UNASSESSED, _CANNOT + (
            f"an eigenvalue {shown} was found, but its eigenvector did not converge, so that no other samples can "
            "confirm it"
        )
    if seen.value.real + seen.error >= -nothing:
        return Verdict.UNASSESSED, _CANNOT + (
            f"the eigenvalue {shown} is known to {seen.error:.2g} only, so ill-conditioned is it"
        )
    if decision.verdict is Verdict.UNASSESSED:
        return Verdict.UNASSESSED, _CANNOT + f"the eigenvalue {shown} has a real part of {on}"
    return Verdict.NOT_REFUTED, (
        f"No eigenvalue found leaves the pair: that of {shown}, found on a few minibatches, has a real part of {on}"
    )


def _none_below(seen: JacobianSpectrum, nothing: float) -> str:
    found, how = seen.found, ""
    some = "No eigenvalue" if found.complete else "No eigenvalue found"
    if not found.complete:
        how = f", known to {seen.residual:.2g} after {found.products} products"
        if seen.floor >= -nothing:
            how += f"; none lies below {seen.floor:.2g}, as the symmetric part tells"
    return (
        f"{some} has a real part below {-nothing:.2g}: the smallest is {_complex(seen.value)}{how}, so gradient flow "
        "does not visibly leave this pair"
    )


def _evidence(
    context: AuditContext,
    moves: Free,
    seen: JacobianSpectrum,
    live: Complex,
    nothing: float,
    measured: Interval | None,
) -> Json:
    found = seen.found
    turning = live[np.abs(live.imag) > 0]
    best: Forecast | None = None
    why = "the smallest real part did not converge"
    if found.complete or "smallest real part" in found.reached:
        best, why = consensus.suggested(found.values, nothing, seen.matrix)
    # Within the tolerance of the imaginary axis, and not of zero, nothing contracts: rotation is total.
    total = bool(((np.abs(live.real) <= nothing) & (np.abs(live.imag) > 2 * nothing)).any())
    q = float((np.abs(live.imag) / np.abs(live.real)).max()) if live.size and not total else 0.0
    lowest = seen.densities["symmetric"].lowest
    keep = _spread(found.values)
    return {
        "parameters": sum(int(m.sum()) for m in moves.masks.values()),
        "complete": found.complete,
        "extremes": {end: _end(seen, end) for end in krylov.ENDS},
        "missing": found.missing,
        "products": found.products,
        "zero": len(found.values) - len(live),
        "turning": len(turning),
        "confirmed": None
        if measured is None
        else {"value": measured.mean, "interval": measured.ends},
        "condition": seen.condition,
        "leftmost": {
            "value": [seen.value.real, seen.value.imag],
            "residual": seen.residual,
            "error": seen.error,
        },
        "q": math.inf if total else q,
        "rotation": "total" if total else "partial" if len(turning) else "none",
        "q_is": "exact" if found.complete else "a lower bound",
        "h_max": 0.0 if total else largest_step(live),
        "h_max_is": "exact" if found.complete else "an upper bound",
        "steps": _steps(context, seen, nothing),
        "consensus": best.describe() if best else None,
        "no_consensus": why,
        "plain": consensus.forecast(0.0, found.values, nothing, seen.matrix).describe(),
        "departure": found.departure,
        "departure_interval": spectrum.interval_of(found),
        "abscissa": {"value": lowest.value, "residual": lowest.residual},
        "abscissa_is": "exact" if found.complete else "an upper bound",
        "densities": {name: spectrum.described(part) for name, part in seen.densities.items()},
        "eigenvalues": [[float(z.real), float(z.imag)] for z in found.values[keep]],
        "residuals": [float(r) for r in found.residuals[keep]],
        "minibatches": len(draws_of(context)),
        "first_order": moves.residual,
    }


def _end(seen: JacobianSpectrum, end: str) -> Json | None:
    """The outermost eigenvalue at an end, or None where it did not converge."""
    found = seen.found
    if not len(found.values) or not (found.complete or end in found.reached):
        return None
    i = krylov.edge(found.values, end, seen.size)
    z = found.values[i]
    return {"value": [float(z.real), float(z.imag)], "residual": float(found.residuals[i])}


def _spread(values: Complex) -> NDArray[np.intp]:
    """Indices of at most `SHOWN` eigenvalues: the outermost at every end in turn."""
    if len(values) <= SHOWN:
        return np.arange(len(values))
    chosen: list[int] = []
    orders = [np.argsort(-score(values), kind="stable") for score in krylov.ENDS.values()]
    for rank in range(len(values)):
        for order in orders:
            if int(order[rank]) not in chosen and len(chosen) < SHOWN:
                chosen.append(int(order[rank]))
    return np.array(sorted(chosen))


def _steps(context: AuditContext, seen: JacobianSpectrum, nothing: float) -> Json | None:
    """What plain gradient steps of the sizes in use do: all |1 - h l| < 1 for eigenvalues of (H / h) J?"""
    rates = context.settings.step_sizes
    if set(rates) != set(context.game.players):
        return None
    h = max(rates.values())
    values = seen.found.values
    even = min(rates.values()) == h
    if not even:
        if seen.matrix is None:
            return {"sizes": rates, "h": h, "why_not": "players' steps differ and J is not dense"}
        weights = [
            np.full(int(free(context).masks[p].sum()), rates[p] / h) for p in context.game.players
        ]
        scaled = np.concatenate(weights)[:, None] * seen.matrix
        values = eigenvalues(torch.from_numpy(scaled)).values
    values = values[np.abs(values) > nothing]
    return {
        "sizes": rates,
        "h": h,
        "h_max": largest_step(values),
        "outside": int((np.abs(1 - h * values) >= 1).sum()),
        "contraction": float(np.abs(1 - h * values).max()) if values.size else 1.0,
    }


def _scope(context: AuditContext, seen: JacobianSpectrum) -> Json:
    scope = context.scope()
    if context.sampled:
        scope["data"] = (
            f"{context.data.name}: {len(draws_of(context))} minibatches of {context.settings.batch} of the part to "
            "optimise; confirmation on the part to score"
        )
    return scope | {
        "matrix": "Jacobian of the gradients of own losses",
        "how": "all eigenvalues, dense" if seen.found.complete else "extremes, Krylov-Schur",
        "derivatives": "exact; singular vectors follow the weights",
    }


def _limits(
    context: AuditContext, moves: Free, seen: JacobianSpectrum, at_rest: bool, live: Complex
) -> tuple[str, ...]:
    found = seen.found
    remarks = [
        "gradient flow of own losses: alternating steps, momentum and preconditioning move eigenvalues",
        *moves.limits(*context.game.players),
    ]
    if not at_rest:
        remarks.append("the analysis is exact for a pair at rest only: see the claim stationary")
    if zero := len(found.values) - len(live):
        remarks.append(
            f"{zero} eigenvalues are zero within the tolerance: directions in which nothing pulls count neither for "
            "nor against stability"
        )
    if kept := seen.kept:
        remarks.append(kept)
    if not found.complete:
        remarks.append(
            "only outer eigenvalues were sought, and a Krylov space may miss one; h_max is an upper bound, q is not "
            "known beyond what was found"
        )
        bounds = found.departure_bounds
        remarks.append(
            "the departure from normality is not known: the search was too small for its interval"
            if bounds is None
            else f"the departure's interval is estimated from {bounds.probes} random vectors, for a matrix as near J "
            "as the eigenvalues' residuals: where those are ill-conditioned, J's own may lie outside"
        )
    elif context.sampled:
        remarks.append("eigenvalues are those of a mean over samples, and move with them")
    if context.sampled:
        remarks.append(
            "the tolerance is a share of an eigenvalue found on the same samples, and is itself uncertain: a real "
            "part close to it may fall on either side"
        )
    return tuple(remarks)


def _unassessed(context: AuditContext, why: str) -> Certificate:
    found = not_assessed("stable", why, scope=context.scope(), references=REFERENCES)
    return replace(found, summary=f"{_CANNOT}{why}.")


def _complex(z: complex) -> str:
    if z.imag == 0:
        return f"{z.real:.3g}"
    return f"{z.real:.3g} +- {abs(z.imag):.3g}i"
