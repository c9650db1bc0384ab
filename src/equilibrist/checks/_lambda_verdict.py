"""The verdict on "the pair is lambda-proximal near itself for some lambda": from lambda* and small moves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from equilibrist.checks._decide import Decision, Interval, decide
from equilibrist.checks._first_order import (
    FirstOrder,
)
from equilibrist.checks._lambda_star import LambdaStar
from equilibrist.checks._linear import Part
from equilibrist.checks._second_order import (
    at_rest,
    curvature_of,
    direction_witness,
    free,
    promised,
)
from equilibrist.checks.certificate import Tolerance, Verdict
from equilibrist.checks.context import AuditContext, order_of
from equilibrist.checks.curvature import Curvature
from equilibrist.core.game import Players


@dataclass(frozen=True, eq=False)
class LambdaEvidence:
    """What the certificate is made of.

    Attributes:
        led, followed: what small moves down the gradient gain, the leader's on V, the follower's.
        own: of the follower.
        reach: the length of the leader's small moves.
        scored: the leader's curvature at lambda* on the score split; None where it was not asked.
    """

    context: AuditContext
    tolerance: Tolerance
    led: FirstOrder
    followed: FirstOrder
    own: Curvature
    star: LambdaStar
    reach: float
    scored: Interval | None = None

    @property
    def players(self) -> tuple[str, str]:
        return order_of(self.context.game)

    @property
    def moving(self) -> Decision:
        """On "the follower gains by no small move down its gradient"."""
        return self.followed.decision(self.context)

    @property
    def slack(self) -> Interval:
        """What the follower gains by a small move of its own: the slack of Proposition 2's first inequality."""
        moves = self.moving.verdict is Verdict.REFUTED
        return self.followed.gain if moves else self.own.measured

    def star_in_words(self, low: float, high: float) -> str:
        """lambda*, and what answers pay in addition where the follower's Hessian is not positive definite."""
        damped = self.own.ends.smallest < -self.own.ends.zero
        paid = f" with the {self.players[1]}'s answers damped (see the limits)" if damped else ""
        return _interval(low, high) + paid


def verdict_of(seen: LambdaEvidence) -> tuple[Verdict, str, Players | None]:
    """The verdict on "the pair is proximal near itself for some lambda", its sentence and its witness."""
    if unsettled := _unsettled(seen):
        return unsettled
    context, star = seen.context, seen.star
    words = seen.star_in_words(star.low, star.high)
    nothing = curvature_of(seen.tolerance, seen.reach)
    lost = seen.scored is not None and star.vanishing < -nothing and seen.scored.high < 0
    if star.high == 0 or (star.low == 0 and lost):
        return _at_zero(seen)
    if star.low == 0 or not star.converged:
        text = (
            f"lambda* is {words}, as far as {star.evidence.get('products', 0)} products can tell: raise "
            "local_products to narrow it."
        )
        return Verdict.UNASSESSED, text, None
    held = any(free(context).held[player] for player in seen.players)
    exact = not context.sampled and star.strict and not held
    verdict = Verdict.VERIFIED if exact else Verdict.NOT_REFUTED
    if math.isinf(star.low):
        return verdict, _everywhere(seen), None
    text = (
        f"Near the pair it is a lambda-proximal equilibrium of V up to lambda* = {words} ({context.unit} "
        f"per squared slope): between Stackelberg (0) and Nash (infinite). A {seen.players[0]} that moves along one "
        "direction gains above it."
    )
    return verdict, text, _witness(context, star)


