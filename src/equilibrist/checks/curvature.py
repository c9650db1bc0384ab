"""Does a small move gain to second order? Each player's own Hessian, and the leader's Schur complement."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks import _linear
from equilibrist.checks._decide import Interval, decide
from equilibrist.checks._first_order import (
    FirstOrder,
    both_ways,
    first_order,
    planned,
    planned_both,
    planned_value,
)
from equilibrist.checks._linear import (
    DENSE,
    Extremes,
    Hessian,
    Part,
    extremes_of,
    found_draws,
    free,
    score_draws,
)
from equilibrist.checks._minimax import REFERENCES as MINIMAX
from equilibrist.checks._minimax import answers, local_minimax
from equilibrist.checks._spent import Tick, no_tick
from equilibrist.checks._value import order_of
from equilibrist.checks.certificate import Certificate, Tolerance, Verdict, both
from equilibrist.checks.context import AuditContext, norm_of
from equilibrist.core.draws import Address, Use
from equilibrist.core.game import Players

REFERENCES = (
    "Mazumdar, Jordan and Sastry 2019, Definition 2 (differential Nash equilibria)",
    *MINIMAX,
)


@dataclass(frozen=True, eq=False)
class Curvature:
    """What was found of one player's own Hessian.

    Attributes:
        ends: of its spectrum, over the free coordinates.
        direction: unit [n_p], feasible, in which the player's loss curves down; None where there is none.
        scored: its curvature u^T H u, on the score split where losses are sampled.
        reach: move * |x|.
        moved: what the best small move along the direction gains, measured; None where too little is promised.
    """

    player: str
    ends: Extremes
    direction: Tensor | None
    scored: Interval
    reach: float
    moved: FirstOrder | None = None

    def gain(self, curvature: float) -> float:
        """What a move of `reach` gains to second order; negative where it loses."""
        return -0.5 * curvature * self.reach**2 + 0.0

    @property
    def gains(self) -> Interval:
        """The promised gain, scored."""
        low, high = self.gain(self.scored.high), self.gain(self.scored.low)
        return Interval(self.gain(self.scored.mean), low, high)


def local(context: AuditContext, tick: Tick = no_tick) -> list[Certificate]:
    """Certificates "local-nash/<player>", "local-nash" and "local-minimax": second-order conditions.

    H_p is player p's own Hessian, J_pp. The pair is a strict local Nash equilibrium if it is stationary and
    every H_p is positive definite; with a negative eigenvalue, -1/2 lambda r^2 is what a move of
    r = move * |x_p| along its eigenvector gains. It is a strict local minimax point of the zero-sum V, the
    generator leading, if -V_ww and S = V_tt + V_tw (-V_ww)^-1 V_wt are positive definite (Jin, Netrapalli and
    Jordan 2020, Proposition 19; their Proposition 18 is the necessary half). Where V_ww is singular, S is the
    restricted Schur complement (Chae, Kim and Kim 2023), and a negative direction refutes only if it still gains
    once the follower has answered along the null space of V_ww too (see `_answer`).

    Where losses are exact and n is at most 2,500, all eigenvalues are found. Otherwise: Lanczos on the mean
    over `local_draws` minibatches, at most `local_products` products; the direction found is scored by
    u^T H u on batches of the score split, with Student's interval.

    A player that is not at rest gains by a small move already (see `first_order`): that refutes its local Nash
    claim, and of the follower the pair's local minimax claim, and second order is not asked. A direction of negative
    curvature counts by what a move along it gains, measured at the moved point.

    VERIFIED: all eigenvalues are positive (zero to rounding is enough where losses are quadratic), exact
    losses only, and the pair at rest. REFUTED: a measured gain is above the tolerance for certain; the move or
    its direction is the witness. UNASSESSED: what is not finite, did not converge, has no feasible direction, or
    is hidden by noise. NOT_REFUTED: otherwise.
    """
    share = context.settings.local_products // len(found_draws(context)) // 4
    tolerance = context.tolerance()
    if why := _linear.inexact(context):
        return _unassessed(context, tolerance, why)
    firsts = {player: first_order(context, player, tick) for player in context.game.players}
    found = {
        player: own_curvature(context, player, share, tick, Use.CURVATURE.at(player=i))
        for i, player in enumerate(context.game.players)
        # Second order is asked only where first order is settled: a gain already found needs no other.
        if firsts[player].decision(context).verdict is not Verdict.REFUTED
    }
    parts = [
        _certificate(context, found[player], first, tolerance)
        if player in found
        else _moving(context, first, tolerance)
        for player, first in firsts.items()
    ]
    overall = both("local-nash", parts, _overall(parts))
    leader, follower = order_of(context.game)
    minimax = local_minimax(
        context,
        found[follower].ends if follower in found else None,
        found[leader].ends.vector if leader in found else None,
        next(c for c in parts if c.player == follower),
        tolerance,
        tick,
    )
    return [*parts, overall, minimax]


def work(context: AuditContext) -> float:
    """Planned minibatch gradients."""
    settings = context.settings
    if not context.sampled:
        return 2 * _linear.PRODUCT * min(tree.count(context.players), DENSE)
    products = _linear.products_of(context)
    draws, share = len(found_draws(context)), max(2, products // 4)
    sizes = [tree.count(context.players[player]) for player in context.game.players]
    own = sum(min(n, share) for n in sizes) * draws
    # Dense where that is no more than what the pursuit may take.
    schur = max(2 * draws, min(sum(sizes) * draws, settings.local_products // 2))
    scored = min(settings.local_batches, settings.batches) * (len(sizes) + 2)
    # Both players' moves along negative curvature are rarely worth their measurement: one of them is planned.
    small = planned(context) + planned_value(context) + planned_both(context)
    return small + _linear.PRODUCT * (own + schur + scored) + answers(context)


def own_curvature(
    context: AuditContext, player: str, steps: int, tick: Tick, where: Address
) -> Curvature:
    """The ends of H_p by at most `steps` products on every draw, and the worst direction, scored."""
    operator = Hessian(context, player, found_draws(context), tick)
    reach = context.settings.move * norm_of(context, player)
    if not operator.n:
        nothing = torch.zeros(0, dtype=torch.float64)
        empty = Extremes(0.0, nothing, 0.0, 0.0, True, 0, nothing)
        return Curvature(player, empty, None, Interval(0.0, 0.0, 0.0), reach)
    ends = extremes_of(context, operator, max(2, steps), where)
    part = operator.part
    del operator  # its graphs are as large as those of a training step, one for each draw
    scored, direction = Interval(ends.smallest, ends.smallest, ends.smallest), None
    if ends.finite and ends.smallest < -ends.zero:
        gain = -0.5 * ends.smallest * reach**2
        direction = _linear.feasible(context, player, part.flat(ends.vector), gain)
        if direction is not None:
            scored = context.interval(_linear.curvatures(context, player, direction, tick))
            found = Curvature(player, ends, direction, scored, reach)
            # What promises next to nothing is not worth its measurement.
            if max(gain, found.gains.high) > 0.25 * context.tolerance().value:
                return replace(found, moved=both_ways(context, player, direction, tick))
            return found
    return Curvature(player, ends, direction, scored, reach)


def _moving(context: AuditContext, first: FirstOrder, tolerance: Tolerance) -> Certificate:
    """The local Nash claim of a player that is not at rest: refuted by its move down the gradient."""
    player = first.player
    assert first.witness is not None
    return Certificate(
        f"local-nash/{player}",
        Verdict.REFUTED,
        f"The {player} is not at rest: a {first.size:.2g} move of its weights down its gradient gains "
        f"{promised(first.gain, context.unit, tolerance)}.",
        {
            "order": 1,
            "gain": first.gain.mean,
            "gain_interval": [first.gain.low, first.gain.high],
            "first_order": first.describe(),
            "confidence": context.settings.confidence,
        },
        tolerance,
        scope(context, player=player),
        ("near the pair only; the player's curvature was not asked for, as its gradient decides",),
        REFERENCES[:1],
        player,
        {player: first.witness},
    )


def at_rest(context: AuditContext, player: str, tolerance: Tolerance) -> bool:
    """Whether the gradient is nothing to first order; of exact losses only (see "stationary" for others)."""
    return context.sampled or free(context).residual[player] <= tolerance.value


def scope(context: AuditContext, **extra: Any) -> dict[str, Any]:
    """The context's, with the precision of a second-order check."""
    how = (
        f"directions from {len(found_draws(context))} minibatches of {context.settings.batch}, scored on "
        f"{len(list(score_draws(context)))} batches of the score split"
        if context.sampled
        else "exact expectations"
    )
    return context.scope() | {"search_precision": "float64", "products": how} | extra


