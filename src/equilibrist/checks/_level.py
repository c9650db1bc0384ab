"""The loss of a constant critic, and whether anything bounds the critic: references that the game alone fixes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks.context import AuditContext
from equilibrist.formulations import WGAN, ScoreFormulation
from equilibrist.penalties import R1, R2, GradientPenalty


class Best(NamedTuple):
    """The constant score that costs the critic least, what it costs, and whether others cost the same."""

    score: float
    loss: float
    flat: bool


def _best(context: AuditContext) -> Best | None:
    """None where the losses are no functions of scores, or no constant is best."""
    formulation = context.game.formulation
    if not isinstance(formulation, ScoreFormulation) or context.game.auxiliary:
        return None
    from scipy.optimize import minimize_scalar

    def critic_loss(c: float) -> float:
        score = torch.full((1,), c, dtype=torch.float64)
        return float(formulation.critic_loss(score, score))

    ends = (1e-9, 1 - 1e-9) if getattr(formulation, "probabilities", False) else (-20.0, 20.0)
    best = minimize_scalar(critic_loss, bounds=ends, method="bounded", options={"xatol": 1e-9})
    if not math.isfinite(best.fun):
        return None
    flat = bool(abs(critic_loss(float(best.x) + 0.1 * (ends[1] - ends[0]) / 40) - best.fun) < 1e-12)
    return Best(float(best.x), float(best.fun), flat)


def _generator_loss(context: AuditContext, scores: Tensor) -> Tensor:
    formulation = context.game.formulation
    assert isinstance(formulation, ScoreFormulation)
    return formulation.generator_loss(scores)


def at_equality(context: AuditContext) -> dict[str, float | None]:
    """Each player's loss against the best constant critic: what it is where generated samples have the data's law."""
    nothing: dict[str, float | None] = dict.fromkeys(context.game.players)
    game: Any = context.game
    if hasattr(game, "at_equality"):  # own losses: evaluated, where that is possible
        return {**nothing, **game.at_equality(*context.wide, context.bank("select")[0])}
    best = _best(context)
    if best is None:
        return nothing
    generator = float(_generator_loss(context, torch.full((1,), best.score, dtype=torch.float64)))
    # A loss that does not fix the critic's level (WGAN) has no value of its own for the generator.
    return {
        "generator": None if best.flat and abs(generator) > 1e-12 else round(generator, 9),
        "critic": round(best.loss, 9),
    }


def pull(context: AuditContext, scores: Tensor) -> float | None:
    """The mean slope of the generator's loss at these scores over the slope at equality."""
    best = _best(context)
    if best is None or best.flat or not tree.all_finite(scores):
        return None

    def slope(at: Tensor) -> float:
        with torch.enable_grad():
            at = at.detach().clone().requires_grad_()
            (found,) = torch.autograd.grad(_generator_loss(context, at), at)
        return float(found.abs().sum())

    there = slope(torch.full((1,), best.score, dtype=torch.float64))
    return slope(scores) / there if there > 1e-6 else None


def silent(context: AuditContext, equal: float | None) -> float | None:
    """The loss of the best constant critic, with what it pays to penalties; None where that is not known."""
    for penalty in context.game.penalties:
        if isinstance(penalty, GradientPenalty):
            paid = 0.0 if penalty.one_sided else penalty.weight * penalty.target**2
        elif isinstance(penalty, R1 | R2):
            paid = 0.0
        else:
            return None
        equal = None if equal is None else equal + paid
    return equal


def unbounded(context: AuditContext) -> bool:
    """Whether the loss is Wasserstein's and the game holds nothing that bounds the critic's slope."""
    game = context.game
    if not isinstance(game.formulation, WGAN) or game.penalties or game.normalised:
        return False
    if any(
        getattr(part, "player", "") == "critic" for part in (*game.projections, *game.auxiliary)
    ):
        return False
    names = [name for name, _ in game.modules["critic"].named_parameters()]
    # torch's own spectral and weight normalisation leave these names.
    marks = ("parametrizations.", "weight_orig", "weight_g")
    return not any(mark in name for name in names for mark in marks)
