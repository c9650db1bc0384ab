"""Eigenvalues of a game's Jacobian at a pair, against the disc in which gradient steps are stable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from equilibrist import _draws, schedules, tree
from equilibrist._draws import Stream
from equilibrist._errors import GameError, RecipeError
from equilibrist._exact import Exact
from equilibrist._field import VectorField
from equilibrist._jacobian import JacobianOperator
from equilibrist.optimizers import SGD
from equilibrist.solvers import Consensus

if TYPE_CHECKING:
    from equilibrist.run import Run

Complex = NDArray[np.complex128]
Array = NDArray[np.float64]

DENSE = 2500
# ARPACK's searches, own-loss sign: SR decides stability, LI rotation, LR and LM the step size.
SEARCHES = {
    "SR": "smallest real part",
    "LR": "largest real part",
    "LI": "largest imaginary part",
    "LM": "largest modulus",
}
REFERENCES = ("Mescheder, Nowozin and Geiger 2017, inequality 5",)


@dataclass(frozen=True)
class Eigenvalues:
    """Eigenvalues of one matrix.

    Attributes:
        values: [k], by real part and then imaginary part.
        residuals: [k], |M u - l u| for the unit vector u found with l: l is an exact eigenvalue of a
            matrix that differs from M by no more (in the 2-norm).
        complete: all of them (dense), not only extremes.
        size: the norm against which a value counts as zero: |M|_F (dense) or the largest |l| found.
        departure: sqrt(|M|_F^2 - sum |l|^2) / |M|_F, 0 for a normal matrix (Henrici 1962); dense only.
        missing: searches that found nothing that converged, with the reason.
    """

    values: Complex
    residuals: Array
    complete: bool
    size: float
    departure: float | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def nonzero(self) -> Complex:
        """Without what is zero to rounding: |l| <= 1e-8 size. (A defective zero of multiplicity two is
        found to the square root of float64's precision.) Zeros neither limit the step nor attract."""
        return self.values[np.abs(self.values) > 1e-8 * self.size]

    @property
    def h_max(self) -> float:
        """min over nonzero l of 2 Re l / |l|^2: gradient steps x - h v are locally stable iff 0 < h < h_max
        (Mescheder et al. 2017, inequality 5, in the sign of own losses). 0 where some Re l <= 0; infinite
        without nonzero l. From extremes alone it is an upper bound."""
        l = self.nonzero  # noqa: E741
        if not l.size:
            return float("inf")
        return max(0.0, float((2 * l.real / np.abs(l) ** 2).min()))

    @property
    def q(self) -> float:
        """max over nonzero l of |Im l / Re l|: how much rotation there is; infinite where Re l = 0."""
        l = self.nonzero  # noqa: E741
        with np.errstate(divide="ignore"):
            return float((np.abs(l.imag) / np.abs(l.real)).max()) if l.size else 0.0

    def radius(self, h: float) -> float:
        """max |1 - h l|: the factor by which a gradient step contracts, or expands, near the pair."""
        return float(np.abs(1 - h * self.values).max())

    def outside(self, h: float) -> int:
        """How many nonzero l lie outside of the open disc |1 - h l| < 1."""
        return int((np.abs(1 - h * self.nonzero) >= 1).sum())


@dataclass(frozen=True)
class Spectrum:
    """What `spectrum_of` and `spectrum_at` return.

    Attributes:
        jacobian: of J = dv/dx, v the gradients of own losses: stable means Re > 0.
        scaled: of (H / h) J where the players' step sizes H differ, h the largest; else None.
        consensus: of J + gamma J^T J (times H / h), where gamma was given and J is dense.
        gamma: that gamma.
        rates: step size of each player; `h` is the largest. Empty where none is known.
        parameters: n.
        gradients: |v| of each player on the same samples. The linear analysis is that of a stationary pair.
        norms: |x| of each player, to compare them with.
        samples, batches: how many samples, in how many minibatches, J is averaged over.
        zero_sum: whether the game is. Else J is not the Jacobian of one value V.
        notes: what a reader must know, in words.
    """

    jacobian: Eigenvalues
    scaled: Eigenvalues | None
    consensus: Eigenvalues | None
    gamma: float | None
    rates: dict[str, float]
    parameters: int
    gradients: dict[str, float]
    norms: dict[str, float]
    samples: int
    batches: int
    zero_sum: bool
    notes: tuple[str, ...] = ()

    @property
    def h(self) -> float | None:
        """The step size of the disc."""
        return max(self.rates.values()) if self.rates else None

    @property
    def stepped(self) -> Eigenvalues:
        """The eigenvalues that the disc is held against."""
        return self.scaled or self.jacobian

    def describe(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "format": 1,
            "parameters": self.parameters,
            "samples": self.samples,
            "batches": self.batches,
            "zero_sum": self.zero_sum,
            "step_sizes": self.rates,
            "h": self.h,
            "gamma": self.gamma,
            "gradient_norms": self.gradients,
            "parameter_norms": self.norms,
            "jacobian": _described(self.jacobian, self.h),
            "scaled": _described(self.scaled, self.h),
            "consensus": _described(self.consensus, self.h),
            "notes": list(self.notes),
            "references": list(REFERENCES),
        }


def _described(found: Eigenvalues | None, h: float | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "eigenvalues": [[float(z.real), float(z.imag)] for z in found.values],
        "residuals": [float(r) for r in found.residuals],
        "complete": found.complete,
        "zero_to_rounding": len(found.values) - len(found.nonzero),
        "h_max": found.h_max,
        "h_max_is": "exact" if found.complete else "an upper bound",
        "q": found.q,
        "contraction": None if h is None else found.radius(h),
        "outside": None if h is None else found.outside(h),
        "departure_from_normality": found.departure,
        "missing": found.missing,
    }


def eigenvalues(matrix: torch.Tensor) -> Eigenvalues:
    """All eigenvalues of a dense matrix [n, n], in float64."""
    m = matrix.detach().double().cpu().numpy()
    if not np.isfinite(m).all():
        raise GameError(
            "the Jacobian is not finite at this pair: look at the run's losses and gradients"
        )
    values, vectors = np.linalg.eig(m)
    residuals = np.linalg.norm(m @ vectors - vectors * values, axis=0)
    size = float(np.linalg.norm(m))
    lost = max(size**2 - float((np.abs(values) ** 2).sum()), 0.0) ** 0.5
    order = np.lexsort((values.imag, values.real))
    return Eigenvalues(
        values[order].astype(np.complex128),
        residuals[order],
        True,
        size,
        lost / size if size > 0 else 0.0,
    )


def extremes(
    operator: Any, k: int = 8, tolerance: float = 1e-6, iterations: int = 100
) -> Eigenvalues:
    """Extreme eigenvalues of a scipy LinearOperator by ARPACK: k of each of `SEARCHES`.

    What did not converge is left out: a pair counts only if its own residual is at most sqrt(tolerance)
    times the largest |l| found. The start vector is fixed, so the answer is.
    """
    from scipy.sparse import linalg

    eigs: Any = linalg.eigs
    n = operator.shape[0]
    k = max(1, min(k, n - 2))
    start = np.random.default_rng(0).standard_normal(n)
    pairs: list[tuple[complex, Array]] = []
    missing: dict[str, str] = {}
    for which, words in SEARCHES.items():
        try:
            found = eigs(operator, k, which=which, v0=start, tol=tolerance, maxiter=iterations)
        except linalg.ArpackNoConvergence as error:
            found = (error.eigenvalues, error.eigenvectors)
            missing[words] = f"{len(found[0])} of {k} converged within {iterations} iterations"
        except linalg.ArpackError as error:
            missing[words] = str(error).splitlines()[0]
            continue
        pairs += [(complex(z), u) for z, u in zip(found[0], found[1].T, strict=True)]
    largest = max((abs(z) for z, _ in pairs), default=0.0)
    kept: list[tuple[complex, float]] = []
    for z, u in sorted(pairs, key=lambda pair: (pair[0].real, pair[0].imag)):
        image = operator.matvec(u.real) + 1j * operator.matvec(u.imag)
        residual = float(np.linalg.norm(image - z * u) / np.linalg.norm(u))
        if not residual <= tolerance**0.5 * largest:
            continue
        # Several searches find the same: closer than their residuals allow, they are one.
        near = 1e-6 * largest + residual
        if not any(abs(z - other) <= near + r for other, r in kept):
            kept.append((z, residual))
    return Eigenvalues(
        np.array([z for z, _ in kept], dtype=np.complex128),
        np.array([r for _, r in kept]),
        False,
        largest,
        None,
        missing,
    )


def spectrum_at(
    operator: JacobianOperator,
    rates: Mapping[str, float] | None = None,
    *,
    gamma: float | None = None,
    dense: int | None = None,
    k: int = 8,
    samples: int = 0,
    notes: Sequence[str] = (),
) -> Spectrum:
    """The spectrum of J at a pair.

    Args:
        operator: J, averaged over its draws. Take the pair in float64.
        rates: step size of each player of plain gradient steps x - H v; without them there is no disc.
        gamma: also the eigenvalues of J + gamma J^T J, which consensus has at a stationary pair. On
            several draws J^T J is that of the mean J: consensus with two minibatches or more.
        dense: up to so many parameters (None: 2,500) the matrix is built and all eigenvalues are found; beyond,
            extremes by ARPACK through products with J^T, which has the same ones.
        k: eigenvalues for each of ARPACK's searches.
        samples: how many samples the draws hold, for the record.

    Raises:
        RecipeError: a gamma or a step size that is not positive. GameError: a Jacobian that is not finite.
    """
    rates, dense = dict(rates or {}), DENSE if dense is None else dense
    for player, rate in rates.items():
        _positive(f"the {player}'s step size", rate)
    if gamma is not None:
        _positive("gamma", gamma)
    n = operator.shape[0]
    notes = list(notes)
    flat = tree.flatten(operator.players)
    weights = _weights(operator, rates)
    even = bool((weights == 1).all())
    mean = _mean_field(operator)
    if not all(value - value == 0 for value in mean.values()):
        raise GameError("the gradients at this pair are not finite: look at the run's losses")
    if n <= dense:
        J = operator.dense().double().cpu()
        whole = eigenvalues(J)
        scaled = None if even else eigenvalues(weights[:, None] * J)
        pulled = None
        if gamma is not None:
            pulled = eigenvalues(weights[:, None] * (J + gamma * J.mT @ J))
    else:
        # J^T D has the eigenvalues of D J.
        plain = operator.T.to_scipy()
        whole = extremes(plain, k)
        scaled = None if even else extremes(_after(plain, weights.numpy()), k)
        pulled = None
        if gamma is not None:
            notes.append(
                f"Consensus is left out: J + gamma JᵀJ is only taken where J is dense, up to "
                f"{dense:,} parameters, and this pair has {n:,}."
            )
    if flat.dtype != torch.float64:
        notes.append(f"Products were taken in {flat.dtype}: small eigenvalues are rounded.")
    return Spectrum(
        whole,
        scaled,
        pulled,
        gamma if pulled is not None else None,
        rates,
        n,
        mean,
        {player: float(tree.norm(part)) for player, part in operator.players.items()},
        samples,
        len(operator.draws),
        bool(operator.field.game.zero_sum),
        tuple(notes),
    )


def spectrum_of(
    run: Run,
    *,
    gamma: float | None = None,
    lr: float | None = None,
    batches: int = 4,
    batch: int | None = None,
    iterate: str = "last",
    dense: int | None = None,
    k: int = 8,
) -> Spectrum:
    """The spectrum of a run's pair, in float64, on minibatches that training did not see in that order.

    Args:
        gamma: see `spectrum_at`; None takes that of a run trained by `Consensus`.
        lr: the step size of the disc; None takes those of the run's update rules.
        batches, batch: J is the mean over so many minibatches of so many samples (None: the run's own size).
        iterate: "last", "average" or "auto", as in `Run.pair`.
        dense, k: see `spectrum_at`.

    Singular vectors of spectrally normalised weights follow the weights; batch norm takes the statistics of
    each minibatch.

    Raises:
        RecipeError: numbers out of range, or update rules without a step size and no `lr`.
    """
    for name, count in (("batches", batches), ("batch", batch), ("k", k)):
        if count is not None and (not isinstance(count, int) or count < 1):
            raise RecipeError(f"{name}={count!r} of a spectrum: it must be a whole number above 0")
    size = batch or run.recipe.batch
    if run.data.size is not None and size > run.data.size:
        raise RecipeError(
            f"batch={size} is larger than the {run.data.size} samples of {run.data.name}: take fewer"
        )
    wide = torch.float64
    players, constants = (tree.to(t, dtype=wide) for t in (run.pair(iterate), run.constants))
    anchor = tree.leaves(players)[0].device
    game = run.recipe.game
    constants = game.refresh(players, constants, {}, exact=True)
    data = run.data.to(anchor, wide)
    draws = [
        game.draw(
            _draws.generator(run.seed, Stream.AUDIT, i, index=2**33), data, size, wide, anchor
        )
        for i in range(batches)
    ]
    rates, notes = step_sizes(run.recipe.solver, game.players) if lr is None else ({}, ())
    if lr is not None:
        rates = dict.fromkeys(game.players, lr)
    solver = inner(run.recipe.solver)
    own = solver.gamma if isinstance(solver, Consensus) else None
    if gamma is None and isinstance(own, float | int) and own > 0:
        gamma = own
    operator = JacobianOperator(VectorField(Exact(game)), players, constants, draws)
    return spectrum_at(
        operator, rates, gamma=gamma, dense=dense, k=k, samples=batches * size, notes=notes
    )


def inner(solver: Any) -> Any:
    """The method inside of averages and lookahead."""
    while hasattr(solver, "solver"):
        solver = solver.solver
    return solver


def step_sizes(solver: Any, players: Sequence[str]) -> tuple[dict[str, float], tuple[str, ...]]:
    """(step size of each player's rule, what must be said about them).

    Raises RecipeError for a rule without a step size.
    """
    method = inner(solver)
    rates, notes = {}, []
    for player in players:
        rule = method.rule(player)
        plain = schedules.base(rule)
        rate = getattr(plain, "lr", None)
        if not isinstance(rate, float | int):
            raise RecipeError(f"the {player}'s rule {rule} has no step size: give one with --lr")
        rates[player] = float(rate)
        if not isinstance(plain, SGD):
            notes.append(
                f"{type(plain).__name__} preconditions its steps. The disc is that of plain gradient steps with "
                f"the same step size: it says nothing of what {type(plain).__name__} itself does."
            )
        elif plain.momentum:
            notes.append(f"The disc is that of steps without the momentum of {plain.momentum:g}.")
        if plain is not rule:
            notes.append(
                "The step size is the rule's own, before schedules and clipping change it."
            )
    name = type(method).__name__
    if name != "Simultaneous":
        notes.append(
            f"The disc is that of simultaneous gradient steps; this run's method is {name}."
        )
    return rates, tuple(dict.fromkeys(notes))


def _weights(operator: JacobianOperator, rates: Mapping[str, float]) -> torch.Tensor:
    """H / h of every parameter [n], ones without rates."""
    largest = max(rates.values(), default=1.0)
    parts = [
        torch.full((tree.count(part),), rates.get(player, largest) / largest, dtype=torch.float64)
        for player, part in operator.players.items()
    ]
    return torch.cat(parts)


def _mean_field(operator: JacobianOperator) -> dict[str, float]:
    """|mean of v over the draws| of each player."""
    total: Any = None
    for draw in operator.draws:
        v, _ = operator.field(operator.players, operator.constants, draw)
        total = v if total is None else tree.axpy(1.0, total, v)
    mean = tree.scale(1 / len(operator.draws), total)
    return {player: float(tree.norm(part)) for player, part in mean.items()}


def _after(operator: Any, weights: Array) -> Any:
    from scipy.sparse.linalg import LinearOperator

    product: Callable[[Any], Any] = lambda u: operator.matvec(weights * u.reshape(-1))  # noqa: E731
    return LinearOperator(operator.shape, matvec=product, dtype="float64")


def _positive(what: str, value: Any) -> None:
    if not isinstance(value, float | int) or not 0 < value < float("inf"):
        raise RecipeError(f"{what} of a spectrum must be positive, not {value!r}")
