"""Self-tests of derivatives: central differences of losses and gradients along random directions."""

from __future__ import annotations

import math

from torch import Tensor

from equilibrist import tree
from equilibrist.checks._selftest_point import EvaluationPoint, SelfTestResult
from equilibrist.checks.context import Tick
from equilibrist.core.draws import Use, normal
from equilibrist.core.field import Evaluation
from equilibrist.core.game import Players

STEPS = (1e-6, 1e-7, 1e-5, 1e-8, 1e-9)  # the smallest for units that are all but saturated
TINY, TRIES = 1e-13, 3
AGREE = 1e-3  # relative difference at which a difference and a derivative agree
# Costs in gradients: of a direction; of a step along it, both ways.
PER_DIRECTION, PER_STEP = 7.0, 2.0


def difference_tests(
    point: EvaluationPoint, here: Evaluation, player: str, tick: Tick
) -> list[SelfTestResult]:
    """Central differences along one player, of its loss ("slope") and of v by blocks."""
    best, apart = _agreement(point, here, player, tick)
    slope = best["slope"]
    worst = max(point.players, key=lambda p: best[p])
    cause = (
        f"something that the {worst}'s loss depends on is detached, or a derivative is wrong"
        if worst != player
        else "a derivative is wrong"
    )

    def why(key: str, cause: str) -> str:
        # A wrong derivative is off by as much at every step; what bends within them agrees at none.
        if apart[key] > 0.3 * best[key]:
            return (
                "differences do not settle at any step, so that it cannot be checked (is a unit saturated by weights "
                "in the thousands, or does the loss jump?)"
            )
        return cause

    detached = why(
        "slope", "part of it is detached, or an autograd function has a wrong backward pass"
    )
    return [
        SelfTestResult(
            f"slopes/{player}",
            slope <= AGREE,
            slope,
            f"the {player}'s loss does not change as its gradient says (off by {slope:.1%}): {detached}",
        ),
        SelfTestResult(
            f"differences/{player}",
            best[worst] <= AGREE,
            best[worst],
            f"the {worst}'s gradient does not change with the {player}'s weights as the Jacobian says (off by "
            f"{best[worst]:.1%}): {why(worst, cause)}",
        ),
    ]


def _agreement(
    point: EvaluationPoint, here: Evaluation, player: str, tick: Tick
) -> tuple[dict[str, float], dict[str, float]]:
    """How far differences are from derivatives, and differences of two steps from each other; both at best, over
    several directions and steps."""
    best = dict.fromkeys(["slope", *point.players], float("inf"))
    apart, at = dict(best), _parts(here, player)
    for attempt in range(TRIES):
        d = direction(point, here.v, player, attempt)
        product = Evaluation(point.forward(d), {player: tree.dot(here.v[player], d[player])})
        predicted = _parts(product, player)
        noise = _rounding(at, predicted, _moved(point, d, TINY, player))
        tick(PER_DIRECTION)
        former: dict[str, list[Tensor]] = {}
        for h in STEPS:
            seen = _slopes(point, d, h, player)
            tick(PER_STEP)
            for key, j in predicted.items():
                size = max(_apart(seen[key]), _apart(j), 1e-300)
                off = _apart(seen[key], j) / (size + 10 * noise[key] / (h * AGREE))
                best[key] = min(best[key], off if off == off else float("inf"))
                if key in former:
                    apart[key] = min(apart[key], _apart(seen[key], former[key]) / size)
            if max(best.values()) <= AGREE:
                return best, apart
            former = seen
    return best, apart


# Vectors are lists of tensors here, of which no more is held than is compared: those of a large pair are most of what
# an audit of it takes in memory.


def _parts(found: Evaluation, player: str) -> dict[str, list[Tensor]]:
    """The player's loss and the players' gradients."""
    return {"slope": [found.losses[player]], **{p: tree.leaves(v) for p, v in found.v.items()}}


def _moved(point: EvaluationPoint, d: Players, h: float, player: str) -> dict[str, list[Tensor]]:
    """The same at x + h d, d of that player alone."""
    there = {**point.players, player: tree.axpy(h, d[player], point.players[player])}
    return _parts(point.evaluated(there), player)


def _slopes(point: EvaluationPoint, d: Players, h: float, player: str) -> dict[str, list[Tensor]]:
    """Central differences along d, over the step."""
    ahead, behind = (_moved(point, d, s * h, player) for s in (1, -1))
    for key, parts in ahead.items():
        ahead[key] = [a.sub(b).div_(2 * h) for a, b in zip(parts, behind.pop(key), strict=True)]
    return ahead


def _rounding(
    at: dict[str, list[Tensor]], slope: dict[str, list[Tensor]], moved: dict[str, list[Tensor]]
) -> dict[str, float]:
    """What a move of TINY changes beyond its slope."""
    beyond = {
        key: [
            b.sub(a).sub_(s, alpha=TINY)
            for a, b, s in zip(at[key], moved[key], slope[key], strict=True)
        ]
        for key in at
    }
    return {key: _apart(beyond[key]) + 2e-16 * _apart(at[key]) for key in at}


def _apart(a: list[Tensor], b: list[Tensor] | None = None) -> float:
    """|a - b|, or |a|, of vectors in parts."""
    parts = a if b is None else [x - y for x, y in zip(a, b, strict=True)]
    return math.hypot(*(float(part.norm()) for part in parts))


def direction(point: EvaluationPoint, v: Players, player: str, attempt: int) -> Players:
    """Zero but for one player: a random direction and the gradient's in equal parts (a random one alone is
    nearly orthogonal to the gradient), as long as the player's weights."""
    players = point.players
    own = players[player]
    where = Use.DIFFERENCE.at(player=list(players).index(player), attempt=attempt)
    rng = where.generator(point.context.seed)
    noise = tree.map(lambda t: normal(rng, t.shape, t.dtype, t.device), own)
    size = float(tree.norm(own)) or float(tree.count(own)) ** 0.5
    d = tree.scale(1 / max(float(tree.norm(noise)), 1e-300), noise)
    slope = float(tree.norm(v[player]))
    if slope > 0:
        # On the gradient's side: opposite ones (of a single weight, say) would add up to nothing.
        side = 1.0 if float(tree.dot(d, v[player])) >= 0 else -1.0
        d = tree.axpy(side / slope, v[player], d)
    # Zeros that are one number in memory.
    zeros = tree.map(lambda t: t.new_zeros(()).expand(t.shape), players)
    return {**zeros, player: tree.scale(size / float(tree.norm(d)), d)}