def direction_witness(context: AuditContext, player: str, u: Tensor) -> Players:
    """A unit direction [n_p] as the player's parameters."""
    return {player: tree.unflatten(u, {"x": context.wide[0][player]})["x"]}


def promised(gains: Interval, unit: str, tolerance: Tolerance) -> str:
    """A gain in words, with its interval where it has one."""
    span = f"{gains.low:.3g} to {gains.high:.3g}; " if gains.high > gains.low else ""
    return f"{gains.mean:.3g} {unit} ({span}tolerance {tolerance.value:.3g})"


def _certificate(
    context: AuditContext, found: Curvature, first: FirstOrder, tolerance: Tolerance
) -> Certificate:
    player, ends, settings = found.player, found.ends, context.settings
    where = free(context)
    n = Part(context, player).n
    unit = context.unit
    gains = found.gains
    rounding = ends.zero
    nothing = 2 * tolerance.value / found.reach**2  # the curvature that promises the tolerance
    evidence: dict[str, Any] = {
        "smallest": ends.smallest,
        "largest": ends.largest,
        "residual": ends.residual,
        "complete": ends.complete,
        "products": ends.steps,
        "parameters": n,
        "move": found.reach,
        "curvature": found.scored.mean,
        "curvature_interval": [found.scored.low, found.scored.high],
        "gain": gains.mean,
        "gain_interval": [gains.low, gains.high],
        "curvature_of_tolerance": nothing,
        "order": 2,
        "measured": found.moved.describe() if found.moved else None,
        "first_order": first.describe(),
        "first_order_gain": where.residual[player],
        "gradient_norm": float(where.gradient[player].norm()),
        "confidence": settings.confidence,
    }
    if ends.values is not None:
        evidence["negative"] = int((ends.values < -rounding).sum())
        evidence["zero"] = int((ends.values.abs() <= rounding).sum())
    witness = None
    measured = found.moved.gain if found.moved else gains
    decision = decide(measured, tolerance.value)
    settled = first.decision(context)
    if not n and where.held[player]:
        verdict = Verdict.UNASSESSED
        summary = (
            f"Constraints hold {', '.join(where.held[player])} of the {player} as a whole: moves along their surface "
            "were not judged."
        )
    elif not n:
        verdict = Verdict.NOT_REFUTED if context.sampled else Verdict.VERIFIED
        summary = (
            f"Walls hold all of the {player}'s parameters: there is no small move left to judge."
        )
    elif not ends.finite:
        verdict, summary = (
            Verdict.UNASSESSED,
            f"The {player}'s Hessian is not finite, so nothing can be said.",
        )
    elif math.isnan(tolerance.value):
        verdict, summary = Verdict.UNASSESSED, f"Not assessed: {tolerance.why}."
    elif decision.verdict is Verdict.REFUTED and found.direction is not None:
        verdict, witness = Verdict.REFUTED, direction_witness(context, player, found.direction)
        summary = (
            f"The {player}'s loss curves down: a {found.moved.size:.2g} move along one direction gains "  # type: ignore[union-attr]
            f"{promised(measured, unit, tolerance)}."
        )
    elif found.direction is None and ends.smallest < -max(nothing, rounding):
        verdict = Verdict.UNASSESSED
        summary = (
            f"The {player}'s Hessian has the eigenvalue {ends.smallest:.3g}, but its direction leaves the "
            "feasible set or climbs the loss to first order, so nothing is refuted."
        )
    elif settled.verdict is Verdict.UNASSESSED:
        verdict = Verdict.UNASSESSED
        summary = (
            f"Cannot tell whether the {player} is at rest ({settled.reason.value}: a move down its gradient gains "
            f"{promised(first.gain, unit, tolerance)}), so its curvature does not decide."
        )
    elif decision.verdict is Verdict.UNASSESSED:
        verdict = Verdict.UNASSESSED
        summary = (
            f"Cannot tell whether a small move along the {player}'s most negative curvature gains: "
            f"{decision.reason.value} ({promised(measured, unit, tolerance)})."
        )
    elif not ends.converged(nothing):
        verdict = Verdict.UNASSESSED
        summary = (
            f"The smallest curvature of the {player}'s loss was not found to enough digits in {ends.steps} "
            f"products ({ends.smallest:.3g}, residual {ends.residual:.3g}): raise local_products."
        )
    elif (
        not context.sampled
        and _holds(context, ends)
        and not where.held[player]
        and at_rest(context, player, tolerance)
    ):
        verdict = Verdict.VERIFIED
        summary = (
            f"The {player}'s loss curves up in every direction (smallest eigenvalue {ends.smallest:.3g})."
            if ends.smallest > rounding
            else f"The {player}'s loss is quadratic and curves down in no direction."
        )
    elif not context.sampled and ends.smallest >= -rounding:
        verdict = Verdict.NOT_REFUTED
        flat = evidence.get("zero", 0)
        why = f"it is flat along {flat} of {n}" if flat else "a boundary holds part of them"
        if not at_rest(context, player, tolerance):
            why = "its gradient is not zero"
        if not ends.complete:
            why = "only the end of its spectrum was looked for"
        summary = f"The {player}'s loss curves down in no direction, but {why}: second order leaves it open."
    else:
        verdict = Verdict.NOT_REFUTED
        summary = (
            f"No {settings.move:.0%} move along the {player}'s most negative curvature "
            f"({found.scored.mean:.3g}) gains more than {tolerance.value:.3g} {unit}."
        )
    limits = [
        "second order, near the pair only; whether the pair is at rest is the check "
        + ('"stationary"' if context.sampled else "of the first order"),
        *where.limits(player),
    ]
    if not ends.complete:
        limits.append(
            "Lanczos' method can miss an eigenvalue whose direction its start hardly holds"
        )
    return Certificate(
        f"local-nash/{player}",
        verdict,
        summary,
        evidence,
        tolerance,
        scope(context, player=player),
        tuple(limits),
        REFERENCES[:1],
        player,
        witness,
        "direction",
    )


