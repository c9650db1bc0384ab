"""Eigenvalues of a game's Jacobian at a pair, against the disc in which gradient steps are stable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from equilibrist import schedules, tree
from equilibrist.core.draws import Use
from equilibrist.core.exact import Exact
from equilibrist.core.field import VectorField
from equilibrist.core.jacobian import HessianOperator, JacobianOperator
from equilibrist.core.numpy_errors import usual_errors
from equilibrist.errors import GameError, RecipeError
from equilibrist.optimizers import SGD
from equilibrist.progress import showing
from equilibrist.solvers import Consensus
from equilibrist.spectra import consensus, density, krylov, normality
from equilibrist.spectra.density import Density
from equilibrist.spectra.eigenvalues import Array, Eigenvalues, eigenvalues

if TYPE_CHECKING:
    from equilibrist.run import Run

Mask = NDArray[np.bool_]

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
    densities: dict[str, Density] = field(default_factory=dict)

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
            "densities": {name: described(found) for name, found in self.densities.items()},
            "notes": list(self.notes),
            "references": list(REFERENCES),
        }


def described(found: Density) -> dict[str, Any]:
    """A density as plain values: its ends with residuals, and its curve in at most 200 numbers."""
    return {
        "lowest": [found.lowest.value, found.lowest.residual],
        "highest": [found.highest.value, found.highest.residual],
        "exact": found.probes == 0,
        "probes": found.probes,
        "steps": found.steps,
        **found.curve(),
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
        "departure_interval": interval_of(found),
        "missing": found.missing,
    }


def interval_of(found: Eigenvalues) -> list[float] | None:
    """[low, high] of the departure from normality where it is estimated."""
    bounds = found.departure_bounds
    return None if bounds is None else [bounds.low, bounds.high]


@usual_errors
def spectrum_at(
    operator: JacobianOperator,
    rates: Mapping[str, float] | None = None,
    *,
    gamma: float | None = None,
    dense: int | None = None,
    k: int = 8,
    products: int = PRODUCTS,
    samples: int = 0,
    notes: Sequence[str] = (),
    tick: Callable[[float], Any] = lambda products: None,
) -> Spectrum:
    """The spectrum of J at a pair.

    Args:
        operator: J, averaged over its draws. Take the pair in float64.
        rates: step size of each player of plain gradient steps x - H v; without them there is no disc.
        gamma: also the eigenvalues of J + gamma J^T J, which consensus has at a stationary pair. On
            several draws J^T J is that of the mean J: consensus with two minibatches or more.
        dense: up to so many parameters (None: 2,500) the matrix is built and all eigenvalues are found; beyond,
            extremes by Krylov-Schur through products with J^T, which has the same ones, and the departure from
            normality as an estimated interval (`henrici_bounds`, 8 probes).
        k: eigenvalues at each end of the spectrum; `products` of each Krylov search at most.
        samples: how many samples the draws hold, for the record.
        tick: called with products with J or J^T as they are made (`planned_products`).

    Returns:
        Eigenvalues, densities, the disc and what consensus would change.

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
    forward, backward = (_counted(products_of(op), tick) for op in (operator, operator.T))
    scaled = pulled = None
    if n <= dense:
        J = _dense(operator, tick).double().cpu()
        whole = eigenvalues(J)
        scaled = None if even else eigenvalues(weights[:, None] * J)
        if gamma is not None:
            pulled = eigenvalues(weights[:, None] * (J + gamma * J.mT @ J))
        densities = exact_densities(
            J.numpy(), {p: tree.count(part) for p, part in operator.players.items()}
        )
    else:
        scale = weights.numpy()
        budget: dict[str, Any] = {"k": k, "products": products}
        # J^T D has the eigenvalues of D J.
        whole = _outer(backward, forward, n, budget)
        if not even:
            after: Callable[[Array], Array] = lambda u: backward(scale * u)  # noqa: E731
            scaled = _outer(after, lambda u: scale * forward(u), n, budget)
        if gamma is not None:
            product = consensus.transposed(forward, backward, gamma, scale)
            plus = gamma

            def straight(u: Array) -> Array:
                image = forward(u)
                moved: Array = scale * (image + plus * backward(image))
                return moved

            pulled = _outer(product, straight, n, budget)
        densities = lanczos_densities(operator, STEPS, np.random.default_rng(0))
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
        densities,
    )


def planned_products(n: int, even: bool, gamma: bool, dense: int, products: int) -> float:
    """Products with J or J^T that `spectrum_at` makes, at most: n where the matrix is built, else those of its
    searches (J + gamma J^T J takes two each)."""
    return n if n <= dense else products * (1.0 + (not even) + 2.0 * gamma)


def _dense(operator: JacobianOperator, tick: Callable[[float], Any]) -> torch.Tensor:
    """The whole matrix, 64 rows at a time."""
    flipped = operator.T
    parts = []
    for rows in torch.eye(operator.shape[0], dtype=operator.dtype, device=operator.device).split(
        64
    ):
        parts.append((flipped @ rows.T).T)
        tick(len(rows))
    return torch.cat(parts)


def _counted(
    product: Callable[[Array], Array], tick: Callable[[float], Any]
) -> Callable[[Array], Array]:
    def counted(u: Array) -> Array:
        tick(1.0)
        return product(u)

    return counted


