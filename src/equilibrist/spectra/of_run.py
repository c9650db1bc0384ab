"""The spectrum of a run's pair, and the step sizes of its update rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from equilibrist import schedules, tree
from equilibrist.core.draws import Use
from equilibrist.core.exact import Exact
from equilibrist.core.field import VectorField
from equilibrist.core.jacobian import JacobianOperator
from equilibrist.core.numpy_errors import usual_errors
from equilibrist.errors import RecipeError
from equilibrist.optimizers import SGD
from equilibrist.progress import showing
from equilibrist.solvers import Consensus, Solver
from equilibrist.spectra.spectrum import DENSE, PRODUCTS, Spectrum, planned_products, spectrum_at

if TYPE_CHECKING:
    from equilibrist.run import Run


@usual_errors
def spectrum_of(  # its numbers are what callers choose one by one
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
        batches, batch: the number of minibatches that J is averaged over, and of samples in each (None: the run's).
        iterate: "last", "average" or "auto", as in `Run.pair`.
        dense, k: see `spectrum_at`.
        progress: "auto", "bar", "lines" or "none".

    Singular vectors of spectrally normalised weights follow the weights; batch norm takes each minibatch's statistics.

    Returns:
        As of `spectrum_at`, with what is known of the run's update rules.

    Raises:
        RecipeError: numbers out of range, or update rules without a step size and no `lr`.
    """
    size = _batch_size(run, batches, batch, k)
    operator = _jacobian(run, iterate, batches, size)
    rates, notes = (
        rule_step_sizes(run.recipe.solver, run.recipe.game.players) if lr is None else ({}, ())
    )
    if lr is not None:
        rates = dict.fromkeys(run.recipe.game.players, lr)
    gamma = _own_gamma(run) if gamma is None else gamma
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
            dense=limit,
            k=k,
            samples=batches * size,
            notes=notes,
            tick=tick,
        )


def _own_gamma(run: Run) -> float | None:
    """That of consensus optimisation, where the run was trained by it with a constant one."""
    solver = innermost(run.recipe.solver)
    own = solver.gamma if isinstance(solver, Consensus) else None
    return own if isinstance(own, float | int) and own > 0 else None


def _batch_size(run: Run, batches: int, batch: int | None, k: int) -> int:
    """Samples in a minibatch. RecipeError for invalid counts, and for more samples than the data have."""
    for name, count in (("batches", batches), ("batch", batch), ("k", k)):
        whole = isinstance(count, int) and not isinstance(count, bool)
        if count is not None and (not whole or count < 1):
            raise RecipeError(f"{name}={count!r} of a spectrum: it must be a whole number above 0")
    size = batch or run.recipe.batch
    if run.data.size is not None and size > run.data.size:
        raise RecipeError(
            f"batch={size} is larger than the {run.data.size} samples of {run.data.name}: take fewer"
        )
    return size


def _jacobian(run: Run, iterate: str, batches: int, size: int) -> JacobianOperator:
    """J of the run's pair in float64, the mean over minibatches."""
    wide, game = torch.float64, run.recipe.game
    players, constants = (tree.to(t, dtype=wide) for t in (run.pair(iterate), run.constants))
    anchor = tree.leaves(players)[0].device
    constants = game.refresh(players, constants, {}, exact=True)
    data = run.data.to(anchor, wide)
    draws = [
        game.draw(Use.SPECTRUM_OF_RUN.at(batch=i).generator(run.seed), data, size, wide, anchor)
        for i in range(batches)
    ]
    return JacobianOperator(VectorField(Exact(game)), players, constants, draws)


def innermost(solver: Solver) -> Any:
    """The method inside of averages and lookahead."""
    while hasattr(solver, "solver"):
        solver = solver.solver
    return solver


def rule_step_sizes(
    solver: Solver, players: Sequence[str]
) -> tuple[dict[str, float], tuple[str, ...]]:
    """(step size of each player's rule, notes on them).

    Raises:
        RecipeError: a rule without a step size.
    """
    method = innermost(solver)
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
