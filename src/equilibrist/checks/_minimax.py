"""Is the pair a local minimax point? The leader's curvature after the follower's answer, singular Hessians included."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks._answer import FEWEST, Answered, answered
from equilibrist.checks._complement import Schur, schur_of
from equilibrist.checks._decide import Decision, Interval, Reason, decide
from equilibrist.checks._first_order import FirstOrder, elsewhere, first_order
from equilibrist.checks._linear import Extremes, Part, random_direction
from equilibrist.checks._second_order import (
    at_rest,
    curvature_of,
    direction_witness,
    found_draws,
    free,
    scope,
)
from equilibrist.checks.certificate import Certificate, Json, Tolerance, Verdict
from equilibrist.checks.context import AuditContext, Meter, Tick, order_of, reach_of
from equilibrist.core.draws import Draw, Use
from equilibrist.core.game import Players

REFERENCES = (
    "Jin, Netrapalli and Jordan 2020, Propositions 18 and 19 (local minimax points)",
    "Chae, Kim and Kim 2023, arXiv 2305.16242 (restricted Schur complement)",
)
KEPT = 0.08  # of a budget: answers have it beyond what is shared out
ENOUGH = 100  # evaluations for the answers to two opposite moves from a few starts
_NONE_WORTH_AN_ANSWER = Decision(Verdict.NOT_REFUTED, Reason.BELOW)


class _Found(NamedTuple):
    """What is concluded: a verdict with its sentence, its witness, and what it does not say."""

    verdict: Verdict
    summary: str
    witness: Players | None = None
    witness_kind: str = "deviation"
    player: str | None = None
    limits: tuple[str, ...] = ()


def local_minimax(
    context: AuditContext,
    ends: Extremes | None,
    start: Tensor | None,
    inner: Certificate,
    tolerance: Tolerance,
    tick: Tick,
) -> Certificate:
    """The certificate "local-minimax".

    Args:
        ends: of the follower's own Hessian; None where it was not asked for.
        start: where the leader's own loss curves down most, a good place to begin.
        inner: "local-nash/<follower>", the inner half of the claim.
    """
    leader, follower = order_of(context.game)
    evidence: Json = {
        "leader": leader,
        "follower": follower,
        "follower_smallest": ends.smallest if ends else None,
        "follower_verdict": inner.verdict.value,
        "slack": inner.evidence.get("gain"),
    }
    if inner.verdict is Verdict.REFUTED:
        summary = f"Not a local minimax point: the {follower} does not answer best. {inner.summary}"
        kind = inner.witness_kind or "deviation"
        found = _Found(Verdict.REFUTED, summary, inner.witness, kind, follower)
    elif ends is None:
        summary = f"Cannot tell whether this is a local minimax point: {inner.summary}"
        found = _Found(Verdict.UNASSESSED, summary)
    else:
        found = _asked(context, ends, start, inner, tolerance, tick, evidence)
    return Certificate(
        "local-minimax",
        found.verdict,
        found.summary,
        evidence,
        tolerance,
        scope(context, losses="the zero-sum V, minus the follower's own loss", leader=leader),
        (
            "second order, near the pair only; the leader moves first, the follower answers best",
            *free(context).limits(leader, follower),
            *found.limits,
        ),
        REFERENCES,
        found.player,
        found.witness,
        found.witness_kind,
    )


def _asked(
    context: AuditContext,
    ends: Extremes,
    start: Tensor | None,
    inner: Certificate,
    tolerance: Tolerance,
    tick: Tick,
    evidence: Json,
) -> _Found:
    """The leader's side: what its moves gain after the follower's answers. Adds to `evidence`."""
    leader, _ = order_of(context.game)
    meter = Meter(tick)
    first = first_order(context, leader, tick, value=True)
    settled = first.decision(context)
    evidence["first_order"] = first.describe()
    # What is not settled keeps the claim from standing; a deviation that outlives the answer refutes all the same.
    unsettled = ""
    if inner.verdict is Verdict.UNASSESSED:
        unsettled = f"Cannot tell whether this is a local minimax point: {inner.summary}"
    elif settled.verdict is Verdict.UNASSESSED:
        unsettled = f"Cannot tell whether the {leader} is at rest on V: {settled.reason.value}."
    if settled.verdict is Verdict.REFUTED:
        led = _led(context, first, _evaluations(context), meter)
        evidence["answered"] = led.describe() if led else None
        if led is not None and led.decision(tolerance.value).verdict is not Verdict.NOT_REFUTED:
            return _led_first(context, first, led, tolerance)
    reach = reach_of(context, leader)
    schur = schur_of(context, ends, start, curvature_of(tolerance, reach), tick)
    curved = schur.scored
    gains = Interval(*(-0.5 * reach**2 * c + 0.0 for c in (curved.mean, curved.high, curved.low)))
    evidence |= schur.evidence
    evidence |= {"move": reach, "gain": gains.mean, "gain_interval": gains.ends}
    if math.isnan(schur.value):
        summary = "Second derivatives of V are not finite, so nothing can be said."
        return _Found(Verdict.UNASSESSED, summary)
    left = _evaluations(context)
    if context.settings.gradients:
        left -= math.ceil(meter.spent / len(answer_draws(context)))
    followed = _followed_up(context, schur, reach, tolerance, left, tick)
    if followed is not None:
        evidence["answered"] = followed.describe()
    found = _judged(context, schur, gains, followed, tolerance)
    if found.verdict is Verdict.REFUTED:
        return found
    if not unsettled:
        return found._replace(summary=found.summary + elsewhere(context, leader, tick))
    return _curved_down(context, schur, gains, followed, tolerance, unsettled) or _Found(
        Verdict.UNASSESSED, unsettled, limits=schur.limits
    )


def _curved_down(
    context: AuditContext,
    schur: Schur,
    gains: Interval,
    followed: Answered | None,
    tolerance: Tolerance,
    unsettled: str,
) -> _Found | None:
    """Where second derivatives refute by themselves: the follower's Hessian is definite, so that higher orders add
    nothing to its answer, the better of two opposite moves gains what they promise, whatever the gradient, and the
    move itself was not measured to gain nothing."""
    leader, follower = order_of(context.game)
    hidden = _decided(followed, tolerance).verdict is Verdict.UNASSESSED
    if schur.u is None or schur.singular or not hidden:
        return None
    if decide(gains, tolerance.value).verdict is not Verdict.REFUTED:
        return None
    summary = (
        f"Not a local minimax point: the {leader}'s curvature after the {follower}'s answer promises "
        f"{_span(context, gains, tolerance)}."
    )
    limit = f"promised by second derivatives: the noise hides what a move gains. {unsettled}"
    witness = direction_witness(context, leader, Part(context, leader).flat(schur.u))
    return _Found(Verdict.REFUTED, summary, witness, "direction", leader, (*schur.limits, limit))


def _decided(found: Answered | None, tolerance: Tolerance) -> Decision:
    """No move worth an answer refutes nothing."""
    return _NONE_WORTH_AN_ANSWER if found is None else found.decision(tolerance.value)


def _span(context: AuditContext, gain: Interval, tolerance: Tolerance) -> str:
    """A gain in words, with its interval even where that has no width."""
    ends = f"{gain.low:.3g} to {gain.high:.3g}"
    return f"{gain.mean:.3g} {context.unit} ({ends}; tolerance {tolerance.value:.3g})"


def _led(context: AuditContext, first: FirstOrder, evaluations: int, tick: Tick) -> Answered | None:
    """The leader's move down its gradient on V, after the follower's answer."""
    leader, follower = order_of(context.game)
    assert first.witness is not None
    moved = tree.to(first.witness, dtype=torch.float64)
    step = tree.flatten(moved) - tree.flatten(context.wide[0][leader])
    noise = random_direction(context, len(free(context).masks[follower]), Use.ANSWERED.at(search=1))
    # Of a budget, what the other direction of `local_minimax` must have.
    kept = FEWEST if context.settings.gradients else 0
    return answered(
        context,
        step / step.norm(),
        [noise / noise.norm()],
        evaluations - kept,
        tick,
        (1.0,),
        draws=answer_draws(context),
    )


def _led_first(
    context: AuditContext, first: FirstOrder, found: Answered, tolerance: Tolerance
) -> _Found:
    """What the move down the gradient shows, unless it gains nothing after the answer."""
    leader, follower = order_of(context.game)
    decision, after = found.decision(tolerance.value), _span(context, found.gain, tolerance)
    if decision.verdict is Verdict.REFUTED:
        summary = (
            f"Not a local minimax point: a {found.size:.2g} move of the {leader} down its gradient gains {after} even "
            f"after the {follower}'s best answer."
        )
        return _outliving(found, summary, leader)
    summary = (
        f"Cannot tell whether this is a local minimax point: the {leader} is not at rest (a small move gains "
        f"{first.gain.mean:.3g} {context.unit} against the {follower} as it is, and {after} after its answer, where "
        f"{found.why(tolerance.value)})."
    )
    return _Found(decision.verdict, summary)


def _outliving(found: Answered, summary: str, leader: str, limits: tuple[str, ...] = ()) -> _Found:
    """Refuted by a move that outlives the answer."""
    player = None if found.witness is None else leader
    return _Found(Verdict.REFUTED, summary, found.witness, "deviation", player, limits)


def _evaluations(context: AuditContext) -> int:
    """Gradients of the follower on all draws, for all of its answers."""
    if not context.sampled:
        return 20_000
    if context.settings.gradients:
        return int(answers(context)) // len(answer_draws(context))
    return context.settings.local_products // len(found_draws(context))


def answer_draws(context: AuditContext) -> list[Draw]:
    """The minibatches on which answers are found: one where a budget affords too few evaluations on more."""
    draws = found_draws(context)
    few = context.settings.gradients and answers(context) / len(draws) < ENOUGH
    return draws[:1] if few else draws


def answers(context: AuditContext) -> float:
    """Planned minibatch gradients of all answers to the leader's moves."""
    settings = context.settings
    if not settings.gradients:  # three sizes of moves, mostly of one sign, from a few starts
        return 2.0 * settings.local_products
    return KEPT * settings.gradients


