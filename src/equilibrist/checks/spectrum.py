"""Is the pair locally stable? The eigenvalues of the game's Jacobian that decide it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from equilibrist import _draws, tree
from equilibrist._draws import Draw, Stream
from equilibrist._errors import GameError
from equilibrist._game import Players
from equilibrist._jacobian import JacobianOperator
from equilibrist.checks._bench import Bench, Interval
from equilibrist.checks._linear import Free, free, inexact
from equilibrist.checks.certificate import Certificate, Tolerance, Verdict
from equilibrist.spectra import consensus, density, krylov, normality, spectrum
from equilibrist.spectra.consensus import Forecast
from equilibrist.spectra.density import Density
from equilibrist.spectra.eigenvalues import (
    Array,
    Complex,
    Eigenvalues,
    eigenpairs,
    eigenvalues,
    largest_step,
)

REFERENCES = (
    "Mescheder, Nowozin and Geiger 2017, inequality 5 (steps) and section 4 (consensus)",
    "Nagarajan and Kolter 2017 (local stability of GAN training)",
    krylov.REFERENCE,
    density.REFERENCE,
    *normality.REFERENCES,
)
TRANSPOSED, FORWARD, OWN = (
    2.1,
    2.7,
    1.1,
)  # gradients that a product with J^T, J, a player's Hessian costs
K = 4  # eigenvalues at each end
ROUNDING = 1e-8  # relative to the largest modulus: what is zero where losses are exact
SHOWN = 100  # numbers of each list of eigenvalues

# Random numbers of this check: index 2**36 + small.
INDEX = 2**36


@dataclass
class Seen:
    """The spectrum of J over the coordinates that may move, [n].

    Attributes:
        found: eigenvalues, complete or extremes.
        size: the largest modulus.
        row, column: of the eigenvalue with the smallest real part: unit vectors with r^T J = l r^T and
            J c = l c; None where not found.
        index: its place in `found`; None where none converged.
        matrix: J where it is dense.
    """

    found: Eigenvalues
    size: float
    index: int | None
    row: Complex | None
    column: Complex | None
    densities: dict[str, Density] = field(default_factory=dict)
    matrix: Array | None = None

    @property
    def condition(self) -> float | None:
        """How far the eigenvalue moves, to first order, when J changes by one."""
        if self.row is None or self.column is None:
            return None
        overlap = abs(complex(self.row @ self.column))
        return 1 / overlap if overlap > 0 else float("inf")


def stable(bench: Bench, tick: Any = lambda gradients=1.0: None) -> list[Certificate]:
    """Certificate "stable": near the pair, gradient flow of own losses x' = -v(x) comes back to it.

    That is so if every eigenvalue l of J = dv/dx has a positive real part, and not if one has a negative
    one. Up to `spectrum_dense` free parameters all eigenvalues are found, beyond the outermost ones by
    Krylov-Schur with `spectrum_products` products, in the search's precision, those that decide
    refined in float64. J is the mean over `spectrum_batches` minibatches of the part to optimise.

    An eigenvalue counts as negative if its real part is below the tolerance by more than its error: residual
    and rounding, times 1 / |r^T c|, r and c its unit left and right eigenvectors (first-order perturbation
    theory: J is not normal). On sampled losses r^T J_B c / r^T c on batches B of the score split, whose mean is the
    eigenvalue of the mean J to first order, must confirm it.

    VERIFIED: losses are exact, J is dense, the pair is at rest, and every eigenvalue that is not zero to
    rounding has a positive real part. REFUTED: one is negative; the witness is its eigenvector's real part.
    NOT_REFUTED: none found is. UNASSESSED: the smallest real part did not converge, the score split
    does not confirm it, an eigenvalue lies on the imaginary axis, or the pair is not at rest.
    """
    if why := inexact(bench):
        return [_unassessed(bench, why)]
    moves = free(bench)
    try:
        seen = _seen(bench, moves, tick)
    except (GameError, np.linalg.LinAlgError) as error:
        return [_unassessed(bench, str(error).splitlines()[0])]
    if seen is None:
        return [_unassessed(bench, "the boundary of the feasible set holds every parameter")]
    share = bench.settings.spectrum_tolerance if bench.sampled else ROUNDING
    tolerance = Tolerance(
        share * seen.size,
        f"{bench.unit} per squared unit of the parameters",
        f"{share:g} of the largest eigenvalue's modulus, {seen.size:.4g}",
    )
    return [_certificate(bench, moves, seen, tolerance, tick)]


def work(bench: Bench) -> float:
    """About how many minibatch gradients `stable` takes."""
    settings, n = bench.settings, tree.count(bench.players)
    draws = len(_draws_of(bench))
    if n <= settings.spectrum_dense:
        return TRANSPOSED * n * draws
    products, steps = settings.spectrum_products, _lanczos_steps(bench)
    whole = 0.0 if bench.game.zero_sum else TRANSPOSED + FORWARD
    search = TRANSPOSED * (products + 4 * K) + steps * (2 * OWN + whole)
    again = 0.0 if bench.game.zero_sum else FORWARD * products
    return (search + again) * draws + 50


def _draws_of(bench: Bench) -> list[Draw]:
    if not bench.sampled:
        return [{}]
    return bench.linear_draws()[: bench.settings.spectrum_batches]


def _lanczos_steps(bench: Bench) -> int:
    return max(2, bench.settings.spectrum_products // 4)


def _rng(bench: Bench, k: int) -> np.random.Generator:
    return _draws.generator(bench.seed, Stream.AUDIT, index=INDEX + k)


# -- eigenvalues -------------------------------------------------------------------------------------


def _seen(bench: Bench, moves: Free, tick: Any) -> Seen | None:
    masks = {p: moves.masks[p].cpu().numpy() for p in bench.game.players}
    mask = np.concatenate(list(masks.values()))
    n = int(mask.sum())
    if not n:
        return None
    draws = _draws_of(bench)
    exact = JacobianOperator(bench.smooth(), *bench.wide, draws)
    if n <= bench.settings.spectrum_dense:
        return _dense(exact, masks, mask, tick)
    return _sparse(bench, exact, masks, mask, tick)


def _dense(
    operator: JacobianOperator,
    masks: dict[str, NDArray[np.bool_]],
    mask: NDArray[np.bool_],
    tick: Any,
) -> Seen:
    whole = operator.dense().cpu()
    tick(TRANSPOSED * operator.shape[0] * len(operator.draws))
    kept = torch.from_numpy(mask)
    found, right, left = eigenpairs(whole[kept][:, kept])
    J = whole[kept][:, kept].numpy()
    densities, start = {}, 0
    for player, own in masks.items():
        stop = start + int(own.sum())
        if stop > start:
            densities[player] = density.exact_density(J[start:stop, start:stop])
        start = stop
    densities["symmetric"] = density.exact_density(J)
    size = float(np.abs(found.values).max())
    index = int(np.argmin(found.values.real))
    return Seen(found, size, index, left[:, index].conj(), right[:, index], densities, J)


def _sparse(
    bench: Bench,
    exact: JacobianOperator,
    masks: dict[str, NDArray[np.bool_]],
    mask: NDArray[np.bool_],
    tick: Any,
) -> Seen:
    settings, count = bench.settings, len(exact.draws)
    quick = _quick(bench, exact)
    # Products in float32 are wrong by some 1e-6 of the norm: nothing converges further than that.
    wide = quick.dtype == torch.float64
    close = 1e-6 if wide else 1e-5
    n = int(mask.sum())
    budget: dict[str, Any] = {
        "tolerance": close,
        "products": settings.spectrum_products,
        "rounding": 1e-15 if wide else 5e-6,
    }
    first = krylov.krylov(
        spectrum.products_of(quick.T, mask=mask), n, k=K, rng=_rng(bench, 0), **budget
    )
    tick(TRANSPOSED * first.products * count)
    found = krylov.listed(first, K)
    densities = spectrum.lanczos_densities(quick, _lanczos_steps(bench), _rng(bench, 1), masks)
    steps = densities["symmetric"].steps
    whole = 0.0 if bench.game.zero_sum else TRANSPOSED + FORWARD
    tick(steps * count * (OWN * len(masks) + whole))
    if not len(first.values):
        return Seen(found, first.size, None, None, None, densities)
    # The eigenvalues that decide, in float64: whichever converged at each end.
    least = int(np.argmin(first.values.real))
    decide = sorted({least, *(i for end in krylov.ENDS if (i := first.outermost(end)) is not None)})
    backward = spectrum.products_of(exact.T, mask=mask)
    sharp = krylov.refined(backward, first.values[decide], first.vectors[:, decide])
    tick(TRANSPOSED * sharp.products * count)
    found, kept = _sharpened(found, sharp, decide, close * first.size)
    if not len(kept.values):
        return Seen(found, first.size, None, None, None, densities)
    at = int(np.argmin(kept.values.real))
    row, value = kept.vectors[:, at], kept.values[at]
    index = int(np.argmin(np.abs(found.values - value)))
    column: Complex | None = None
    negative = value.real < -_share(bench) * first.size
    if bench.game.zero_sum:
        # J = K J^T K, K = 1 on the first player and -1 on the second: J^T r = l r gives J K r = l K r.
        signs = np.concatenate(
            [np.full(len(m), 1.0 - 2.0 * i) for i, m in enumerate(masks.values())]
        )
        column = signs[mask] * row
    elif negative:
        column = _column(bench, quick, mask, value, row, budget, tick)
    return Seen(found, first.size, index, row, column, densities)


def _share(bench: Bench) -> float:
    return bench.settings.spectrum_tolerance if bench.sampled else ROUNDING


def _quick(bench: Bench, exact: JacobianOperator) -> JacobianOperator:
    """J in the precision of the searches (on a GPU in float64: its float32 convolutions may be rounded to ten
    bits)."""
    dtype = bench.dtype
    if dtype not in (torch.float32, torch.float64) or bench.device.type != "cpu":
        dtype = torch.float64
    if dtype == torch.float64:
        return exact
    draws = [tree.to(draw, dtype=dtype) for draw in exact.draws]
    return JacobianOperator(bench.smooth(), bench.players, bench.constants, draws)


def _sharpened(
    found: Eigenvalues, sharp: krylov.Ritz, decide: list[int], close: float
) -> tuple[Eigenvalues, krylov.Ritz]:
    """`found` with the refined values in their places, and the refined ones; both without what was not confirmed
    in float64."""
    values, residuals = found.values.copy(), found.residuals.copy()
    good = np.ones(len(values), bool)
    for i, z, residual in zip(decide, sharp.values, sharp.residuals, strict=True):
        partner = int(np.argmin(np.abs(found.values - found.values[i].conjugate())))
        values[partner], values[i] = z.conjugate(), z
        residuals[[i, partner]], good[[i, partner]] = residual, residual <= close
    order = np.lexsort((values.imag, values.real))
    order = order[good[order]]
    sure = sharp.residuals <= close
    lost = {} if sure.all() else {"float64": f"{int((~sure).sum())} of {len(sure)} not confirmed"}
    return (
        Eigenvalues(
            values[order],
            residuals[order],
            False,
            found.size,
            missing={**found.missing, **lost},
            reached=found.reached if sure.all() else (),
            products=found.products,
        ),
        krylov.Ritz(
            sharp.values[sure],
            sharp.residuals[sure],
            sharp.vectors[:, sure],
            sharp.size,
            {},
            sharp.products,
        ),
    )


def _column(
    bench: Bench,
    quick: JacobianOperator,
    mask: NDArray[np.bool_],
    value: complex,
    row: Complex,
    budget: dict[str, Any],
    tick: Any,
) -> Complex | None:
    """The right eigenvector of an eigenvalue that J^T has shown, by products with J; None where it does not
    converge. The left one, where the search begins, is close where J is close to normal."""
    found = krylov.krylov(
        spectrum.products_of(quick, mask=mask),
        int(mask.sum()),
        k=1 if value.imag == 0 else 2,
        ends=("smallest real part",),
        rng=_rng(bench, 2),
        start=row.real + row.imag,
        **budget,
    )
    tick(FORWARD * found.products * len(quick.draws))
    if not len(found.values):
        return None
    nearest = int(np.argmin(np.abs(found.values - value)))
    close = 10 * budget["tolerance"] * found.size
    if abs(found.values[nearest] - value) > max(close, 1e-2 * abs(value)):
        return None
    vector: Complex = found.vectors[:, nearest]
    return vector


# -- confirmation on unseen samples --------------------------------------------------------------------


def _confirmed(bench: Bench, seen: Seen, moves: Free, tick: Any) -> Interval:
    """Re r^T J_B c / r^T c over batches B of the score split."""
    assert seen.row is not None
    assert seen.column is not None
    mask = np.concatenate([moves.masks[p].cpu().numpy() for p in bench.game.players])
    overlap = complex(seen.row @ seen.column)
    values, samples = [], 0
    for draw in bench.bank("score"):
        operator = JacobianOperator(bench.smooth(), *bench.wide, [draw])
        backward = spectrum.products_of(operator.T, mask=mask)
        image = backward(np.ascontiguousarray(seen.row.real)) + 0j
        if np.abs(seen.row.imag).max() > 0:
            image = image + 1j * backward(np.ascontiguousarray(seen.row.imag))
        values.append((complex(image @ seen.column) / overlap).real)
        size = max((len(t) for t in draw.values() if t.ndim), default=0)
        tick(3 * TRANSPOSED * size / bench.settings.batch)
        samples += size
        # As many samples as eight minibatches hold.
        if samples >= 8 * bench.settings.batch and len(values) >= 8:
            break
    return bench.interval(torch.tensor(values, dtype=torch.float64))


def _witness(bench: Bench, seen: Seen, moves: Free) -> Players:
    """The real part of the eigenvector, a unit direction over all players; a conjugate pair's is turned to where
    the real part is longest."""
    assert seen.column is not None
    turn = np.angle(complex(seen.column @ seen.column)) / 2
    direction = (seen.column * np.exp(-1j * turn)).real
    direction /= np.linalg.norm(direction)
    mask = np.concatenate([moves.masks[p].cpu().numpy() for p in bench.game.players])
    whole = np.zeros(len(mask))
    whole[mask] = direction * (1 if direction[np.argmax(np.abs(direction))] > 0 else -1)
    players, _ = bench.wide
    ordered = {p: players[p] for p in bench.game.players}
    return tree.unflatten(torch.from_numpy(whole), ordered)


# -- the certificate -----------------------------------------------------------------------------------


def _certificate(
    bench: Bench, moves: Free, seen: Seen, tolerance: Tolerance, tick: Any
) -> Certificate:
    found, nothing = seen.found, tolerance.value
    live = found.values[np.abs(found.values) > nothing]
    value = complex(found.values[seen.index]) if seen.index is not None else None
    condition = seen.condition
    error = None
    if seen.index is not None and condition is not None:
        # The residual, and what rounding does to any matrix of this size.
        backward = float(np.finfo(np.float64).eps) * sum(int(m.sum()) for m in moves.masks.values())
        error = (float(found.residuals[seen.index]) + backward * seen.size) * condition
    measured: Interval | None = None
    witness: Players | None = None
    reached = found.complete or "smallest real part" in found.reached
    at_rest = all(r <= bench.tolerance().value for r in moves.residual.values())
    shown = "" if value is None else _complex(value)

    if value is not None and value.real < -nothing:
        if error is None:
            verdict = Verdict.UNASSESSED
            said = (
                f"Cannot tell whether the pair is stable: an eigenvalue {shown} was found, but its eigenvector did "
                "not converge, so that no other samples can confirm it"
            )
        elif value.real + error >= -nothing:
            verdict = Verdict.UNASSESSED
            said = (
                f"Cannot tell whether the pair is stable: the eigenvalue {shown} is known to {error:.2g} only, so "
                f"ill-conditioned is it"
            )
        else:
            measured = _confirmed(bench, seen, moves, tick)
            if measured.high < -nothing:
                verdict, witness = Verdict.REFUTED, _witness(bench, seen, moves)
                on = (
                    f"; {measured.low:.3g} to {measured.high:.3g} on samples of the score split"
                    if bench.sampled
                    else ""
                )
                said = (
                    "Not locally stable: under gradient flow the players leave this pair along a direction "
                    f"whose eigenvalue is {shown} (real part{on}; tolerance {nothing:.2g})"
                )
            else:
                verdict = Verdict.UNASSESSED
                said = (
                    f"Cannot tell whether the pair is stable: the eigenvalue {shown} has a real part of "
                    f"{measured.low:.3g} to {measured.high:.3g} on samples of the score split"
                )
    elif not reached:
        verdict = Verdict.UNASSESSED
        said = (
            "Cannot tell whether the pair is stable: the smallest real part did not converge within "
            f"{found.products} products"
        )
    elif not live.size:
        verdict = Verdict.UNASSESSED
        said = "No eigenvalue differs from zero: the linear analysis says nothing"
    elif bench.sampled or not found.complete:
        verdict = Verdict.NOT_REFUTED
        some = "No eigenvalue" if found.complete else "No eigenvalue found"
        said = (
            f"{some} has a real part below {-nothing:.2g}: the smallest is {shown}, so gradient flow does not "
            "visibly leave this pair"
        )
    elif bool((live.real <= nothing).any()):
        verdict = Verdict.UNASSESSED
        said = (
            f"Cannot tell whether the pair is stable: the eigenvalue {_complex(complex(live[np.argmin(live.real)]))} "
            "lies on the imaginary axis, where the linear analysis does not decide, and no gradient step is stable"
        )
    elif not at_rest:
        verdict = Verdict.UNASSESSED
        said = "The players' gradients are not zero here: only a pair at rest can be stable"
    else:
        verdict = Verdict.VERIFIED
        said = (
            f"Locally stable: every eigenvalue that is not zero has a positive real part, the smallest "
            f"{float(live.real.min()):.3g}; gradient steps converge below a step of {largest_step(live):.3g}"
        )
    return Certificate(
        "stable",
        verdict,
        said + ".",
        _evidence(bench, moves, seen, live, nothing, measured),
        tolerance,
        _scope(bench, seen),
        _limits(bench, moves, seen, at_rest, live),
        REFERENCES,
        witness=witness,
        witness_kind="direction",
    )


def _evidence(
    bench: Bench,
    moves: Free,
    seen: Seen,
    live: Complex,
    nothing: float,
    measured: Interval | None,
) -> dict[str, Any]:
    found = seen.found
    turning = live[np.abs(live.imag) > 0]
    best: Forecast | None = None
    why = "the smallest real part did not converge"
    if found.complete or "smallest real part" in found.reached:
        best, why = consensus.suggested(found.values, nothing, seen.matrix)
    with np.errstate(divide="ignore"):
        q = float((np.abs(live.imag) / np.abs(live.real)).max()) if live.size else 0.0
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
        else {"value": measured.mean, "interval": [measured.low, measured.high]},
        "condition": seen.condition,
        "q": q,
        "q_is": "exact" if found.complete else "a lower bound",
        "h_max": largest_step(live),
        "h_max_is": "exact" if found.complete else "an upper bound",
        "steps": _steps(bench, seen, nothing),
        "consensus": best.describe() if best else None,
        "no_consensus": why,
        "plain": consensus.forecast(0.0, found.values, nothing, seen.matrix).describe(),
        "departure": found.departure,
        "abscissa": {"value": lowest.value, "residual": lowest.residual},
        "abscissa_is": "exact" if found.complete else "an upper bound",
        "densities": {name: spectrum.described(part) for name, part in seen.densities.items()},
        "eigenvalues": [[float(z.real), float(z.imag)] for z in found.values[keep]],
        "residuals": [float(r) for r in found.residuals[keep]],
        "minibatches": len(_draws_of(bench)),
        "first_order": moves.residual,
    }


def _end(seen: Seen, end: str) -> dict[str, Any] | None:
    """The outermost eigenvalue at an end, or None where it did not converge."""
    found = seen.found
    if not len(found.values) or not (found.complete or end in found.reached):
        return None
    score = krylov.ENDS[end](found.values)
    near = np.flatnonzero(score >= score.max() - 1e-12 * seen.size)
    i = int(near[np.argmax(found.values[near].imag)])
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


def _steps(bench: Bench, seen: Seen, nothing: float) -> dict[str, Any] | None:
    """What plain gradient steps of the sizes in use do: all |1 - h l| < 1 for eigenvalues of (H / h) J?"""
    rates = bench.settings.step_sizes
    if set(rates) != set(bench.game.players):
        return None
    h = max(rates.values())
    values = seen.found.values
    even = min(rates.values()) == h
    if not even:
        if seen.matrix is None:
            return {"sizes": rates, "h": h, "why_not": "players' steps differ and J is not dense"}
        weights = [
            np.full(int(free(bench).masks[p].sum()), rates[p] / h) for p in bench.game.players
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


def _scope(bench: Bench, seen: Seen) -> dict[str, Any]:
    scope = bench.scope()
    if bench.sampled:
        scope["data"] = (
            f"{bench.data.name}: {len(_draws_of(bench))} minibatches of {bench.settings.batch} of the part to "
            "optimise; confirmation on the part to score"
        )
    return scope | {
        "matrix": "Jacobian of the gradients of own losses",
        "how": "all eigenvalues, dense" if seen.found.complete else "extremes, Krylov-Schur",
        "derivatives": "exact; singular vectors follow the weights",
    }


def _limits(bench: Bench, moves: Free, seen: Seen, at_rest: bool, live: Complex) -> tuple[str, ...]:
    found = seen.found
    said = [
        "gradient flow of own losses: alternating steps, momentum and preconditioning move eigenvalues",
        *moves.limits(*bench.game.players),
    ]
    if not at_rest:
        said.append("the analysis is exact for a pair at rest only: see the claim stationary")
    if zero := len(found.values) - len(live):
        said.append(
            f"{zero} eigenvalues are zero within the tolerance: directions in which nothing pulls count neither for "
            "nor against stability"
        )
    if not found.complete:
        said.append(
            "only outer eigenvalues were sought, and a Krylov space may miss one; h_max is an upper bound, q and "
            "the departure are not known beyond what was found"
        )
    elif bench.sampled:
        said.append("eigenvalues are those of a mean over samples, and move with them")
    return tuple(said)


def _unassessed(bench: Bench, why: str) -> Certificate:
    return Certificate(
        "stable",
        Verdict.UNASSESSED,
        f"Cannot tell whether the pair is stable: {why}.",
        {},
        scope=bench.scope(),
        references=REFERENCES,
    )


def _complex(z: complex) -> str:
    if z.imag == 0:
        return f"{z.real:.3g}"
    return f"{z.real:.3g} +- {abs(z.imag):.3g}i"
