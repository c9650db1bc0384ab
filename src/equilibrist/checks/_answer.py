"""What the leader's small move still gains once the follower has answered it, by an ascent that answers.

Second derivatives decide where the follower's Hessian is definite. Where it is singular, third and fourth derivatives
along its null space may let the follower do better than second order says; here it is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks._decide import Decision, Interval, Reason, decide
from equilibrist.checks._second_order import found_draws, projected
from equilibrist.checks.certificate import Json, Verdict
from equilibrist.checks.context import AuditContext, Tick, no_tick, norm_of, order_of, reach_of
from equilibrist.core.draws import Draw
from equilibrist.core.game import Players

SIZES = (1.0, 0.25, 0.0625)  # of the leader's moves, as parts of a small move
AGAIN = 4  # the winning ascent continues for this many times the steps: an ascent that still rises has not converged
FEWEST = 8  # evaluations at least: the leader's moves of all sizes, both ways, the follower at rest
LEAST = 5  # evaluations of an ascent within a budget, at least
STARTS = (0.0, 0.1, 1.0)  # how far along a direction an ascent begins, as parts of a small move


@dataclass(frozen=True, eq=False)
class Answered:
    """The leader's best small move after the follower's answer.

    On samples an answer also fits the noise of the minibatches on which it was found. There it gains by that fit,
    and on others it loses about as much, which would be credited to the leader: V before minus V after the move is
    too small where the answer was found and too large elsewhere. So the follower also ascends with the leader
    unmoved, and V there is the other "before": the two fits cancel.

    Attributes:
        gain: V before minus V at the move and its answer, on the score split; the smaller one of "before" at the
            pair and "before" at the follower's own ascent.
        found: V at the follower's own ascent minus V at the move and its answer, on the samples on which both were
            found. An answer that fits them better than that ascent does lowers it as it raises `gain`, so that both
            must be above the tolerance before a gain counts.
        rise: what the last three quarters of the ascent added to V.
        alone: what the follower's own ascent gained there; 0 where losses are exact, as nothing is fitted.
        size: of the leader's move, relative to its norm.
        witness: both players after move and answer.
    """

    gain: Interval
    found: float
    rise: float
    size: float
    witness: Players | None
    alone: float = 0.0

    def decision(self, tolerance: float) -> Decision:
        """The verdict on "no small move of the leader gains more than this after the answer".

        An answer that was found bounds the gain from above whether the ascent has ended or not; only a
        refutation needs its end.
        """
        decision = decide(self.gain, tolerance)
        if decision.verdict is not Verdict.REFUTED:
            return decision
        if math.isnan(self.found) or math.isnan(self.rise):
            return Decision(Verdict.UNASSESSED, Reason.NOT_FINITE)
        if not self.found > tolerance:
            return Decision(Verdict.UNASSESSED, Reason.FITTED)
        if not self.rise <= 0.1 * min(self.found, self.gain.low):
            return Decision(Verdict.UNASSESSED, Reason.UNFINISHED)
        return decision

    def why(self, tolerance: float) -> str:
        """The reason of `decision` in words, with the number that it rests on where that is no part of `gain`."""
        reason = self.decision(tolerance).reason
        if reason is Reason.FITTED:
            return f"{reason.value}: {self.found:.3g}"
        return str(reason.value)

    def describe(self) -> Json:
        """Plain values."""
        return {
            "gain": self.gain.mean,
            "gain_interval": self.gain.ends,
            "gain_where_answered": self.found,
            "follower_alone": self.alone,
            "still_rising": self.rise,
            "size": self.size,
        }


class _Follower:
    """The follower's own loss as a function of its parameters [n], the leader moved, on fixed draws."""

    def __init__(self, context: AuditContext, draws: Sequence[Draw], tick: Tick) -> None:
        self.context, self.draws, self.tick = context, draws, tick
        self.leader, self.name = order_of(context.game)
        self.field = context.smooth()
        self.players, self.constants = context.wide
        self.like = self.players[self.name]

    def lead(self, there: Tensor) -> None:
        """Move the leader to parameters [n_t]."""
        self.players = {
            **self.players,
            self.leader: tree.unflatten(there, self.players[self.leader]),
        }

    def both(self, there: Tensor, w: Tensor) -> Players:
        """The players with these flat parameters of leader and follower."""
        moved = tree.unflatten(there, self.players[self.leader])
        return {self.leader: moved, self.name: tree.unflatten(w, self.like)}

    def size(self, there: Tensor) -> float:
        """How far the leader moved, relative to its norm."""
        context = self.context
        return float((there - context.flat(self.leader)).norm()) / norm_of(context, self.leader)

    def held_out(self, players: Players, part: str) -> Tensor:
        """The follower's loss on every batch of a part's bank."""
        return self.context.losses(self.name, players, self.context.constants, part)

    def gain(self, moved: Sequence[Players], part: str, before: Players | None = None) -> Interval:
        """What these players gain on V, their mean, on a part's bank, over the pair or over `before`."""
        here = self.held_out(self.context.players if before is None else before, part)
        losses = [self.held_out(players, part) for players in moved]
        return self.context.interval(torch.stack(losses).mean(0) - here)

    def __call__(self, w: Tensor) -> tuple[float, Tensor]:
        players = {**self.players, self.name: tree.unflatten(w, self.like)}
        constants = self.context.exact(players, self.constants)
        value, slope = 0.0, torch.zeros_like(w)
        for draw in self.draws:
            v, losses = self.field(players, constants, draw, only=self.name)
            value += float(losses[self.name]) / len(self.draws)
            slope += tree.flatten(v[self.name]) / len(self.draws)
        self.tick(float(len(self.draws)))
        return value, slope


