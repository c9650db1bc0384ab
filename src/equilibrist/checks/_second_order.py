"""What the second-order checks share: scope, witnesses, and gains in words."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from equilibrist import tree
from equilibrist.checks._decide import Interval
from equilibrist.checks._free import free
from equilibrist.checks._linear import found_draws, score_draws
from equilibrist.checks.certificate import Tolerance
from equilibrist.checks.context import AuditContext
from equilibrist.core.game import Players


def at_rest(context: AuditContext, player: str, tolerance: Tolerance) -> bool:
    """Whether the gradient is nothing to first order; of exact losses only (see "stationary" for others)."""
    return context.sampled or free(context).residual[player] <= tolerance.value


def scope(context: AuditContext, **extra: Any) -> dict[str, Any]:
    """The context's, with the precision of a second-order check."""
    how = (
        f"directions from {len(found_draws(context))} minibatches of {context.settings.batch}, scored on "
        f"{len(score_draws(context))} batches of the score split"
        if context.sampled
        else "exact expectations"
    )
    return context.scope() | {"search_precision": "float64", "products": how} | extra


def direction_witness(context: AuditContext, player: str, u: Tensor) -> Players:
    """A unit direction [n_p] as the player's parameters."""
    return {player: tree.unflatten(u, context.wide[0][player])}


def promised(gains: Interval, unit: str, tolerance: Tolerance) -> str:
    """A gain in words, with its interval where it has one."""
    span = f"{gains.low:.3g} to {gains.high:.3g}; " if gains.high > gains.low else ""
    return f"{gains.mean:.3g} {unit} ({span}tolerance {tolerance.value:.3g})"


def curvature_of(tolerance: Tolerance, reach: float) -> float:
    """The curvature that promises the tolerance to a move of this length."""
    return 2 * tolerance.value / reach**2
