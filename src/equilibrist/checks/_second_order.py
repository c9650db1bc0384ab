"""What the second-order checks share: where players may move, on which samples, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks._decide import Interval
from equilibrist.checks.certificate import Json, Tolerance
from equilibrist.checks.context import AuditContext, reach_of
from equilibrist.core.draws import Draw
from equilibrist.core.game import Players


@dataclass(frozen=True)
class Free:
    """Which coordinates may move, to second order.

    Attributes:
        masks: bool [n_p] of each player, True where a coordinate is free.
        held: tensors that the boundary of a set other than a box holds: whole.
        walls: how many single coordinates a box holds.
        gradient: mean gradient [n_p] of the player's own loss on the draws of the Jacobian products, kept in the
            pair's precision.
        residual: move * |x| * |r|, r the projected gradient's residual (see `stationarity`): what is left
            to gain to first order. On few draws it holds their noise.
    """

    masks: dict[str, Tensor]
    held: dict[str, tuple[str, ...]]
    walls: dict[str, int]
    gradient: dict[str, Tensor]
    residual: dict[str, float]

    def limits(self, *players: str) -> tuple[str, ...]:
        """The limits that follow from coordinates that were held."""
        remarks = []
        for player in players:
            if self.held[player]:
                names = ", ".join(self.held[player])
                remarks.append(
                    f"the boundary of the {player}'s feasible set holds {names}: left out as a whole, though "
                    "some of its directions may run along the boundary"
                )
            if self.walls[player]:
                remarks.append(
                    f"a box holds {self.walls[player]} of the {player}'s parameters: they were left out"
                )
        return tuple(remarks)


AT_A_WALL = 4 * float(torch.finfo(torch.float32).eps)  # relative distance that counts as zero
_FREE: WeakKeyDictionary[AuditContext, Free] = WeakKeyDictionary()


def free(context: AuditContext) -> Free:
    """Where the players of this context may move; computed once.

    A step of length move * |x| down the player's mean gradient is projected. A coordinate of a box is held
    where the step leaves it in place, to rounding; a tensor in another set is held whole where the projection takes
    back more than half of its step.
    """
    if context not in _FREE:
        _FREE[context] = _free(context)
    return _FREE[context]


def _free(context: AuditContext) -> Free:
    players, constants = context.wide
    field, draws = context.smooth(), context.linear_draws()  # all of them: a gradient is cheap
    means: dict[str, Tensor] = {}  # one at a time: a large pair's gradients would fill the memory
    for draw in draws:
        for player, part in field(players, constants, draw).v.items():
            share = tree.flatten(part).div_(len(draws))
            means[player] = means[player].add_(share) if player in means else share
    found = Free({}, {}, {}, {}, {})
    for player in context.game.players:
        v = means.pop(player)
        x = tree.flatten(players[player])
        found.gradient[player] = v.to(context.dtype)
        found.masks[player], names, walls = torch.ones_like(x, dtype=torch.bool), [], 0
        norm, reach = float(v.norm()), reach_of(context, player)
        residual = norm
        # A gradient of rounding errors has a direction too: it means nothing.
        if norm > 0 and not norm * reach <= 1e-9 * context.tolerance().value:
            step = reach / norm * v
            landed = projected(context, player, x - step)
            residual = float((x - landed).norm()) * norm / reach
            if is_box(context, player):
                # A wall at 0.01 is another number in float32, in which most weights are trained.
                slack = AT_A_WALL * x.abs()
                blocked = ((landed - x).abs() <= slack) & (step.abs() > slack)
                found.masks[player], walls = ~blocked, int(blocked.sum())
            else:
                start = 0
                for name, value in players[player].items():
                    where = slice(start, start + value.numel())
                    start += value.numel()
                    meant = float(step[where].norm())
                    moved = float((landed - x)[where].norm())
                    if meant > 1e-9 * reach and moved < 0.5 * meant:
                        found.masks[player][where] = False
                        if value.numel() == 1:  # an interval: a wall like that of a box
                            walls += 1
                        else:
                            names.append(name)
        found.held[player], found.walls[player] = tuple(names), walls
        found.residual[player] = reach * residual
    return found


def is_box(context: AuditContext, player: str) -> bool:
    """Whether the player's feasible set bounds each coordinate by itself."""
    own = [p for p in getattr(context.game, "projections", None) or () if p.player == player]
    return bool(own) and all(getattr(p, "coordinatewise", False) for p in own)


def projected(context: AuditContext, player: str, flat: Tensor) -> Tensor:
    """The nearest feasible parameters of the player, flat float64 [n_p]."""
    players, _ = context.wide
    moved = tree.unflatten(flat, players[player])
    return tree.flatten(context.game.project({**players, player: moved})[player])


def feasible_direction(context: AuditContext, player: str, u: Tensor, gain: float) -> Tensor | None:
    """A unit direction [n_p] near u or -u that stays in the feasible set for a move of move * |x| and does
    not climb the player's own loss to first order (by more than a tenth of `gain`); None if there is
    none. At most half of the move may be lost to the projection."""
    x, reach = context.flat(player), reach_of(context, player)
    slope = free(context).gradient[player].to(x)
    best = None
    for sign in (1.0, -1.0):
        d = projected(context, player, x + sign * reach * u) - x
        climbs = float(slope @ d)
        if float(d.norm()) < 0.5 * reach or climbs > 0.1 * gain:
            continue
        if best is None or climbs < best[0]:
            best = (climbs, d / d.norm())
    return None if best is None else best[1]


# -- on which samples ------------------------------------------------------------------------------------


def found_draws(context: AuditContext) -> list[Draw]:
    """The minibatches on which directions are found."""
    return context.linear_draws()[: context.settings.local_draws]


def score_draws(context: AuditContext) -> list[Draw]:
    """The batches of the score split on which curvatures are scored."""
    return context.bank("score")[: context.settings.local_batches]


def product_budget(context: AuditContext) -> int:
    """How many products a second-order check has on each of `found_draws`."""
    settings = context.settings
    return settings.local_products // min(settings.local_draws, settings.linear_batches)


def inexact(context: AuditContext) -> str:
    """Why second derivatives of this game's losses are not exact; "" where they are."""
    if getattr(context.game, "semi_gradient", False):
        return "the players' own gradients are not those of their losses (semi_gradient=True)"
    formulation = getattr(context.game, "formulation", None)
    if formulation is None or getattr(formulation, "second_order", True):
        return ""
    known = getattr(formulation, "exact_second_order", None)
    players, constants = context.wide
    if known is not None and known(context.game.critic(players, constants)):
        return ""
    return (
        f"{formulation} searches for its transport map, and derivatives of its gradients miss the map's own "
        "motion: take a critic with a closed transform"
    )


# -- in words --------------------------------------------------------------------------------------------


def at_rest(context: AuditContext, player: str, tolerance: Tolerance) -> bool:
    """Whether the gradient is zero to within the tolerance; of exact losses only (see "stationary" for others)."""
    return context.sampled or free(context).residual[player] <= tolerance.value


def scope(context: AuditContext, **extra: object) -> Json:
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