def answered(
    context: AuditContext,
    direction: Tensor,
    directions: Sequence[Tensor],
    evaluations: int,
    tick: Tick = no_tick,
    signs: Sequence[float] = (1.0, -1.0),
    singular: bool = True,
    draws: Sequence[Draw] | None = None,
) -> Answered | None:
    """The leader's best move along `direction` [n_t], either way, after the follower's answer.

    On samples the mean of two opposite moves counts, each after its own answer: it is below the gain of the better one,
    and in it the noise of the gradient cancels. Where the follower's Hessian is `singular`, one way may gain what
    the other loses: then the selection split tells whether the best single move or the best mean counts, by the
    lower ends of their gains there.

    On samples the follower first ascends with the leader unmoved, and its answers begin where that ends (see
    `Answered`).

    Moves of size move * |t| and less that do not gain more than the tolerance even where the follower rests are
    passed over, for an answer only takes away. The follower answers by projected gradient steps (Barzilai and
    Borwein's lengths, with a line search), started at its own place and a little along each of `directions`
    [n_w]: at its own place the gradient along the null space of its Hessian vanishes with the move.

    Args:
        evaluations: gradients of the follower on all draws, in all ascents together; within a budget, in all.
        draws: on which answers are found; those of the second-order checks by default.
        singular: whether the follower's answers to opposite moves may differ: its Hessian is not definite for certain.

    Returns:
        The move that gains most after its answer; None where no move gains enough to be worth an answer.
    """
    loss = _Follower(context, found_draws(context) if draws is None else draws, tick)
    w = context.flat(loss.name)
    before, _ = loss(w)
    singly = singular or not context.sampled
    groups = _worth_an_answer(context, loss, direction, signs, before, singly)
    if not groups:
        return None
    own = reach_of(context, loss.name)
    away = STARTS[-1:] if context.settings.gradients else STARTS[1:]
    groups, each = _affordable(context, groups, 1 + len(directions) * len(away), evaluations)
    if each < LEAST:
        return _unanswered(context, loss, groups[0])
    alone = _ascended_alone(context, loss, AGAIN * each) if context.sampled else None
    w = w if alone is None else alone.place
    starts = [w] + [w + s * own * d.to(w) for d in directions for s in away]
    candidates: list[list[_Move]] = []
    for group in groups:
        found = []
        for there in group:
            loss.lead(there)
            value, place = min((ascend(context, loss, x, each) for x in starts), key=lambda e: e[0])
            found.append(_Move(there, value, place))
        candidates += [found, *([one] for one in found if len(found) == 2 and singly)]
    return _chosen(context, loss, candidates, before, alone, (AGAIN - 1) * each)


