"""What a small move gains, measured: down the gradient, which settles whether a player is at rest, or along any line.

Every claim about small moves stands on the same size of move and the same tolerance, so the witness that refutes one
(the player is not at rest) refutes the next (a local Nash equilibrium).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks._decide import Decision, Interval, decide
from equilibrist.checks._linear import projected, value_field
from equilibrist.checks._spent import Tick, no_tick
from equilibrist.checks._value import order_of
from equilibrist.checks.certificate import Verdict
from equilibrist.checks.context import AuditContext, norm_of
from equilibrist.core.draws import Batch
from equilibrist.core.field import VectorField
from equilibrist.core.game import Players

HALVINGS = 8  # of the move, from its full size downwards
NOTHING = 0.05  # a move that promises less than this part of the tolerance is not made


@dataclass(frozen=True, eq=False)
class FirstOrder:
    """The best move of one player down its gradient, within the radius of a small move.

    Attributes:
        gain: loss before minus loss after, on the score split, with its interval; where the opposite move gains
            too, without what both gain alike (that is curvature). 0 where the gradient is.
        size: how far the player moved, relative to its norm.
        promised: what its gradient promises of that move, on the samples that gave the direction.
        witness: the player's parameters after the move; None where there is none.
        value: of the zero-sum V, not of the player's own loss.
        selected: the gain on the part to select, by which the move was chosen.
    """

    player: str
    gain: Interval
    size: float
    promised: float
    witness: dict[str, Tensor] | None
    value: bool = False
    selected: float = math.nan

    def decision(self, context: AuditContext) -> Decision:
        """The verdict on "no small move down the gradient gains more than the tolerance"."""
        return decide(self.gain, context.tolerance().value)

    def describe(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "gain": self.gain.mean,
            "gain_interval": [self.gain.low, self.gain.high],
            "size": self.size,
            "promised": self.promised,
            "of": "V (zero-sum)" if self.value else "the player's own loss",
        }


_FOUND: WeakKeyDictionary[AuditContext, dict[tuple[str, bool], FirstOrder]] = WeakKeyDictionary()
_SLOPES: WeakKeyDictionary[AuditContext, dict[bool, Players]] = WeakKeyDictionary()


def first_order(
    context: AuditContext, player: str, tick: Tick = no_tick, value: bool = False
) -> FirstOrder:
    """What a small move of the player down its gradient gains; computed once a context.

    The direction is the mean gradient over minibatches of the part to optimise. Moves of size
    move * |x|, half of it, and so on are projected into the feasible set (a move that a wall shortens may
    start longer); the part to select chooses among them, the part to score measures the chosen one.

    Args:
        value: of the zero-sum V instead of the player's own loss, where the two differ.

    Returns:
        The measured gain with its interval; not a number where the gradient or the loss is not finite.
    """
    if context.game.zero_sum or player == order_of(context.game)[1]:
        value = False
    found = _FOUND.setdefault(context, {})
    if (player, value) not in found:
        found[player, value] = _first_order(context, player, tick, value)
    return found[player, value]


def elsewhere(context: AuditContext, player: str, tick: Tick = no_tick) -> str:
    """What must stand beside a verdict on V where the player's own loss is another, and it gains there; or ""."""
    if context.game.zero_sum:
        return ""
    own = first_order(context, player, tick)
    if own.value or own.decision(context).verdict is not Verdict.REFUTED:
        return ""
    return (
        f" V is not the {player}'s own loss: on that it is not at rest, and gains {own.gain.mean:.3g} {context.unit} "
        f"by a {own.size:.2g} move (local-nash/{player})."
    )