def _followed_up(
    context: AuditContext,
    schur: Schur,
    reach: float,
    tolerance: Tolerance,
    evaluations: int,
    tick: Tick,
) -> Answered | None:
    """A negative direction counts only after the follower's answer, along the null space of its Hessian too."""
    leader, follower = order_of(context.game)
    promised = -0.5 * reach**2 * min(schur.value, schur.scored.mean)
    if schur.u is None or not promised > 0.25 * tolerance.value:
        return None
    parts = Part(context, leader), Part(context, follower)
    # Where its Hessian is definite all ascents lead to one answer: a budget affords no more of them.
    null = schur.null if schur.singular or not context.settings.gradients else ()
    directions = [d for d in null for d in (d, -d)]
    if schur.w is not None and float(schur.w.norm()) > 0:
        # A move of size `reach` is answered by reach * w: both ways, as the leader may move both ways.
        own = reach_of(context, follower)
        directions = [s * reach / own * schur.w for s in (1.0, -1.0)] + directions
    return answered(
        context,
        parts[0].flat(schur.u),
        [parts[1].flat(d) for d in directions],
        evaluations,
        tick,
        singular=schur.singular,
        draws=answer_draws(context),
    )


def _judged(
    context: AuditContext,
    schur: Schur,
    gains: Interval,
    followed: Answered | None,
    tolerance: Tolerance,
) -> _Found:
    leader, follower = order_of(context.game)
    decision, limits = _decided(followed, tolerance), schur.limits
    # What a better answer could add is no noise: it only lowers the gain.
    above = gains.high - gains.mean
    promise = decide(Interval(gains.mean, gains.mean - above, gains.high), tolerance.value)
    span = "" if followed is None else _span(context, followed.gain, tolerance)
    if followed is not None and decision.verdict is Verdict.REFUTED:
        summary = (
            f"Not a local minimax point: a {followed.size:.2g} move of the {leader} gains {span} even after the "
            f"{follower}'s best answer."
        )
        return _outliving(followed, summary, leader, limits)
    if followed is not None and decision.verdict is Verdict.UNASSESSED:
        verdict = Verdict.UNASSESSED
        summary = (
            f"A move of the {leader} seems to gain {span} after the {follower}'s answer, but "
            f"{followed.why(tolerance.value)}."
        )
    elif followed is None and schur.u is not None and promise.verdict is Verdict.UNASSESSED:
        verdict = Verdict.UNASSESSED
        summary = (
            f"Cannot tell whether a small move of the {leader} gains after the {follower}'s answer: "
            f"{promise.reason.value}."
        )
    elif not schur.converged:
        verdict = Verdict.UNASSESSED
        summary = (
            f"The {leader}'s curvature after the {follower}'s answer was not found to enough digits "
            f"({schur.value:.3g}): raise local_products."
        )
    elif schur.verified and _rest_inside(context, tolerance):
        verdict = Verdict.VERIFIED
        summary = (
            f"A local minimax point: the {follower} answers best, and no small move of the {leader} gains after "
            f"its answer (smallest curvature {schur.value:.3g})."
        )
    elif followed is not None:
        verdict = Verdict.NOT_REFUTED
        summary = (
            f"To second order a move of the {leader} gains (curvature {schur.value:.3g}), but once the {follower} "
            f"answers, along the null space of its Hessian too, it gains {span}."
        )
    else:
        verdict = Verdict.NOT_REFUTED
        summary = (
            f"No small move of the {leader} was found to gain after the {follower}'s answer, to second order "
            f"(smallest curvature {schur.value:.3g})."
        )
    return _Found(verdict, summary, limits=limits)


def _rest_inside(context: AuditContext, tolerance: Tolerance) -> bool:
    """Whether both players rest, held by no boundary as a whole."""
    held = free(context).held
    return all(at_rest(context, p, tolerance) and not held[p] for p in order_of(context.game))