def _outer(
    product: Callable[[Array], Array],
    transposed: Callable[[Array], Array],
    n: int,
    budget: Mapping[str, Any],
) -> Eigenvalues:
    """Extremes of a matrix [n, n] by `product`, and where its departure from normality lies."""
    found = krylov.krylov(product, n, **budget)
    bounds = normality.henrici_bounds(
        product, transposed, n, PROBES, np.random.default_rng(1), found.values, found.vectors
    )
    return replace(krylov.listed(found, budget["k"]), departure_bounds=bounds)


def exact_densities(J: Array, sizes: Mapping[str, int]) -> dict[str, Density]:
    """Of each player's diagonal block of a dense J, by its size, and of (J + J^T) / 2."""
    found, start = {}, 0
    for player, size in sizes.items():
        own = slice(start, start + size)
        start += size
        if size:
            found[player] = density.exact_density(J[own, own])
    return found | {"symmetric": density.exact_density(J)}


def lanczos_densities(
    operator: JacobianOperator,
    steps: int,
    rng: np.random.Generator,
    masks: Mapping[str, Mask] | None = None,
) -> dict[str, Density]:
    """The same by stochastic Lanczos quadrature, `steps` products from one probe each; with `masks` (bool [n_p] of
    each player) on those coordinates alone.

    The symmetric part of a zero-sum game's J is block diagonal: it then takes no products of its own.
    """
    found: dict[str, tuple[int, Density]] = {}
    masks = masks or {p: np.ones(tree.count(part), bool) for p, part in operator.players.items()}
    for player in operator.players:
        own = HessianOperator(
            operator.field, operator.players, operator.constants, operator.draws, player
        )
        product = products_of(own, masks[player])
        n = int(masks[player].sum())
        if n:
            found[player] = n, density.density(product, n, steps, 1, rng)
    densities = {player: part for player, (_, part) in found.items()}
    if operator.field.game.zero_sum:
        densities["symmetric"] = density.mixed(list(found.values()))
    else:
        whole = np.concatenate([masks[player] for player in operator.players])
        product = symmetric_part(operator, whole)
        densities["symmetric"] = density.density(product, int(whole.sum()), steps, 1, rng)
    return densities


def symmetric_part(
    operator: JacobianOperator, mask: Mask | None = None
) -> Callable[[Array], Array]:
    """u -> (J + J^T) u / 2 on float64 vectors [n] (over the coordinates of a mask)."""
    forward, backward = (products_of(op, mask=mask) for op in (operator, operator.T))
    return lambda u: (forward(u) + backward(u)) / 2


@usual_errors
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
    progress: str = "none",
) -> Spectrum:
    """The spectrum of a run's pair, in float64, on minibatches that training did not see in that order.

    Args:
        run: what `train` or `load` returned.
        gamma: see `spectrum_at`; None takes that of a run trained by `Consensus`.
        lr: the step size of the disc; None takes those of the run's update rules.
        batches, batch: J is the mean over so many minibatches of so many samples (None: the run's own size).
        iterate: "last", "average" or "auto", as in `Run.pair`.
        dense, k: see `spectrum_at`.
        progress: "auto", "bar", "lines" or "none".

    Singular vectors of spectrally normalised weights follow the weights; batch norm takes the statistics of
    each minibatch.

    Returns:
        As of `spectrum_at`, with what is known of the run's update rules.

    Raises:
        RecipeError: numbers out of range, or update rules without a step size and no `lr`.
    """
    for name, count in (("batches", batches), ("batch", batch), ("k", k)):
        whole = isinstance(count, int) and not isinstance(count, bool)
        if count is not None and (not whole or count < 1):
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
        game.draw(Use.SPECTRUM_OF_RUN.at(batch=i).generator(run.seed), data, size, wide, anchor)
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
    even = len(set(rates.values())) <= 1
    limit = DENSE if dense is None else dense
    planned = round(planned_products(operator.shape[0], even, gamma is not None, limit, PRODUCTS))
    with showing(progress, "spectrum", planned) as bar:
        done = 0.0

        def tick(products: float) -> None:
            nonlocal done
            done += products
            bar.update(min(round(done), planned), {})

        return spectrum_at(
            operator,
            rates,
            gamma=gamma,
            dense=dense,
            k=k,
            samples=batches * size,
            notes=notes,
            tick=tick,
        )


def inner(solver: Any) -> Any:
    """The method inside of averages and lookahead."""
    while hasattr(solver, "solver"):
        solver = solver.solver
    return solver


def step_sizes(solver: Any, players: Sequence[str]) -> tuple[dict[str, float], tuple[str, ...]]:
    """(step size of each player's rule, what must be said about them).

    Raises:
        RecipeError: a rule without a step size.
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
    mean = tree.mean(
        operator.field(operator.players, operator.constants, draw).v for draw in operator.draws
    )
    return {player: float(tree.norm(part)) for player, part in mean.items()}


def products_of(operator: Any, mask: Mask | None = None) -> Callable[[Array], Array]:
    """operator @ u on float64 vectors [n], computed where and as the operator is; with a mask, on vectors over its
    coordinates, the others zero."""

    def product(u: Array) -> Array:
        if mask is not None:
            whole = np.zeros(len(mask))
            whole[mask] = u
            u = whole
        found: Array = (
            (operator @ torch.from_numpy(u).to(operator.device, operator.dtype))
            .double()
            .cpu()
            .numpy()
        )
        return found if mask is None else found[mask]

    return product


def _positive(what: str, value: Any) -> None:
    known = isinstance(value, float | int) and not isinstance(value, bool)
    if not known or not 0 < value < float("inf"):
        raise RecipeError(f"{what} of a spectrum must be positive, not {value!r}")
