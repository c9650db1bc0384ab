"""Is the pair a local minimax point? The leader's curvature after the follower's answer, singular Hessians included."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks._answer import FEWEST, Answered, answered
from equilibrist.checks._decide import Decision, Interval, Reason, decide
from equilibrist.checks._extremes import Extremes
from equilibrist.checks._first_order import FirstOrder, elsewhere, first_order
from equilibrist.checks._free import free
from equilibrist.checks._linear import (
    DENSE,
    Part,
    Value,
    found_draws,
    random_direction,
    score_draws,
)
from equilibrist.checks._schur import Pursuit, restricted
from equilibrist.checks._schur import answered as is_answered
from equilibrist.checks._schur import turned as is_turned
from equilibrist.checks._spent import Meter, Tick
from equilibrist.checks._value import order_of
from equilibrist.checks.certificate import Certificate, Tolerance, Verdict
from equilibrist.checks.context import AuditContext, norm_of
from equilibrist.core.draws import Draw, Use

REFERENCES = (
    "Jin, Netrapalli and Jordan 2020, Propositions 18 and 19 (local minimax points)",
    "Chae, Kim and Kim 2023, arXiv 2305.16242 (restricted Schur complement)",
)
NULL = {
    True: 1e-6,
    False: 1e-10,
}  # sampled or exact: |eigenvalues| of V_ww up to this share are null
KEPT = 0.08  # of a budget: answers have it beyond what is shared out
ENOUGH = 100  # evaluations for the answers to two opposite moves from a few starts
THRESHOLDS = (1e-10, 1e-8, 1e-6, 1e-4, 1e-2)  # shares at which the answer is reported


@dataclass(frozen=True, eq=False)
class Schur:
    """The smallest eigenvalue of the (restricted) Schur complement, and what may be concluded of it.

    Attributes:
        value: the eigenvalue, on the samples it was found on; not a number where products are not finite.
        u, w: its unit direction [n_t] and the follower's answer [n_w], over free coordinates; None where no
            direction of the leader is left.
        scored: the curvature on the score split, its upper end with the bound of what a better answer adds.
        null: directions [n_w] of the follower that its Hessian does not see.
        singular: whether the follower's Hessian is not positive definite for certain.
        converged: found to enough digits. `verified`: positive (semi-)definite for certain.
    """

    value: float
    u: Tensor | None
    w: Tensor | None
    scored: Interval
    null: tuple[Tensor, ...]
    singular: bool
    converged: bool
    verified: bool
    evidence: dict[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()


_NAN = Interval(math.nan, math.nan, math.nan)
_NOT_FINITE = Schur(math.nan, None, None, _NAN, (), True, False, False)


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
    evidence: dict[str, Any] = {
        "leader": leader,
        "follower": follower,
        "follower_smallest": ends.smallest if ends else None,
        "follower_verdict": inner.verdict.value,
        "slack": inner.evidence.get("gain"),
    }
    limits = (
        "second order, near the pair only; the leader moves first, the follower answers best",
        *free(context).limits(leader, follower),
    )
    common: dict[str, Any] = {
        "tolerance": tolerance,
        "scope": _scope(context, leader),
        "references": REFERENCES,
    }

    def certificate(
        verdict: Verdict, said: str, more: tuple[str, ...] = (), **rest: Any
    ) -> Certificate:
        return Certificate(
            "local-minimax", verdict, said, evidence, limits=(*limits, *more), **common, **rest
        )

    if inner.verdict is Verdict.REFUTED:
        return certificate(
            Verdict.REFUTED,
            f"Not a local minimax point: the {follower} does not answer best. {inner.summary}",
            witness=inner.witness,
            witness_kind=inner.witness_kind,
            player=follower,
        )
    # What is not settled keeps the claim from standing; a deviation that outlives the answer refutes all the same.
    unsettled = ""
    if inner.verdict is Verdict.UNASSESSED or ends is None:
        unsettled = f"Cannot tell whether this is a local minimax point: {inner.summary}"
    if ends is None:
        return certificate(Verdict.UNASSESSED, unsettled)
    meter = Meter(tick)
    first = first_order(context, leader, tick, value=True)
    evidence["first_order"] = first.describe()
    settled = first.decision(context)
    if settled.verdict is Verdict.UNASSESSED and not unsettled:
        unsettled = f"Cannot tell whether the {leader} is at rest on V: {settled.reason.value}."
    if settled.verdict is Verdict.REFUTED:
        led = _led(context, first, _evaluations(context), meter)
        evidence["answered"] = led.describe() if led else None
        decision = _decided(led, tolerance)
        if decision.verdict is not Verdict.NOT_REFUTED:
            said = _led_words(context, first, led, decision, tolerance)
            return certificate(decision.verdict, said, **_witness(led, decision, leader))
    reach = context.settings.move * norm_of(context, leader)
    nothing = 2 * tolerance.value / reach**2
    schur = schur_of(context, ends, start, nothing, tick)
    evidence |= schur.evidence
    gains = Interval(
        *(
            -0.5 * reach**2 * c + 0.0
            for c in (schur.scored.mean, schur.scored.high, schur.scored.low)
        )
    )
    evidence |= {"move": reach, "gain": gains.mean, "gain_interval": [gains.low, gains.high]}
    if math.isnan(schur.value):
        return certificate(
            Verdict.UNASSESSED, "Second derivatives of V are not finite, so nothing can be said."
        )
    left = _evaluations(context)
    if context.settings.gradients:
        left -= math.ceil(meter.spent / len(answer_draws(context)))
    followed = _followed_up(context, schur, reach, tolerance, left, tick)
    if followed is not None:
        evidence["answered"] = followed.describe()
    decision = _decided(followed, tolerance)
    verdict, said = _verdict(context, schur, gains, followed, decision, tolerance)
    if (
        verdict is not Verdict.REFUTED
        and unsettled
        and _curves_down(schur, gains, decision, tolerance)
    ):
        assert schur.u is not None
        u = Part(context, leader).flat(schur.u)
        return certificate(
            Verdict.REFUTED,
            f"Not a local minimax point: the {leader}'s curvature after the {follower}'s answer promises "
            f"{gains.mean:.3g} {context.unit} ({gains.low:.3g} to {gains.high:.3g}; tolerance {tolerance.value:.3g}).",
            (
                *schur.limits,
                f"promised by second derivatives: the noise hides what a move gains. {unsettled}",
            ),
            witness={leader: tree.unflatten(u, context.wide[0][leader])},
            witness_kind="direction",
            player=leader,
        )
    if verdict is not Verdict.REFUTED and unsettled:
        verdict, said = Verdict.UNASSESSED, unsettled
    elif verdict is not Verdict.REFUTED:
        said += elsewhere(context, leader, tick)
    return certificate(verdict, said, schur.limits, **_witness(followed, decision, leader))


def _curves_down(schur: Schur, gains: Interval, measured: Decision, tolerance: Tolerance) -> bool:
    """Whether second derivatives refute by themselves: the follower's Hessian is definite, so that higher orders add
    nothing to its answer, the better of two opposite moves gains what they promise, whatever the gradient, and the
    move itself was not measured to gain nothing."""
    definite = schur.u is not None and not schur.singular
    hidden = measured.verdict is Verdict.UNASSESSED
    return definite and hidden and decide(gains, tolerance.value).verdict is Verdict.REFUTED


def _scope(context: AuditContext, leader: str) -> dict[str, Any]:
    from equilibrist.checks.curvature import scope

    return scope(context, losses="the zero-sum V, minus the follower's own loss", leader=leader)


def _decided(found: Answered | None, tolerance: Tolerance) -> Decision:
    """No move worth an answer refutes nothing."""
    if found is None:
        return Decision(Verdict.NOT_REFUTED, Reason.BELOW)
    return found.decision(tolerance.value)


def _witness(found: Answered | None, decision: Decision, leader: str) -> dict[str, Any]:
    if decision.verdict is not Verdict.REFUTED or found is None or found.witness is None:
        return {}
    return {"witness": found.witness, "witness_kind": "deviation", "player": leader}


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


def _led_words(
    context: AuditContext,
    first: FirstOrder,
    found: Answered | None,
    decision: Decision,
    tolerance: Tolerance,
) -> str:
    leader, follower = order_of(context.game)
    assert found is not None
    after = (
        f"{found.gain.mean:.3g} {context.unit} ({found.gain.low:.3g} to {found.gain.high:.3g}; "
        f"tolerance {tolerance.value:.3g})"
    )
    if decision.verdict is Verdict.REFUTED:
        return (
            f"Not a local minimax point: a {found.size:.2g} move of the {leader} down its gradient gains {after} even "
            f"after the {follower}'s best answer."
        )
    return (
        f"Cannot tell whether this is a local minimax point: the {leader} is not at rest (a small move gains "
        f"{first.gain.mean:.3g} {context.unit} against the {follower} as it is, and {after} after its answer, where "
        f"{decision.reason.value})."
    )


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
        own = context.settings.move * norm_of(context, follower)
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


def _verdict(
    context: AuditContext,
    schur: Schur,
    gains: Interval,
    followed: Answered | None,
    decision: Decision,
    tolerance: Tolerance,
) -> tuple[Verdict, str]:
    leader, follower = order_of(context.game)
    where, unit = free(context), context.unit
    still = all(context.sampled or where.residual[p] <= tolerance.value for p in (leader, follower))
    held = where.held[leader] or where.held[follower]
    # What a better answer could add is no noise: it only lowers the gain.
    above = gains.high - gains.mean
    promise = decide(Interval(gains.mean, gains.mean - above, gains.high), tolerance.value)
    if followed is not None:
        span = (
            f"{followed.gain.mean:.3g} {unit} ({followed.gain.low:.3g} to {followed.gain.high:.3g}; "
            f"tolerance {tolerance.value:.3g})"
        )
        if decision.verdict is Verdict.REFUTED:
            return Verdict.REFUTED, (
                f"Not a local minimax point: a {followed.size:.2g} move of the {leader} gains {span} even after the "
                f"{follower}'s best answer."
            )
        if decision.verdict is Verdict.UNASSESSED:
            return Verdict.UNASSESSED, (
                f"A move of the {leader} seems to gain {span} after the {follower}'s answer, but "
                f"{decision.reason.value}."
            )
    elif schur.u is not None and promise.verdict is Verdict.UNASSESSED:
        return Verdict.UNASSESSED, (
            f"Cannot tell whether a small move of the {leader} gains after the {follower}'s answer: "
            f"{promise.reason.value}."
        )
    if not schur.converged:
        return Verdict.UNASSESSED, (
            f"The {leader}'s curvature after the {follower}'s answer was not found to enough digits "
            f"({schur.value:.3g}): raise local_products."
        )
    if schur.verified and still and not held:
        return Verdict.VERIFIED, (
            f"A local minimax point: the {follower} answers best, and no small move of the {leader} gains after "
            f"its answer (smallest curvature {schur.value:.3g})."
        )
    if followed is not None:
        return Verdict.NOT_REFUTED, (
            f"To second order a move of the {leader} gains (curvature {schur.value:.3g}), but once the {follower} "
            f"answers, along the null space of its Hessian too, it gains {span}."
        )
    return Verdict.NOT_REFUTED, (
        f"No small move of the {leader} was found to gain after the {follower}'s answer, to second order "
        f"(smallest curvature {schur.value:.3g})."
    )


# -- the Schur complement ------------------------------------------------------------------------------


def blocks(context: AuditContext, tick: Tick) -> tuple[Tensor, Tensor, Tensor]:
    """V_tt [n_t, n_t], V_wt [n_c, n_t] and -V_ww [n_c, n_c] over the free coordinates, dense."""
    value = Value(context, found_draws(context), tick)
    nt, nc = value.leader.n, value.follower.n
    unit_t, unit_c = (torch.eye(n, dtype=torch.float64, device=context.device) for n in (nt, nc))
    led = [value.of_leader(row) for row in unit_t]
    a = torch.stack([x for x, _ in led], 1) if nt else unit_t
    g = torch.stack([y for _, y in led], 1) if nt else unit_c.new_zeros(nc, 0)
    c = torch.stack([value.of_follower(row)[1] for row in unit_c], 1) if nc else unit_c
    return (a + a.mT) / 2, g, (c + c.mT) / 2


def is_dense(context: AuditContext, products: int) -> bool:
    """Whether V's second derivatives are built whole: within `products` on every draw, or exact and small."""
    leader, follower = order_of(context.game)
    n = Part(context, leader).n + Part(context, follower).n
    return n <= products or (not context.sampled and n <= DENSE)


