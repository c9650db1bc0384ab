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
from equilibrist._draws import Draw
from equilibrist._game import Players
from equilibrist.checks._bench import Bench, norm_of
from equilibrist.checks._decide import Decision, Interval, Reason, decide
from equilibrist.checks._linear import found_draws, order_of, projected
from equilibrist.checks.certificate import Verdict

SIZES = (1.0, 0.25, 0.0625)  # of the leader's moves, as parts of a small move
AGAIN = (
    4  # the winning ascent goes on for so many times the steps: what is still rising is no answer
)
STARTS = (0.0, 0.1, 1.0)  # how far along a direction an ascent begins, as parts of a small move


@dataclass(frozen=True, eq=False)
class Answered:
    """The leader's best small move after the follower's answer.

    Attributes:
        gain: V before minus V at the move and its answer, on the score split.
        found: the same on the samples that the answer was found on. They favour the follower, so that both
            must be above the tolerance before a gain counts.
        rise: what the last three quarters of the ascent added to V.
        size: of the leader's move, relative to its norm.
        witness: both players after move and answer.
    """

    gain: Interval
    found: float
    rise: float
    size: float
    witness: Players | None

    def decision(self, tolerance: float) -> Decision:
        """The verdict on "no small move of the leader gains more than this after the answer".

        An answer that was found bounds the gain from above whether the ascent has ended or not; only a
        refutation needs its end.
        """
        decision = decide(self.gain, tolerance)
        if decision.verdict is not Verdict.REFUTED:
            return decision
        if not self.found > tolerance:
            return Decision(Verdict.UNASSESSED, Reason.STRADDLES)
        if not self.rise <= 0.1 * min(self.found, self.gain.low):
            return Decision(Verdict.UNASSESSED, Reason.UNFINISHED)
        return decision

    def describe(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "gain": self.gain.mean,
            "gain_interval": [self.gain.low, self.gain.high],
            "gain_where_answered": self.found,
            "still_rising": self.rise,
            "size": self.size,
        }


class _Follower:
    """The follower's own loss as a function of its parameters [n], the leader moved, on fixed draws."""

    def __init__(self, bench: Bench, draws: Sequence[Draw], tick: Any) -> None:
        self.bench, self.draws, self.tick = bench, draws, tick
        self.leader, self.name = order_of(bench.game)
        self.field = bench.smooth()
        self.players, self.constants = bench.wide
        self.like = self.players[self.name]

    def lead(self, moved: dict[str, Tensor]) -> None:
        """Move the leader."""
        self.players = {**self.players, self.leader: moved}

    def __call__(self, w: Tensor) -> tuple[float, Tensor]:
        players = {**self.players, self.name: tree.unflatten(w, {"x": self.like})["x"]}
        constants = self.bench.exact(players, self.constants)
        value, slope = 0.0, torch.zeros_like(w)
        for draw in self.draws:
            v, losses = self.field(players, constants, draw, only=self.name)
            value += float(losses[self.name]) / len(self.draws)
            slope += tree.flatten({"x": v[self.name]}) / len(self.draws)
        self.tick(float(len(self.draws)))
        return value, slope


def answered(
    bench: Bench,
    direction: Tensor,
    directions: Sequence[Tensor],
    evaluations: int,
    tick: Any = lambda gradients=1.0: None,
    signs: Sequence[float] = (1.0, -1.0),
) -> Answered | None:
    """The leader's best move along `direction` [n_t], either way, after the follower's answer.

    Moves of size move * |t| and less that do not gain more than the tolerance even where the follower rests are
    passed over, for an answer only takes away. The follower answers by projected gradient steps (Barzilai and
    Borwein's lengths, with a line search), begun at its own place and a little along each of `directions`
    [n_w]: at its own place the gradient along the null space of its Hessian vanishes with the move.

    Args:
        evaluations: gradients of the follower on all draws, in all ascents together.

    Returns:
        The move that gains most after its answer; None where no move gains enough to be worth an answer.
    """
    loss = _Follower(bench, found_draws(bench), tick)
    tolerance = bench.tolerance().value
    leader, follower = loss.leader, loss.name
    t, w = (tree.flatten({"x": bench.wide[0][p]}) for p in (leader, follower))
    reach = bench.settings.move * norm_of(bench, leader)
    before, _ = loss(w)
    moves = []
    for sign in signs:
        for size in SIZES:
            there = projected(bench, leader, t + sign * size * reach * direction.to(t))
            loss.lead(tree.unflatten(there, {"x": bench.wide[0][leader]})["x"])
            gained = loss(w)[0] - before
            if math.isfinite(gained) and gained > tolerance:
                moves.append(there)
    if not moves:
        return None
    own = bench.settings.move * norm_of(bench, follower)
    starts = [w] + [w + s * own * d.to(w) for d in directions for s in STARTS[1:]]
    each = max(6, evaluations // (len(moves) * len(starts) + AGAIN))
    best: tuple[float, Tensor, Tensor] | None = None
    for there in moves:
        loss.lead(tree.unflatten(there, {"x": bench.wide[0][leader]})["x"])
        ends = [ascend(bench, loss, start, each) for start in starts]
        value, place = min(ends, key=lambda end: end[0])
        if best is None or value > best[0]:
            best = value, there, place
    assert best is not None
    value, there, place = best
    moved = tree.unflatten(there, {"x": bench.wide[0][leader]})["x"]
    loss.lead(moved)
    further, place = ascend(bench, loss, place, (AGAIN - 1) * each)
    after = {leader: moved, follower: tree.unflatten(place, {"x": loss.like})["x"]}
    gains = bench.losses(follower, after, bench.constants, "score") - bench.losses(
        follower, bench.players, bench.constants, "score"
    )
    return Answered(
        bench.interval(gains),
        further - before,
        value - further,
        float((there - t).norm()) / norm_of(bench, leader),
        after,
    )


def ascend(bench: Bench, loss: Any, start: Tensor, evaluations: int) -> tuple[float, Tensor]:
    """The lowest of the follower's loss that spectral projected gradient steps reach from `start` (Birgin,
    Martinez and Raydan 2000), and where."""
    follower: str = loss.name
    x = projected(bench, follower, start)
    value, slope = loss(x)
    if not math.isfinite(value):
        return math.inf, x
    size = float(slope.norm())
    step = 0.1 * bench.settings.move * norm_of(bench, follower) / size if size > 0 else 1.0
    spent = 1
    while spent < evaluations:
        d = projected(bench, follower, x - step * slope) - x
        falls = float(slope @ d)
        if not falls < -1e-15 * max(abs(value), 1e-12):
            break
        part = 1.0
        while spent < evaluations:
            there = projected(bench, follower, x + part * d)
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