def _holds(context: AuditContext, ends: Extremes) -> bool:
    """Positive definite; or semi-definite where the losses are quadratic."""
    if not ends.complete:
        return False
    return ends.smallest > ends.zero or (
        ends.smallest >= -ends.zero and getattr(context.game, "linear", False)
    )


def _overall(parts: list[Certificate]) -> str:
    opening = {
        Verdict.REFUTED: "Not a local Nash equilibrium. ",
        Verdict.UNASSESSED: "Cannot tell whether this is a local Nash equilibrium. ",
    }
    for verdict, words in opening.items():
        if those := [part for part in parts if part.verdict is verdict]:
            return words + those[0].summary
    if any(part.verdict is not Verdict.VERIFIED for part in parts):
        return "No player was found to gain more than the tolerance by a small move alone, to second order."
    return "A local Nash equilibrium: no player gains by any small move alone."


def _unassessed(context: AuditContext, tolerance: Tolerance, why: str) -> list[Certificate]:
    claims = [*(f"local-nash/{p}" for p in context.game.players), "local-nash", "local-minimax"]
    return [
        Certificate(
            claim,
            Verdict.UNASSESSED,
            f"Not assessed: {why}.",
            {},
            tolerance,
            scope(context),
            references=REFERENCES,
            player=claim.partition("/")[2] or None,
        )
        for claim in claims
    ]
