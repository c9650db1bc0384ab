"""What a small move gains, measured: down the gradient, which settles whether a player is at rest, or along any line.

Every claim about small moves stands on the same size of move and the same tolerance, so the witness that refutes one
(the player is not at rest) refutes the next (a local Nash equilibrium).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks._decide import Decision, Interval, decide
from equilibrist.checks._second_order import projected
from equilibrist.checks.certificate import Json, Verdict
from equilibrist.checks.context import (
    AuditContext,
    Tick,
    no_tick,
    norm_of,
    order_of,
    reach_of,
    rows_in,
)
from equilibrist.core.draws import Batch
from equilibrist.core.field import VectorField
from equilibrist.core.game import Players

T = TypeVar("T")

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

    @classmethod
    def without(cls, player: str, gain: float, promised: float, value: bool) -> FirstOrder:
        """No move: it would gain nothing (0), or that is unknown (not a number)."""
        return cls(player, Interval.at(gain), 0.0, promised, None, value)

    def decision(self, context: AuditContext) -> Decision:
        """The verdict on "no small move down the gradient gains more than the tolerance"."""
        return decide(self.gain, _nothing(context, self.player, self.value))

    def describe(self) -> Json:
        """Plain values."""
        return {
            "gain": self.gain.mean,
            "gain_interval": self.gain.ends,
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
        _SLOPES[context][value].pop(player)  # as large as the player, and asked for once
    return found[player, value]


def elsewhere(context: AuditContext, player: str, tick: Tick = no_tick) -> str:
    """What must accompany a verdict on V where the player's own loss is another, and it gains there; or ""."""
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
    return sum(map(rows_in, context.bank(part))) / context.settings.batch / 3


def _first_order(context: AuditContext, player: str, tick: Tick, value: bool) -> FirstOrder:
    slope = tree.flatten(_slopes(context, tick, value)[player]).double()
    size = float(slope.norm())
    if not math.isfinite(size):
        return FirstOrder.without(player, math.nan, math.nan, value)
    # A gradient of rounding errors has a direction too, and curvature may gain along it: that is second order.
    promise = size * context.settings.move * norm_of(context, player)
    if promise <= NOTHING * _nothing(context, player, value) or size == 0:
        return FirstOrder.without(player, 0.0, promise, value)
    return best_move(context, player, -slope / size, tick, value, slope)


def _nothing(context: AuditContext, player: str, value: bool) -> float:
    """The tolerance of a player's own loss, or of V."""
    return context.tolerance(player="" if value else player).value


def _slopes(context: AuditContext, tick: Tick, value: bool) -> Players:
    """The mean gradients of all players."""
    cached = _SLOPES.setdefault(context, {})
    if value in cached:
        return cached[value]
    field = context.smooth(value=True) if value else VectorField(context.game)
    players, constants = context.wide if value else (context.players, context.constants)

    def gradient(k: int) -> Players:
        draw = context.minibatch(k, index=Batch.FIRST_ORDER)
        v, _ = field(players, constants, tree.to(draw, dtype=torch.float64) if value else draw)
        tick(1.0)
        return v

    cached[value] = tree.mean(map(gradient, range(draws_of(context))))
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
    look = _Looks(context, player, tick, value)
    x, reach = context.flat(player), reach_of(context, player)

    def moves() -> Iterator[tuple[Tensor, float]]:
        last: Tensor | None = None
        for halved in range(-3, HALVINGS):
            there = projected(context, player, x + reach * 2.0**-halved * direction.to(x))
            longer = float((there - x).norm()) > reach * (1 + 1e-6)
            if not longer and (last is None or not torch.equal(there, last)):
                last = there
                yield there, look.gain(there)

    best = _first_peak(moves())
    if best is None:
        return FirstOrder.without(player, math.nan, math.nan, value)
    there, selected = best
    after = look.losses(there, "score")
    gains = look.losses(x, "score") - after
    moved = there - x
    promise = math.nan
    if slope is not None:
        promise = -float(slope.to(moved) @ moved)
        # What curvature adds is no matter of the slope: without it the opposite move would lose as much.
        back = projected(context, player, x - moved)
        if float((back - x).norm()) > 0.99 * float(moved.norm()):
            odd = (look.losses(back, "score") - after) / 2
            gains = odd if float(odd.mean()) < float(gains.mean()) else gains
    size = float(moved.norm()) / norm_of(context, player)
    return FirstOrder(
        player, context.interval(gains), size, promise, look.params(there), value, selected
    )


def both_ways(
    context: AuditContext, player: str, direction: Tensor, tick: Tick = no_tick
) -> FirstOrder:
    """What the better of two opposite small moves along a unit direction [n_p] gains at least: the mean of both.

    Along a direction of negative curvature both ways gain alike to second order, and their mean is free of
    the gradient's noise. Where the feasible set shortens one of them, the best move along the direction alone.
    """
    look = _Looks(context, player, tick, False)
    x, reach = context.flat(player), reach_of(context, player)
    sizes = [reach * 2.0**-halved for halved in range(HALVINGS)]
    shortened = False

    def moves() -> Iterator[tuple[tuple[float, list[Tensor]], float]]:
        nonlocal shortened
        for size in sizes:
            ends = [
                projected(context, player, x + sign * size * direction.to(x)) for sign in (1, -1)
            ]
            shortened = any(float((end - x).norm()) < 0.99 * size for end in ends)
            if shortened:
                return
            gains = [look.gain(end) for end in ends]
            yield (size, ends if gains[0] >= gains[1] else ends[::-1]), sum(gains) / 2

    best = _first_peak(moves())
    if shortened:
        return best_move(context, player, direction, tick)
    if best is None:
        return FirstOrder.without(player, math.nan, math.nan, False)
    (size, ends), selected = best
    here = look.losses(x, "score")
    after = [look.losses(end, "score") for end in ends]
    return FirstOrder(
        player,
        context.interval(here - (after[0] + after[1]) / 2),
        size / norm_of(context, player),
        math.nan,
        look.params(ends[0]),
        selected=selected,
    )


def _first_peak(moves: Iterable[tuple[T, float]]) -> tuple[T, float] | None:
    """The move that gains most, up to the first that gains less than one before it that gained; None where no gain
    is finite."""
    best: tuple[T, float] | None = None
    for move, gained in moves:
        if not math.isfinite(gained):
            continue
        if best is not None and best[1] > 0 and gained < best[1]:
            break
        if best is None or gained > best[1]:
            best = move, gained
    return best


class _Looks:
    """The player's losses (on V, if `value`) at flat parameters [n_p], batch by batch in float64."""

    def __init__(self, context: AuditContext, player: str, tick: Tick, value: bool) -> None:
        self.context, self.player, self.tick, self.value = context, player, tick, value
        self.before = self.losses(context.flat(player), "select")

    def params(self, flat: Tensor) -> dict[str, Tensor]:
        """In the precision of the pair."""
        like = self.context.players[self.player]
        return tree.map(lambda t, old: t.to(old), tree.unflatten(flat, like), like)

    def losses(self, flat: Tensor, part: str) -> Tensor:
        """On every batch of a part's bank."""
        context = self.context
        players = {**context.players, self.player: self.params(flat)}
        self.tick(_cost(context, part))
        if self.value:
            return -context.losses(order_of(context.game)[1], players, context.constants, part)
        return context.losses(self.player, players, context.constants, part)

    def gain(self, flat: Tensor) -> float:
        """On the part to select."""
        return float((self.before - self.losses(flat, "select")).mean())