def draws_of(context: AuditContext) -> int:
    """How many minibatches give the direction."""
    settings = context.settings
    return max(4, settings.groups * settings.group_batches // 4) if context.sampled else 1


def planned(context: AuditContext) -> float:
    """About how many minibatch gradients the first order of all players takes."""
    looks = 4 * _cost(context, "select") + 3 * _cost(context, "score")
    return draws_of(context) + looks * len(context.game.players)


def planned_value(context: AuditContext) -> float:
    """About how many more that of the leader on V takes, where V is not its own loss."""
    if context.game.zero_sum:
        return 0.0
    return draws_of(context) + 4 * _cost(context, "select") + 3 * _cost(context, "score")


def planned_both(context: AuditContext) -> float:
    """About how many minibatch gradients `both_ways` takes."""
    return 5 * _cost(context, "select") + 3 * _cost(context, "score")


def _cost(context: AuditContext, part: str) -> float:
    """Minibatch gradients that one look at a part's bank costs: a loss without gradient counts a third."""
    draws = context.bank(part)
    rows = sum(max((len(t) for t in draw.values() if t.ndim), default=0) for draw in draws)
    return rows / context.settings.batch / 3


def _first_order(context: AuditContext, player: str, tick: Tick, value: bool) -> FirstOrder:
    slope = tree.flatten({"x": _slopes(context, tick, value)[player]}).double()
    size = float(slope.norm())
    if not math.isfinite(size):
        nothing = math.nan
        return FirstOrder(player, Interval(nothing, nothing, nothing), 0.0, nothing, None, value)
    # A gradient of rounding errors has a direction too, and curvature may gain along it: that is second order.
    promise = size * context.settings.move * norm_of(context, player)
    if promise <= NOTHING * context.tolerance().value or size == 0:
        return FirstOrder(player, Interval(0.0, 0.0, 0.0), 0.0, promise, None, value)
    return best_move(context, player, -slope / size, tick, value, slope)


def _slopes(context: AuditContext, tick: Tick, value: bool) -> Players:
    """The mean gradients of all players."""
    cached = _SLOPES.setdefault(context, {})
    if value not in cached:
        field = value_field(context) if value else VectorField(context.game)
        players, constants = context.wide if value else (context.players, context.constants)
        total: Players | None = None
        count = draws_of(context)
        for k in range(count):
            draw = context.minibatch(k, index=Batch.FIRST_ORDER)
            if value:
                draw = tree.to(draw, dtype=torch.float64)
            v, _ = field(players, constants, draw)
            total = v if total is None else tree.axpy(1.0, total, v)
            tick(1.0)
        cached[value] = tree.scale(1 / count, total or {})
    return cached[value]


def best_move(
    context: AuditContext,
    player: str,
    direction: Tensor,
    tick: Tick = no_tick,
    value: bool = False,
    slope: Tensor | None = None,
) -> FirstOrder:
    """The best of the moves along a unit direction [n_p], projected, of sizes down from move * |x|.

    The larger sizes come first, and halving stops once the gain falls: the loss along a short line is
    close to a parabola. The best is scored even where it does not gain, so that its noise is known.
    """
    x = tree.flatten({"x": context.wide[0][player]})
    norm = norm_of(context, player)
    reach = context.settings.move * norm
    before = move_losses(context, player, context.players[player], "select", tick, value)
    best: tuple[float, Tensor] | None = None
    last: Tensor | None = None
    for halved in range(-3, HALVINGS):
        there = projected(context, player, x + reach * 2.0**-halved * direction.to(x))
        if float((there - x).norm()) > reach * (1 + 1e-6) or (
            last is not None and torch.equal(there, last)
        ):
            continue
        last = there
        after = move_losses(context, player, _params(context, player, there), "select", tick, value)
        gained = float((before - after).mean())
        if not math.isfinite(gained):
            continue
        if best is not None and best[0] > 0 and gained < best[0]:
            break
        if best is None or gained > best[0]:
            best = gained, there
    if best is None:
        nothing = math.nan
        return FirstOrder(player, Interval(nothing, nothing, nothing), 0.0, nothing, None, value)
    there = best[1]
    params = _params(context, player, there)
    after = move_losses(context, player, params, "score", tick, value)
    gains = move_losses(context, player, context.players[player], "score", tick, value) - after
    moved = there - x
    promise = math.nan
    if slope is not None:
        promise = -float(slope.to(moved) @ moved)
        # What curvature adds is no matter of the slope: without it the opposite move would lose as much.
        back = projected(context, player, x - moved)
        if float((back - x).norm()) > 0.99 * float(moved.norm()):
            opposite = move_losses(
                context, player, _params(context, player, back), "score", tick, value
            )
            odd = (opposite - after) / 2
            gains = odd if float(odd.mean()) < float(gains.mean()) else gains
    return FirstOrder(
        player, context.interval(gains), float(moved.norm()) / norm, promise, params, value, best[0]
    )


def both_ways(
    context: AuditContext, player: str, direction: Tensor, tick: Tick = no_tick
) -> FirstOrder:
    """What the better of two opposite small moves along a unit direction [n_p] gains at least: the mean of both.

    Along a direction of negative curvature both ways gain alike to second order, and their mean is free of
    the gradient's noise. Where the feasible set shortens one of them, the best move along the direction alone.
    """
    x = tree.flatten({"x": context.wide[0][player]})
    norm = norm_of(context, player)
    reach = context.settings.move * norm
    before = move_losses(context, player, context.players[player], "select", tick, False)
    best: tuple[float, float, list[dict[str, Tensor]]] | None = None
    for halved in range(HALVINGS):
        size = reach * 2.0**-halved
        ends = [projected(context, player, x + sign * size * direction.to(x)) for sign in (1, -1)]
        if any(float((end - x).norm()) < 0.99 * size for end in ends):
            return best_move(context, player, direction, tick)
        moves = [_params(context, player, end) for end in ends]
        gains = [
            float((before - move_losses(context, player, m, "select", tick, False)).mean())
            for m in moves
        ]
        gained = sum(gains) / 2
        if not math.isfinite(gained):
            continue
        if best is not None and best[0] > 0 and gained < best[0]:
            break
        if best is None or gained > best[0]:
            best = gained, size, moves if gains[0] >= gains[1] else moves[::-1]
    if best is None:
        nothing = math.nan
        return FirstOrder(player, Interval(nothing, nothing, nothing), 0.0, nothing, None)
    here = move_losses(context, player, context.players[player], "score", tick, False)
    after = [move_losses(context, player, m, "score", tick, False) for m in best[2]]
    return FirstOrder(
        player,
        context.interval(here - (after[0] + after[1]) / 2),
        best[1] / norm,
        math.nan,
        best[2][0],
        selected=best[0],
    )


def move_losses(
    context: AuditContext,
    player: str,
    params: dict[str, Tensor],
    part: str,
    tick: Tick,
    value: bool,
) -> Tensor:
    """The player's loss (on V, if `value`) with these parameters on every batch of a part's bank, float64."""
    players = {**context.players, player: params}
    tick(_cost(context, part))
    if value:
        return -context.losses(order_of(context.game)[1], players, context.constants, part)
    return context.losses(player, players, context.constants, part)


def _params(context: AuditContext, player: str, flat: Tensor) -> dict[str, Tensor]:
    like = context.players[player]
    found: dict[str, Tensor] = tree.unflatten(flat, {"x": like})["x"]
    return {k: t.to(like[k]) for k, t in found.items()}