def _unsettled(seen: LambdaEvidence) -> tuple[Verdict, str, Players | None] | None:
    """The verdict that precedes lambda*; None where both players rest, the critic to second order too."""
    context, (leader, follower) = seen.context, seen.players
    moving, rest = seen.moving, seen.led.decision(context)
    curving = decide(seen.own.measured, seen.tolerance.value)
    gains = promised(seen.slack, context.unit, seen.tolerance)
    if seen.star.failed:
        text = f"Second derivatives of V are {seen.star.failed}, so nothing can be said of lambda*."
        return Verdict.UNASSESSED, text, None
    if moving.verdict is Verdict.REFUTED and seen.followed.witness is not None:
        text = (
            f"No proximal equilibrium, for any lambda: the {follower} is not at rest, a {seen.followed.size:.2g} move "
            f"of it alone gains {gains}."
        )
        return Verdict.REFUTED, text, {follower: seen.followed.witness}
    if curving.verdict is Verdict.REFUTED and seen.own.direction is not None:
        text = (
            f"No proximal equilibrium, for any lambda: a small move of the {follower} alone gains "
            f"{gains}."
        )
        return Verdict.REFUTED, text, direction_witness(context, follower, seen.own.direction)
    if Verdict.UNASSESSED in (moving.verdict, curving.verdict):
        why = moving.reason if moving.verdict is Verdict.UNASSESSED else curving.reason
        text = f"Cannot tell whether the {follower} answers best by small moves: {why.value}."
        return Verdict.UNASSESSED, text, None
    if rest.verdict is Verdict.REFUTED:
        gains = promised(seen.led.gain, context.unit, seen.tolerance)
        text = (
            f"The {leader} is not at rest: a {seen.led.size:.2g} move of it gains {gains} "
            f"against the {follower} as it is, so the pair is no proximal equilibrium for every lambda, and its "
            "curvature does not tell up to which."
        )
        return Verdict.UNASSESSED, text, None
    if rest.verdict is Verdict.UNASSESSED:
        text = (
            f"Cannot tell whether the {leader} is at rest on V ({rest.reason.value}), so its curvature does not "
            "decide whether the pair is proximal."
        )
        return Verdict.UNASSESSED, text, None
    if not all(at_rest(context, player, seen.tolerance) for player in seen.players):
        text = "The pair is not at rest, so its curvature does not decide whether it is proximal."
        return Verdict.UNASSESSED, text, None
    return None


def _at_zero(seen: LambdaEvidence) -> tuple[Verdict, str, Players | None]:
    """lambda* = 0: the leader gains whatever its opponent's answer costs."""
    context, star, scored, (leader, follower) = seen.context, seen.star, seen.scored, seen.players
    curvature = star.vanishing if scored is None else scored.high
    worth = Interval.at(-0.5 * seen.reach**2 * curvature)
    decision = decide(worth, seen.tolerance.value, finished=star.converged)
    if decision.verdict is Verdict.REFUTED and star.converged and star.u is not None:
        text = (
            f"No lambda > 0 makes the pair a proximal equilibrium (lambda* = 0): a small move of the {leader} "
            f"gains {worth.mean:.3g} {context.unit} whatever it costs the {follower} to answer. Stackelberg at best."
        )
        return Verdict.REFUTED, text, _witness(context, star)
    if context.sampled:
        text = (
            f"The {leader} seems to gain by a small move at every lambda > 0, but the score split does not "
            "say so for certain."
        )
        return Verdict.UNASSESSED, text, None
    text = (
        f"lambda* = 0: a small move of the {leader} gains at every lambda > 0, but less than "
        f"{seen.tolerance.value:.3g} {context.unit}."
    )
    return Verdict.NOT_REFUTED, text, None


def _everywhere(seen: LambdaEvidence) -> str:
    """lambda* is infinite, in words."""
    context, (leader, follower) = seen.context, seen.players
    least = f" more than {seen.tolerance.value:.3g} {context.unit}" if context.sampled else ""
    text = (
        "Near the pair it is a lambda-proximal equilibrium of V for every lambda: no small move of the "
        f"{leader} gains{least} on V even where the {follower} may not answer."
    )
    low, high = seen.star.evidence.get("lambda_star_strict", [math.inf, math.inf])
    if math.isinf(low):
        return text
    return f"{text} Without that tolerance lambda* is {seen.star_in_words(low, high)}."


def _witness(context: AuditContext, star: LambdaStar) -> Players:
    assert star.u is not None
    assert star.w is not None
    found: Players = {}
    for player, direction in zip(order_of(context.game), (star.u, star.w), strict=True):
        whole = Part(context, player).flat(direction)
        found |= direction_witness(context, player, whole)
    return found


def _interval(low: float, high: float) -> str:
    if math.isinf(low):
        return "infinite"
    if low == high or (math.isfinite(high) and high - low <= 1e-3 * high):
        return f"{high:.4g}"
    return f"{low:.3g} to {'infinity' if math.isinf(high) else format(high, '.3g')}"