def _affordable(
    context: AuditContext, groups: list[list[Tensor]], starts: int, evaluations: int
) -> tuple[list[list[Tensor]], int]:
    """(moves that can be answered from all starts, evaluations for each ascent)."""
    if not context.settings.gradients:
        ascents = sum(map(len, groups)) * starts + AGAIN * (1 + max(map(len, groups)))
        ascents += AGAIN * context.sampled
        return groups, max(6, evaluations // ascents)
    # The larger moves first, as many as can be answered from all starts: fewer starts could miss the best answer.
    evaluations -= FEWEST
    own = AGAIN * context.sampled
    while len(groups) > 1 and LEAST * (_ascents(groups, starts) + own) > evaluations:
        groups = groups[:-1]
    return groups, evaluations // (_ascents(groups, starts) + own)


def _chosen(
    context: AuditContext,
    loss: _Follower,
    candidates: list[list[_Move]],
    before: float,
    alone: _Move | None,
    further: int,
) -> Answered:
    """The best of single moves and of means of two, after ascents that go on: the selection split chooses."""
    kinds = [[c for c in candidates if len(c) == n] for n in (1, 2)]
    best = [
        [_settled(context, loss, move, further) for move in max(kind, key=_mean)]
        for kind in kinds
        if kind
    ]
    moves = best[0]
    if len(best) > 1:
        moves = max(best, key=lambda moves: _low(_gained(loss, moves, alone, "select")))
    leading, reached = max(moves, key=lambda m: m.value), sum(m.value for m in moves) / len(moves)
    since = before if alone is None else alone.value
    return Answered(
        _gained(loss, moves, alone, "score"),
        reached - since,
        sum(m.former for m in moves) / len(moves) - reached,
        loss.size(leading.there),
        leading.players,
        before - since,
    )


def _gained(loss: _Follower, moves: Sequence[_Settled], alone: _Move | None, part: str) -> Interval:
    """What the moves gain on a part's bank: over the pair, or over the follower's own ascent where that is less."""
    over_pair = loss.gain([m.players for m in moves], part)
    if alone is None:
        return over_pair
    answered = [loss.both(m.there, m.place) for m in moves]
    over_own = loss.gain(answered, part, loss.both(alone.there, alone.place))
    # What is not finite comes first: it settles nothing.
    return min(over_pair, over_own, key=lambda g: g.mean if math.isfinite(g.mean) else -math.inf)


def _ascended_alone(context: AuditContext, loss: _Follower, evaluations: int) -> _Move:
    """The follower's ascent from its own place with the leader unmoved."""
    t = context.flat(loss.leader)
    loss.lead(t)
    return _Move(t, *ascend(context, loss, context.flat(loss.name), evaluations))


def _ascents(groups: Sequence[Sequence[Tensor]], starts: int) -> int:
    """How many ascents the answers to these moves take at most, those that go on counted as several."""
    longest = max(map(len, groups))
    ended = longest if len(groups) == 1 or longest == 1 else longest + 1
    return sum(map(len, groups)) * starts + (AGAIN - 1) * ended


def _unanswered(context: AuditContext, loss: _Follower, moves: Sequence[Tensor]) -> Answered:
    """Moves that gain where the follower rests, the budget too small for its answers: they settle nothing."""
    w = context.flat(loss.name)
    gain = loss.gain([loss.both(there, w) for there in moves], "score")
    return Answered(gain, gain.mean, math.inf, loss.size(moves[0]), None)


def _worth_an_answer(
    context: AuditContext,
    loss: _Follower,
    direction: Tensor,
    signs: Sequence[float],
    before: float,
    singly: bool,
) -> list[list[Tensor]]:
    """Places [n_t] of the leader that gain more than the tolerance while the follower rests: two opposite ones where
    their mean does, one where the feasible set shortens the way to the other, or where one may count by itself
    (`singly`)."""
    tolerance = context.tolerance().value
    t, w = (context.flat(player) for player in (loss.leader, loss.name))
    reach = reach_of(context, loss.leader)
    groups: list[list[Tensor]] = []
    for size in SIZES:
        ends = [
            projected(context, loss.leader, t + sign * size * reach * direction.to(t))
            for sign in signs
        ]
        gained = []
        for there in ends:
            loss.lead(there)
            gained.append(loss(w)[0] - before)
        shortened = any(float((there - t).norm()) < 0.99 * size * reach for there in ends)
        # Comparisons are False for what is not finite.
        if len(ends) == 2 and not shortened and sum(gained) / 2 > tolerance:
            groups.append(ends)
        elif len(ends) < 2 or shortened or singly:
            groups += [[x] for x, g in zip(ends, gained, strict=True) if tolerance < g < math.inf]
    return groups


@dataclass(frozen=True, eq=False)
class _Move:
    """A move of the leader, the follower's loss after its answer where that was found, and its place there [n]."""

    there: Tensor
    value: float
    place: Tensor


def _mean(moves: Sequence[_Move]) -> float:
    return sum(move.value for move in moves) / len(moves)


def _low(gain: Interval) -> float:
    return gain.low if math.isfinite(gain.low) else -math.inf


@dataclass(frozen=True, eq=False)
class _Settled:
    """A move after an ascent that went on: the follower's loss where that was found and its place there [n], the
    loss as it was before, and both players."""

    there: Tensor
    value: float
    place: Tensor
    former: float
    players: Players


def _settled(context: AuditContext, loss: _Follower, move: _Move, evaluations: int) -> _Settled:
    """The move after an ascent that goes on from its answer.

    An answer to the noise of the samples it was found on harms the follower on others: then it rests, as the
    selection split tells.
    """
    loss.lead(move.there)
    value, place = ascend(context, loss, move.place, evaluations)
    answers = [loss.both(move.there, at) for at in (place, context.flat(loss.name))]
    players = min(answers, key=lambda both: float(loss.held_out(both, "select").mean()))
    return _Settled(move.there, value, place, move.value, players)


def ascend(
    context: AuditContext, loss: Any, start: Tensor, evaluations: int
) -> tuple[float, Tensor]:
    """The lowest of the follower's loss that spectral projected gradient steps reach from `start` (Birgin,
    Martinez and Raydan 2000), and where."""
    follower: str = loss.name
    x = projected(context, follower, start)
    value, slope = loss(x)
    if not math.isfinite(value):
        return math.inf, x
    size = float(slope.norm())
    step = 0.1 * context.settings.move * norm_of(context, follower) / size if size > 0 else 1.0
    spent = 1
    while spent < evaluations:
        d = projected(context, follower, x - step * slope) - x
        falls = float(slope @ d)
        if not falls < -1e-15 * max(abs(value), 1e-12):
            break
        part = 1.0
        while spent < evaluations:
            there = projected(context, follower, x + part * d)
            new, new_slope = loss(there)
            spent += 1
            if math.isfinite(new) and new <= value + 1e-4 * part * falls:
                break
            part *= 0.25
        else:
            return value, x
        moved, turned = there - x, new_slope - slope
        curved = float(moved @ turned)
        # A loss that curves down along the step calls for a longer one.
        step = float(moved @ moved) / curved if curved > 0 else 4 * step
        x, value, slope = there, new, new_slope
    return value, x
