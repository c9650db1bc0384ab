"""The budget and the yardsticks of an audit."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from equilibrist.certificates import Json
from equilibrist.errors import RecipeError, did_you_mean
from equilibrist.optimizers import Adam, Optimizer

# Least whole numbers, and ranges, of the fields.
_LEAST = {
    "batch": 1,
    "starts": 1,
    "steps": 1,
    "looks": 1,
    "groups": 3,
    "group_batches": 1,
    "batches": 2,
    "look_batches": 1,
    "linear_batches": 1,
    "spectrum_dense": 0,
    "spectrum_products": 10,
    "spectrum_batches": 1,
    "local_products": 8,
    "local_draws": 1,
    "local_batches": 2,
    "prox_starts": 1,
    "prox_steps": 1,
    "prox_track": 1,
    "inner_steps": 1,
    "prox_trials": 1,
    "experiment_steps": 1,
    "gradients": 0,
}
_SPANS = {
    "perturbation": (0.0, 1e6),
    "tolerance": (0.0, 1e6),
    "absolute": (0.0, 1e300),
    "move": (1e-12, 1.0),
    "confidence": (0.5, 1 - 1e-9),
    "spectrum_tolerance": (1e-12, 0.5),
    "prox_width": (1e-9, 1e6),
    "prox_lambda": (1e-300, 1e300),
}


@dataclass(frozen=True)
class Settings:
    """The budget and the yardsticks of an audit.

    Args:
        batch: samples in a minibatch of the searches and of batch statistics.
        starts: searches per player; the first starts at the trained point itself, the others at
            perturbed copies of it.
        steps: optimiser steps per search.
        looks: how often a search is evaluated on the selection split.
        perturbation: size of the perturbation, relative to the root mean square of each tensor.
        optimizers: update rules of the searches, by player (default: Adam 1e-4, betas 0.5, 0.9).
        tolerance: how much gain is called nothing, relative to the formulation's scale; `absolute`,
            where it is positive, says it in the loss's own unit instead.
        move: relative size of the move to which stationarity is held: a residual is the loss that
            a move by this fraction of a player's norm would gain, to first order.
        groups: independent estimates of each gradient; `group_batches` minibatches in each.
        batches: at most this many batches for the score; `look_batches` for each evaluation of a search;
            `linear_batches` for products with the Jacobian.
        confidence: of all intervals.
        local_products: products with the Jacobian on one minibatch, at most, that each of the checks "local" and
            "proximal" takes to find its directions, on `local_draws` minibatches (at most `linear_batches`);
            `local_batches` batches score them.
        prox_lambdas: the lambdas (of equation 11) of the equilibrium profile, rising; their ends are
            those of the search for lambda*.
        prox_starts, prox_steps: searches for a deviating generator at each lambda, and generator
            steps of each. Their step sizes, like those of the critic's answers, follow the weights and the
            curvature; the rules of `optimizers` lead large players (over 16,384 parameters) part of the way.
        prox_track: critic steps between two generator steps of such a search.
        inner_steps: critic steps that solve V_prox, begun at the trained critic (Farnia and Ozdaglar
            2020, section 6.1: 50); fewer where nothing is left to gain.
        prox_trials: at most this many lambdas are tried for lambda* (twice as many where losses are
            exact); `prox_width` is the relative width at which its interval is narrow enough.
        prox_lambda: lambda of section 6.1's experiment (0.1 there) and of the proximal duality
            gap.
        experiment_steps: generator iterations of section 6.1's experiment.
        spectrum_dense: up to this number of free parameters all eigenvalues of the Jacobian are found; beyond, the
            outermost, with at most `spectrum_products` products for each search.
        spectrum_batches: minibatches over which that Jacobian is averaged, at most `linear_batches`.
        spectrum_tolerance: what counts as zero, relative to the largest eigenvalue's modulus.
        step_sizes: step size of each player's plain gradient steps, where they are known.
        gradients: minibatch gradients that the audit may spend in all (`within`); 0 for no such bound. Fields
            that are not named in `fixed` then follow from it.
        fixed: names of the fields that a budget leaves alone.
    """

    batch: int = 64
    starts: int = 3
    steps: int = 500
    looks: int = 20
    perturbation: float = 0.02
    optimizers: dict[str, Optimizer] = field(default_factory=dict)
    tolerance: float = 0.02
    absolute: float = 0.0
    move: float = 0.01
    groups: int = 10
    group_batches: int = 8
    batches: int = 64
    look_batches: int = 16
    linear_batches: int = 4
    confidence: float = 0.95
    local_products: int = 160
    local_draws: int = 2
    local_batches: int = 8
    prox_lambdas: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)
    prox_starts: int = 2
    prox_steps: int = 40
    prox_track: int = 3
    inner_steps: int = 50
    prox_trials: int = 10
    prox_width: float = 0.03
    prox_lambda: float = 0.1
    experiment_steps: int = 500
    spectrum_dense: int = 1200
    spectrum_products: int = 60
    spectrum_batches: int = 2
    spectrum_tolerance: float = 1e-3
    step_sizes: dict[str, float] = field(default_factory=dict)
    gradients: int = 0
    fixed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, low in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise RecipeError(
                    f"audit setting {name}={value!r}: it must be a whole number of at least {low}"
                )
        for name, (low_, high) in _SPANS.items():
            value = getattr(self, name)
            if not isinstance(value, float | int) or not low_ <= value <= high:
                raise RecipeError(
                    f"audit setting {name}={value!r}: it must lie in [{low_:g}, {high:g}]"
                )

        for player, rate in self.step_sizes.items():
            if not isinstance(rate, float | int) or not 0 < rate < float("inf"):
                raise RecipeError(
                    f"audit setting step_sizes: the {player}'s must be positive, not {rate!r}"
                )
        try:
            grid = tuple(float(lam) for lam in self.prox_lambdas)
        except (TypeError, ValueError):
            grid = ()
        rising = all(a < b for a, b in itertools.pairwise(grid))
        if len(grid) < 2 or not rising or not grid[0] > 0 or not grid[-1] < float("inf"):
            raise RecipeError(
                f"audit setting prox_lambdas={self.prox_lambdas!r}: give at least two positive numbers, rising"
            )

    @classmethod
    def within(
        cls, gradients: int, checks: Iterable[str] | None = None, **settings: Any
    ) -> Settings:
        """Settings of an audit that spends at most about `gradients` minibatch gradients, whatever its checks.

        How they are shared out is settled when the audit knows its checks and its pair; fields given here stay as
        they are. Audits whose checks cannot be made with so few refuse, and name the least number.

        Args:
            gradients: what the whole audit may spend.
            checks: not needed any more: an audit shares out among the checks that it runs.
            settings: fields that stay as they are.

        Raises:
            RecipeError: a number that is not whole, or below 60, with which no check could be made; a field that does
                not exist.
        """
        names = [f.name for f in fields(cls)]
        for key in settings:
            if key not in names:
                raise RecipeError(f"an audit has no setting {key!r}{did_you_mean(key, names)}")
        if not isinstance(gradients, int) or isinstance(gradients, bool) or gradients < 60:
            raise RecipeError(
                f"a budget of {gradients!r} gradients is too small for an audit of any pair: give a whole number, "
                "a few hundred at least for all default checks; an audit that needs more than it is given says how many"
            )
        return cls(gradients=gradients, fixed=tuple(settings), **settings)

    def rule(self, player: str) -> Optimizer:
        """The update rule of searches for `player`."""
        return self.optimizers.get(player, Adam())

    def describe(self) -> Json:
        """Plain values."""
        plain = {k: v for k, v in vars(self).items() if k != "optimizers"}
        return plain | {"optimizers": {k: repr(v) for k, v in self.optimizers.items()}}
