"""Eigenvalues of a game's Jacobian at a pair, against the disc in which gradient steps are stable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from equilibrist import tree
from equilibrist.certificates import Json
from equilibrist.core.jacobian import JacobianOperator
from equilibrist.core.numpy_errors import usual_errors
from equilibrist.errors import GameError, RecipeError
from equilibrist.spectra import consensus, density, krylov, normality
from equilibrist.spectra.arrays import Array, Product
from equilibrist.spectra.density import SpectralDensity
from equilibrist.spectra.eigenvalues import Eigenvalues, eigenvalues
from equilibrist.spectra.player_densities import exact_densities, lanczos_densities
from equilibrist.spectra.products import Tick, counted, dense_matrix, product_with

if TYPE_CHECKING:
    pass


DENSE = 2500
PRODUCTS = 1000  # of each Krylov search at most
STEPS = 30  # of Lanczos, where densities are not exact
PROBES = 8  # random vectors for the departure from normality, where it is not exact
REFERENCES = (
    "Mescheder, Nowozin and Geiger 2017, inequality 5",
    krylov.REFERENCE,
    density.REFERENCE,
    *normality.REFERENCES,
)


@dataclass(frozen=True)
class Spectrum:
    """What `spectrum_of` and `spectrum_at` return.

    Attributes:
        jacobian: of J = dv/dx, v the gradients of own losses: stable means Re > 0.
        scaled: of (H / h) J where the players' step sizes H differ, h the largest; else None.
        consensus: of J + gamma J^T J (times H / h), where gamma was given.
        gamma: that gamma.
        rates: step size of each player; `h` is the largest. Empty where none is known.
        parameters: n.
        gradients: |v| of each player on the same samples. The linear analysis is that of a stationary pair.
        norms: |x| of each player, to compare them with.
        samples, batches: how many samples, in how many minibatches, J is averaged over.
        zero_sum: whether the game is. Else J is not the Jacobian of one value V.
        notes: what a reader must know, in words.
        densities: of the real spectra: each player's own Hessian, and "symmetric", (J + J^T) / 2, whose lowest
            end is the numerical abscissa (see `normality.abscissa`).
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
    densities: dict[str, SpectralDensity] = field(default_factory=dict)

    @property
    def h(self) -> float | None:
        """The step size of the disc."""
        return max(self.rates.values()) if self.rates else None

    @property
    def stepped(self) -> Eigenvalues:
        """The eigenvalues that the disc is held against."""
        return self.scaled or self.jacobian

    def describe(self) -> Json:
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
            "densities": {name: described(found) for name, found in self.densities.items()},
            "notes": list(self.notes),
            "references": list(REFERENCES),
        }


def described(found: SpectralDensity) -> Json:
    """A density as plain values: its ends with residuals, and its curve in at most 200 numbers."""
    return {
        "lowest": [found.lowest.value, found.lowest.residual],
        "highest": [found.highest.value, found.highest.residual],
        "exact": found.probes == 0,
        "probes": found.probes,
        "steps": found.steps,
        **found.curve(),
    }


def _described(found: Eigenvalues | None, h: float | None) -> Json | None:
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
        "departure_interval": interval_of(found),
        "missing": found.missing,
    }


def interval_of(found: Eigenvalues) -> list[float] | None:
    """[low, high] of the departure from normality where it is estimated."""
    bounds = found.departure_bounds
    return None if bounds is None else [bounds.low, bounds.high]


