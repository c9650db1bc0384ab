"""Does a small move gain to second order? Each player's own Hessian, and the leader's Schur complement."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.certificates import Json
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
    PRODUCT,
    Extremes,
    Hessian,
    Part,
    curvatures,
    extremes_of,
)
from equilibrist.checks._minimax import REFERENCES as MINIMAX
from equilibrist.checks._minimax import answers, local_minimax
from equilibrist.checks._second_order import (
    at_rest,
    curvature_of,
    direction_witness,
    feasible_direction,
    found_draws,
    free,
    inexact,
    product_budget,
    promised,
    scope,
)
from equilibrist.checks.certificate import (
    Certificate,
    Tolerance,
    Verdict,
    not_assessed,
    of_all_players,
)
from equilibrist.checks.context import AuditContext, Tick, no_tick, order_of, reach_of
from equilibrist.core.draws import Address, Use

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
    def measured(self) -> Interval:
        """What the move gains where it was made, else what is promised."""
        return self.moved.gain if self.moved else self.gains

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
    if why := inexact(context):
        return _unassessed(context, tolerance, why)
    firsts = {player: first_order(context, player, tick) for player in context.game.players}
    found = {
        player: own_curvature(context, player, share, tick, Use.CURVATURE.at(player=i))
        for i, player in enumerate(context.game.players)
        # Second order is asked only where first order is settled: a gain already found needs no other.
        if firsts[player].decision(context).verdict is not Verdict.REFUTED
    }
    parts = [
        _certificate(context, found[player], first, context.tolerance(player=player))
        if player in found
        else _moving(context, first, context.tolerance(player=player))
        for player, first in firsts.items()
    ]
    leader, follower = order_of(context.game)
    minimax = local_minimax(
        context,
        found[follower].ends if follower in found else None,
        found[leader].ends.vector if leader in found else None,
        next(c for c in parts if c.player == follower),
        tolerance,
        tick,
    )
    return [*parts, of_all_players("local-nash", parts), minimax]


def planned_gradients(context: AuditContext) -> float:
    """Planned minibatch gradients."""
    settings = context.settings
    if not context.sampled:
        return 2 * PRODUCT * min(tree.count(context.players), DENSE)
    products = product_budget(context)
    draws, share = len(found_draws(context)), max(2, products // 4)
    sizes = [tree.count(context.players[player]) for player in context.game.players]
    own = sum(min(n, share) for n in sizes) * draws
    # Dense where that is no more than what the pursuit may take.
    schur = max(2 * draws, min(sum(sizes) * draws, settings.local_products // 2))
    scored = min(settings.local_batches, settings.batches) * (len(sizes) + 2)
    # Both players' moves along negative curvature are rarely worth their measurement: one of them is planned.
    small = planned(context) + planned_value(context) + planned_both(context)
    return small + PRODUCT * (own + schur + scored) + answers(context)


def own_curvature(
    context: AuditContext, player: str, steps: int, tick: Tick, where: Address
) -> Curvature:
    """The ends of H_p by at most `steps` products on every draw, and the worst direction, scored."""
    operator = Hessian(context, player, found_draws(context), tick)
    reach = reach_of(context, player)
    if not operator.n:
        nothing = torch.zeros(0, dtype=torch.float64)
        empty = Extremes(0.0, nothing, 0.0, 0.0, True, 0, nothing)
        return Curvature(player, empty, None, Interval.at(0.0), reach)
    ends = extremes_of(context, operator, max(2, steps), where)
    part = operator.part
    del operator  # its graphs are as large as those of a training step, one for each draw
    found = Curvature(player, ends, None, Interval.at(ends.smallest), reach)
    if not ends.finite or not ends.smallest < -ends.zero:
        return found
    gain = -0.5 * ends.smallest * reach**2
    direction = feasible_direction(context, player, part.flat(ends.vector), gain)
    if direction is None:
        return found
    scored = context.interval(curvatures(context, player, direction, tick))
    found = replace(found, direction=direction, scored=scored)
    # A direction that promises next to nothing is not worth measuring.
    if max(gain, found.gains.high) > 0.25 * context.tolerance(player=player).value:
        return replace(found, moved=both_ways(context, player, direction, tick))
    return found


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
            "gain_interval": first.gain.ends,
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


def _certificate(
    context: AuditContext, found: Curvature, first: FirstOrder, tolerance: Tolerance
) -> Certificate:
    player = found.player
    verdict, summary = _judged(context, found, first, tolerance)
    witness = None
    if verdict is Verdict.REFUTED and found.direction is not None:
        witness = direction_witness(context, player, found.direction)
    limits = [
        "second order, near the pair only; whether the pair is at rest is the check "
        + ('"stationary"' if context.sampled else "of the first order"),
        *free(context).limits(player),
    ]
    if not found.ends.complete:
        limits.append(
            "Lanczos' method can miss an eigenvalue whose direction its start hardly holds"
        )
    return Certificate(
        f"local-nash/{player}",
        verdict,
        summary,
        _evidence(context, found, first, tolerance),
        tolerance,
        scope(context, player=player),
        tuple(limits),
        REFERENCES[:1],
        player,
        witness,
        "direction",
    )


def _evidence(
    context: AuditContext, found: Curvature, first: FirstOrder, tolerance: Tolerance
) -> Json:
    player, ends, where = found.player, found.ends, free(context)
    evidence = {
        "smallest": ends.smallest,
        "largest": ends.largest,
        "residual": ends.residual,
        "complete": ends.complete,
        "products": ends.steps,
        "parameters": Part(context, player).n,
        "move": found.reach,
        "curvature": found.scored.mean,
        "curvature_interval": found.scored.ends,
        "gain": found.gains.mean,
        "gain_interval": found.gains.ends,
        "curvature_of_tolerance": curvature_of(tolerance, found.reach),
        "order": 2,
        "measured": found.moved.describe() if found.moved else None,
        "first_order": first.describe(),
        "first_order_gain": where.residual[player],
        "gradient_norm": float(where.gradient[player].norm()),
        "confidence": context.settings.confidence,
    }
    if ends.values is not None:
        evidence["negative"] = int((ends.values < -ends.zero).sum())
        evidence["zero"] = ends.flat
    return evidence


def _judged(
    context: AuditContext, found: Curvature, first: FirstOrder, tolerance: Tolerance
) -> tuple[Verdict, str]:
    """The verdict on "no small move of the player gains to second order", and its sentence."""
    player, ends, unit = found.player, found.ends, context.unit
    held = free(context).held[player]
    if not Part(context, player).n and held:
        return Verdict.UNASSESSED, (
            f"Constraints hold {', '.join(held)} of the {player} as a whole: moves along their surface were not judged."
        )
    if not Part(context, player).n:
        wording = (
            f"Walls hold all of the {player}'s parameters: there is no small move left to judge."
        )
        return Verdict.NOT_REFUTED if context.sampled else Verdict.VERIFIED, wording
    if not ends.finite:
        wording = f"The {player}'s Hessian is not finite, so nothing can be said."
        return Verdict.UNASSESSED, wording
    if math.isnan(tolerance.value):
        return Verdict.UNASSESSED, f"Not assessed: {tolerance.why}."
    nothing = curvature_of(tolerance, found.reach)
    gained = promised(found.measured, unit, tolerance)
    decision, settled = decide(found.measured, tolerance.value), first.decision(context)
    if decision.verdict is Verdict.REFUTED and found.moved is not None:
        return Verdict.REFUTED, (
            f"The {player}'s loss curves down: a {found.moved.size:.2g} move along one direction gains {gained}."
        )
    if found.direction is None and ends.smallest < -max(nothing, ends.zero):
        return Verdict.UNASSESSED, (
            f"The {player}'s Hessian has the eigenvalue {ends.smallest:.3g}, but its direction leaves the "
            "feasible set or climbs the loss to first order, so nothing is refuted."
        )
    if settled.verdict is Verdict.UNASSESSED:
        return Verdict.UNASSESSED, (
            f"Cannot tell whether the {player} is at rest ({settled.reason.value}: a move down its gradient gains "
            f"{promised(first.gain, unit, tolerance)}), so its curvature does not decide."
        )
    if decision.verdict is Verdict.UNASSESSED:
        return Verdict.UNASSESSED, (
            f"Cannot tell whether a small move along the {player}'s most negative curvature gains: "
            f"{decision.reason.value} ({gained})."
        )
    if not ends.converged(nothing):
        return Verdict.UNASSESSED, (
            f"The smallest curvature of the {player}'s loss was not found to enough digits in {ends.steps} "
            f"products ({ends.smallest:.3g}, residual {ends.residual:.3g}): raise local_products."
        )
    if not context.sampled and ends.smallest >= -ends.zero:
        return _judged_exactly(context, player, ends, tolerance)
    return Verdict.NOT_REFUTED, (
        f"No {context.settings.move:.0%} move along the {player}'s most negative curvature "
        f"({found.scored.mean:.3g}) gains more than {tolerance.value:.3g} {unit}."
    )


def _judged_exactly(
    context: AuditContext, player: str, ends: Extremes, tolerance: Tolerance
) -> tuple[Verdict, str]:
    """The same where losses are exact and curve down in no direction: an eigenvalue of zero leaves it open, unless
    the losses are quadratic."""
    rests = at_rest(context, player, tolerance)
    if rests and ends.complete and not free(context).held[player]:
        if ends.smallest > ends.zero:
            return Verdict.VERIFIED, (
                f"The {player}'s loss curves up in every direction (smallest eigenvalue {ends.smallest:.3g})."
            )
        if getattr(context.game, "linear", False):
            wording = f"The {player}'s loss is quadratic and curves down in no direction."
            return Verdict.VERIFIED, wording
    if not ends.complete:
        why = "only the end of its spectrum was looked for"
    elif not rests:
        why = "its gradient is not zero"
    elif ends.flat:
        why = f"it is flat along {ends.flat} of {Part(context, player).n}"
    else:
        why = "a boundary holds part of them"
    return Verdict.NOT_REFUTED, (
        f"The {player}'s loss curves down in no direction, but {why}: second order leaves it open."
    )


def _unassessed(context: AuditContext, tolerance: Tolerance, why: str) -> list[Certificate]:
    claims = [*(f"local-nash/{p}" for p in context.game.players), "local-nash", "local-minimax"]
    return [
        not_assessed(claim, why, tolerance=tolerance, scope=scope(context), references=REFERENCES)
        for claim in claims
    ]