def schur_of(
    context: AuditContext, ends: Extremes, start: Tensor | None, nothing: float, tick: Tick
) -> Schur:
    """The leader's curvature after the follower's answer of the same order: dense where that is affordable."""
    products = context.settings.local_products // 2
    leader, _ = order_of(context.game)
    if not Part(context, leader).n:
        exact = not context.sampled
        return Schur(0.0, None, None, Interval(0.0, 0.0, 0.0), (), False, True, exact)
    if is_dense(context, products // len(found_draws(context))):
        return _dense(context, tick)
    return _by_products(context, ends, start, nothing, products, tick)


def _dense(context: AuditContext, tick: Tick) -> Schur:
    a, g, c = blocks(context, tick)
    if not all(bool(torch.isfinite(t).all()) for t in (a, g, c)):
        return _NOT_FINITE
    found = restricted(a, g, c, NULL[context.sampled])
    value = 0.0 if math.isinf(found.value) else found.value
    limits = _restricted_limits(found.null.shape[1], found.room, len(a), NULL[context.sampled])
    evidence: dict[str, Any] = {
        "schur_smallest": None if math.isinf(found.value) else found.value,
        "complete": True,
        "flat_answers": found.null.shape[1],
        "restricted_to": found.room,
        "sensitivity": _sensitivity(a, g, c),
    }
    rounding = 1e-9 * max(float(a.abs().max()), 1e-300)
    quadratic = bool(getattr(context.game, "linear", False))
    lowest = float(torch.linalg.eigvalsh(c)[0]) if len(c) else 1.0
    sound = lowest >= -1e-10 * max(float(c.abs().max()) if len(c) else 1.0, 1e-300)
    sound = sound and (quadratic or not found.null.shape[1])
    verified = not context.sampled and sound and value > (-rounding if quadratic else rounding)
    scored = Interval(value, value, value)
    if context.sampled and found.u is not None and found.w is not None and value < 0:
        least = 0.0 if found.null.shape[1] else max(lowest, 0.0)
        scored = answered_curvature(context, found.u, found.w, least, tick)
    return Schur(
        value,
        found.u,
        found.w,
        scored,
        _some(found.null),
        bool(found.null.shape[1]),
        True,
        verified,
        evidence,
        limits,
    )


def _by_products(
    context: AuditContext,
    ends: Extremes,
    start: Tensor | None,
    nothing: float,
    products: int,
    tick: Tick,
) -> Schur:
    damping, least = damped(ends)
    pursuit = Pursuit(Value(context, found_draws(context), tick), None, damping, least, products)
    # A random direction misses nothing.
    if start is not None:
        pursuit.add_leader(start)
    pursuit.add_leader(random_direction(context, pursuit.value.leader.n, Use.ANSWERED.at(search=0)))
    if not pursuit.sound():
        return _NOT_FINITE
    state = pursuit.state(0.0)
    while pursuit.grow(state, nothing):
        state = pursuit.state(0.0)
    if not pursuit.sound():
        return _NOT_FINITE
    small = pursuit.blocks()
    evidence = {
        "schur_smallest": state.value,
        "complete": False,
        "products": pursuit.products,
        "residual": state.leader,
        "answer_residual": state.follower,
        "damping": damping,
        "sensitivity": _sensitivity(small[0], small[1], small[2]),
    }
    limits = (
        f"the follower's answers pay a damping of {damping:.3g} in every direction, as its own Hessian has "
        f"eigenvalues down to {ends.smallest:.3g}: without it the curvature could only be larger",
    )
    scored = Interval(state.value, state.value, state.value)
    if state.value < 0:
        scored = answered_curvature(context, state.u, state.w, least, tick)
    return Schur(
        state.value,
        state.u,
        state.w,
        scored,
        (ends.vector,),
        not (ends.smallest > 0 and least > damping),
        is_answered(state, nothing) and is_turned(state, nothing),
        False,
        evidence,
        limits,
    )


def _some(null: Tensor, most: int = 4) -> tuple[Tensor, ...]:
    """A few directions that together touch the whole null space: its basis, or sums of it."""
    count = null.shape[1]
    if count <= most:
        return tuple(null.mT)
    groups = torch.arange(count, device=null.device) % most
    sums = [null[:, groups == k].sum(1) for k in range(most)]
    return tuple(s / s.norm() for s in sums)


def _sensitivity(a: Tensor, g: Tensor, c: Tensor) -> list[dict[str, float | int | None]]:
    """The restricted Schur complement by what counts as null."""
    rows: list[dict[str, float | int | None]] = []
    for share in THRESHOLDS:
        found = restricted(a, g, c, share)
        value = None if math.isinf(found.value) else found.value
        rows.append(
            {
                "threshold": share,
                "null": found.null.shape[1],
                "restricted_to": found.room,
                "smallest": value,
            }
        )
    return rows


def _restricted_limits(flat: int, room: int, whole: int, share: float) -> tuple[str, ...]:
    if not flat:
        return ()
    return (
        f"the follower's Hessian is zero (below {share:g} of its largest) along {flat} directions: the curvature is "
        f"that of the restricted Schur complement, on the {room} of {whole} directions of the leader that are not "
        "coupled to them; along the others the follower gains by more than second order",
    )


def damped(ends: Extremes) -> tuple[float, float]:
    """(damping, a lower bound of the smallest eigenvalue of -V_ww + damping): 1e-8 of the largest eigenvalue,
    and twice the most negative eigenvalue where there is one."""
    lowest = ends.smallest - (0.0 if ends.complete else ends.residual)
    damping = 1e-8 * max(abs(ends.largest), 1e-300) + 2 * max(0.0, -ends.smallest)
    return damping, lowest + damping


def answered_curvature(
    context: AuditContext,
    u: Tensor,
    w: Tensor,
    least: float,
    tick: Tick,
    held: list[Tensor] | None = None,
) -> Interval:
    """u^T S u on the score split, where the follower answers w or better.

    For a fixed w, q = u^T V_tt u + 2 w^T V_wt u - w^T K w is below u^T S u on every batch; the best answer adds
    r^T K^-1 r <= |r|^2 / `least` with r = V_wt u - K w, r the mean over the batches, K = -V_ww plus what
    `held` gives of K w on every batch (2 lambda M w). The upper end holds that bound.
    """
    values, rests = [], []
    for i, draw in enumerate(score_draws(context)):
        value = Value(context, [draw], tick)
        au, gu = value.of_leader(u)
        _, cw = value.of_follower(w)
        if held is not None:
            cw = cw + held[i]
        values.append(u @ au + 2 * (w @ gu) - w @ cw)
        rests.append(gu - cw)
    scored = context.interval(torch.stack(values))
    rest = float(torch.stack(rests).mean(0).square().sum())
    more = rest / least if least > 0 else (math.inf if rest else 0.0)
    return Interval(scored.mean, scored.low, scored.high + more)