@usual_errors
def spectrum_at(  # its numbers are what callers choose one by one
    operator: JacobianOperator,
    rates: Mapping[str, float] | None = None,
    *,
    gamma: float | None = None,
    dense: int | None = None,
    k: int = 8,
    products: int = PRODUCTS,
    samples: int = 0,
    notes: Sequence[str] = (),
    tick: Tick = lambda products: None,
) -> Spectrum:
    """The spectrum of J at a pair.

    Args:
        operator: J, averaged over its draws. Take the pair in float64.
        rates: step size of each player of plain gradient steps x - H v; without them there is no disc.
        gamma: also the eigenvalues of J + gamma J^T J, which consensus has at a stationary pair. On several draws
            J^T J is that of the mean J: consensus with two minibatches or more.
        dense: up to so many parameters (None: 2,500) the matrix is built and all eigenvalues are found; beyond, the
            outermost by Krylov-Schur, and the departure from normality as an estimated interval (`henrici_bounds`).
        k: eigenvalues at each end of the spectrum; `products` of each Krylov search at most.
        samples: how many samples the draws hold, for the record.
        tick: called with products with J or J^T as they are made (`planned_products`).

    Returns:
        Eigenvalues, densities, the disc and what consensus would change.

    Raises:
        RecipeError: a gamma or a step size that is not positive. GameError: a Jacobian that is not finite.
    """
    rates, n = dict(rates or {}), operator.shape[0]
    _require_positive({f"the {p}'s step size": rate for p, rate in rates.items()}, gamma)
    mean = _mean_field(operator)
    if not all(value - value == 0 for value in mean.values()):
        raise GameError("the gradients at this pair are not finite: look at the run's losses")
    weights = _weights(operator, rates)
    whole, scaled, pulled, densities = (
        _from_matrix(operator, weights, gamma, tick)
        if n <= (DENSE if dense is None else dense)
        else _from_products(operator, weights, gamma, k, products, tick)
    )
    if operator.dtype != torch.float64:
        rounded = f"Products were taken in {operator.dtype}: small eigenvalues are rounded."
        notes = (*notes, rounded)
    return Spectrum(
        whole,
        scaled,
        pulled,
        gamma,
        rates,
        n,
        mean,
        {player: float(tree.norm(part)) for player, part in operator.players.items()},
        samples,
        len(operator.draws),
        bool(operator.field.game.zero_sum),
        tuple(notes),
        densities,
    )


# Eigenvalues of J, of J with unequal step sizes, of J with consensus; and the densities.
_Parts = tuple[Eigenvalues, Eigenvalues | None, Eigenvalues | None, dict[str, SpectralDensity]]


def _from_matrix(
    operator: JacobianOperator, weights: torch.Tensor, gamma: float | None, tick: Tick
) -> _Parts:
    """All eigenvalues, from the whole matrix."""
    J = dense_matrix(operator, tick).double().cpu()
    scaled = pulled = None
    if not bool((weights == 1).all()):
        scaled = eigenvalues(weights[:, None] * J)
    if gamma is not None:
        pulled = eigenvalues(weights[:, None] * (J + gamma * J.mT @ J))
    sizes = {p: tree.count(part) for p, part in operator.players.items()}
    return eigenvalues(J), scaled, pulled, exact_densities(J.numpy(), sizes)


def _from_products(  # the arguments of `spectrum_at` that its searches need
    operator: JacobianOperator,
    weights: torch.Tensor,
    gamma: float | None,
    k: int,
    products: int,
    tick: Tick,
) -> _Parts:
    """The outermost eigenvalues, by searches through products. J^T D has the eigenvalues of D J."""
    forward, backward = (counted(product_with(op), tick) for op in (operator, operator.T))
    n, scale = operator.shape[0], weights.numpy()
    whole = _outermost(backward, forward, n, k, products)
    scaled = pulled = None
    if not bool((weights == 1).all()):
        after: Product = lambda u: backward(scale * u)  # noqa: E731
        scaled = _outermost(after, lambda u: scale * forward(u), n, k, products)
    if gamma is not None:
        product = consensus.transposed(forward, backward, gamma, scale)
        plus = gamma

        def straight(u: Array) -> Array:
            image = forward(u)
            moved: Array = scale * (image + plus * backward(image))
            return moved

        pulled = _outermost(product, straight, n, k, products)
    return whole, scaled, pulled, lanczos_densities(operator, STEPS, np.random.default_rng(0))


def planned_products(n: int, even: bool, gamma: bool, dense: int, products: int) -> float:
    """Products with J or J^T that `spectrum_at` makes, at most: n where the matrix is built, else those of its
    searches (J + gamma J^T J takes two each)."""
    return n if n <= dense else products * (1.0 + (not even) + 2.0 * gamma)


def _outermost(product: Product, transposed: Product, n: int, k: int, products: int) -> Eigenvalues:
    """Extremes of a matrix [n, n] by `product`, and where its departure from normality lies."""
    found = krylov.krylov(product, n, k=k, products=products)
    bounds = normality.henrici_bounds(
        product, transposed, n, PROBES, np.random.default_rng(1), found.values, found.vectors
    )
    return replace(krylov.without_vectors(found, k), departure_bounds=bounds)


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
    mean = tree.mean(
        operator.field(operator.players, operator.constants, draw).v for draw in operator.draws
    )
    return {player: float(tree.norm(part)) for player, part in mean.items()}


def _require_positive(rates: Mapping[str, object], gamma: object) -> None:
    for what, value in (rates if gamma is None else {**rates, "gamma": gamma}).items():
        if (
            isinstance(value, bool)
            or not isinstance(value, float | int)
            or not 0 < value < float("inf")
        ):
            raise RecipeError(f"{what} of a spectrum must be positive, not {value!r}")
