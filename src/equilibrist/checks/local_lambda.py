"""How proximal is the pair near itself? The local lambda*, from second derivatives alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks import _linear
from equilibrist.checks._decide import Interval, decide
from equilibrist.checks._first_order import (
    FirstOrder,
    elsewhere,
    first_order,
    planned,
    planned_value,
)
from equilibrist.checks._linear import Part, Sobolev, Value, found_draws, free
from equilibrist.checks._minimax import answered_curvature, blocks, damped, is_dense
from equilibrist.checks._schur import Pursuit, ReducedSchur, State, answered, turned
from equilibrist.checks._spent import Tick, no_tick
from equilibrist.checks._value import order_of
from equilibrist.checks.certificate import Certificate, Tolerance, Verdict
from equilibrist.checks.context import AuditContext, norm_of
from equilibrist.checks.curvature import (
    Curvature,
    at_rest,
    direction_witness,
    own_curvature,
    promised,
    scope,
)
from equilibrist.core.draws import Draw, Use

REFERENCES = (
    "Farnia and Ozdaglar 2020, Definition 1, Propositions 2 and 3, equation 15",
    "Jin, Netrapalli and Jordan 2020, Proposition 19 (the end lambda = 0)",
)
FINE = 1e-3  # "no tolerance" by products: this part of V_tt's own most negative curvature


@dataclass(frozen=True, eq=False)
class Found:
    """lambda* as an interval, the smallest eigenvalue of S at lambda = 0 (`stackelberg`), as lambda falls to 0
    (`vanishing`: without answers that no lambda > 0 allows) and at infinity (`nash`), and what is critical at lambda*.
    """

    low: float
    high: float
    stackelberg: float
    vanishing: float
    nash: float
    u: Tensor | None
    w: Tensor | None
    evidence: dict[str, Any] = field(default_factory=dict)
    converged: bool = True
    strict: bool = False
    failed: str = ""
    limits: tuple[str, ...] = ()


_NOT_FINITE = Found(0.0, math.inf, *3 * (math.nan,), None, None, failed="not finite")


def proximal(context: AuditContext, tick: Tick = no_tick) -> list[Certificate]:
    """Certificate "proximal": lambda*, the largest lambda at which the pair is a lambda-proximal equilibrium
    near itself.

    With t the generator's and w the critic's parameters, a small move u of the generator changes
    V_prox_lambda = max_D~ V - lambda ||D~ - D||^2 (Farnia and Ozdaglar 2020, equation 11) by 1/2 u^T S(lambda) u,

        S(lambda) = V_tt + V_tw (2 lambda M - V_ww)^-1 V_wt,  M = E[(d_w grad_x D)^T (d_w grad_x D)]

    over real samples: u^T S u falls as lambda grows, and lambda* is where its smallest eigenvalue passes zero (exact
    losses, dense) or -2 tolerance / r^2, r = move * |t| (otherwise): the curvature that promises the tolerance.
    `lambda_star_strict` is the same without a tolerance. Infinite: no small move gains even where the critic may
    not answer, as at a local Nash equilibrium. 0: S has a negative eigenvalue for every lambda > 0, so that the pair
    is a Stackelberg point at best. Critics that M does not tell apart (a constant added) answer freely at every
    lambda.

    Exact losses and up to 2,500 parameters: dense, to rounding. Otherwise by products, at most
    `local_products`: both players' subspaces grow by residuals (see `_schur.Pursuit`). The upper end is then that of
    one direction u of the generator, the critic's answer known up to its residual; the lower end is the
    largest lambda at which the smallest eigenvalue found, less its residual, is above the threshold.

    A critic that gains by a small move of its own, down its gradient or along negative curvature, refutes every
    lambda: the first inequality of Proposition 2 fails by that slack. A generator that is not at rest on V leaves
    lambda* open: how much of its gain survives an answer is not a matter of curvature alone.

    VERIFIED: strict second-order conditions hold for some lambda > 0, exact losses. REFUTED: the critic gains by a
    small move, measured, or S is negative for every lambda > 0 along a witness that promises more than the tolerance.
    UNASSESSED: no critic norm, not finite, not converged, the generator not at rest, or noise above the tolerance.
    NOT_REFUTED: otherwise, with lambda* in the evidence.
    """
    tolerance = context.tolerance()
    why = _why_not(context)
    if why or math.isnan(tolerance.value):
        said = f"Not assessed: {why or tolerance.why}."
        return [
            Certificate(
                "proximal",
                Verdict.UNASSESSED,
                said,
                {},
                tolerance,
                scope(context),
                references=REFERENCES,
            )
        ]
    leader, follower = order_of(context.game)
    draws = found_draws(context)
    share = context.settings.local_products // len(draws) // 4
    firsts = first_order(context, leader, tick, value=True), first_order(context, follower, tick)
    own = own_curvature(context, follower, share, tick, Use.PROXIMAL_CURVATURE.at())
    reach = context.settings.move * norm_of(context, leader)
    nothing = 2 * tolerance.value / reach**2
    if not own.ends.finite:
        found = _NOT_FINITE
    elif not Part(context, leader).n:
        found = Found(math.inf, math.inf, 0.0, 0.0, 0.0, None, None)
    elif is_dense(context, 2 * share):
        found = _dense(context, own, nothing if context.sampled else 0.0, nothing, tick)
    else:
        found = _by_products(context, own, nothing, 3 * share * len(draws), tick)
    return [_certificate(context, firsts, own, found, reach, nothing, tolerance, tick)]


def work(context: AuditContext) -> float:
    """Planned minibatch gradients."""
    settings = context.settings
    if not context.sampled:
        return 3 * _linear.PRODUCT * min(tree.count(context.players), _linear.DENSE)
    products = _linear.products_of(context)
    draws, share = len(found_draws(context)), max(2, products // 4)
    follower = tree.count(context.players[order_of(context.game)[1]])
    whole = tree.count(context.players)
    # Dense: V's second derivatives and M, column by column.
    found = whole + follower if whole <= 2 * share else max(4, 3 * (products // 4))
    scored = min(settings.local_batches, settings.batches) * 4
    small = planned(context) + planned_value(context)
    return small + _linear.PRODUCT * (draws * (min(follower, share) + found) + scored)


def _why_not(context: AuditContext) -> str:
    """Why lambda* has no meaning here, or cannot be had; "" where it can."""
    game = context.game
    if why := _linear.inexact(context):
        return why
    if not context.sampled:
        if hasattr(game, "sobolev"):
            return ""
        return (
            f"{type(game).__name__} has no critic of samples, so there is no norm in which it could "
            "be proximal"
        )
    if game.heads > 1:
        return f"the Sobolev norm is that of one critic, and this game has {game.heads}"
    if not game.samplewise:
        return (
            "the Sobolev norm needs each score's own slope, but the critic's scores depend on the whole batch "
            "(batch norm?): use layer or group norm in the critic"
        )
    return ""


# -- dense ---------------------------------------------------------------------------------------------


def gram(context: AuditContext, tick: Tick) -> Tensor:
    """M [n_c, n_c] over the critic's free coordinates: the game's own, or built from products."""
    _, follower = order_of(context.game)
    part = Part(context, follower)
    if not context.sampled:
        game: Any = context.game
        whole: Tensor = game.sobolev(context.wide[0])
        return whole[part.mask][:, part.mask]
    return _linear.dense(Sobolev(context, found_draws(context), tick), part.n, context.device)


def _dense(context: AuditContext, own: Curvature, cut: float, nothing: float, tick: Tick) -> Found:
    a, g, c = blocks(context, tick)
    M = gram(context, tick)
    finite = all(bool(torch.isfinite(t).all()) for t in (a, g, c)) and not bool(M.isnan().any())
    if not finite:
        return _NOT_FINITE
    curved = float(torch.linalg.eigvalsh(c)[0]) if len(c) else 1.0
    top = float(c.abs().max()) if len(c) else 1.0
    damping = 2 * max(0.0, -curved) if curved < -1e-9 * top else 0.0
    small = ReducedSchur(a, g, c + damping * torch.eye(len(c), dtype=c.dtype, device=c.device), M)
    rounding = 1e-11 * max(float(a.abs().max()), 1e-300)
    star, critical = small.threshold(cut, rounding)
    loose, _ = small.threshold(nothing, rounding)
    strictly, _ = small.threshold(0.0, rounding)
    free_answers, vanishing, nash = small.stackelberg(), small.at(0.0), small.at(math.inf)
    strict = star > 0 and curved > 1e-9 * top
    if strict:  # S is monotone: positive definite half-way is positive definite below
        inside = small.at(0.5 * star if math.isfinite(star) else math.inf).value
        strict = inside > 1e-9 * max(float(a.abs().max()), 1e-300)
    flat = len(c) - small.blocked - len(small.b) - small.runaway
    evidence = {
        "complete": True,
        "threshold": -cut,
        "lambda_star_at_tolerance": loose,
        "lambda_star_strict": [strictly, strictly],
        "damping": damping,
        "flat_answers": flat,
        "answers_that_cost_without_bound": small.blocked,
    }
    limits = _damped(damping, own) if damping else []
    if flat:
        limits.append(
            f"V and the norm are both flat along {flat} directions of the critic: they were left out"
        )
    if small.blocked:
        limits.append(
            f"{small.blocked} of the critic's parameters move a kink: no answer by them pays for any lambda > 0"
        )
    return Found(
        star,
        star,
        free_answers.value,
        vanishing.value,
        nash.value,
        critical.y,
        critical.z,
        evidence,
        strict=strict,
        limits=tuple(limits),
    )


# -- by products -----------------------------------------------------------------------------------------


def _by_products(
    context: AuditContext, own: Curvature, cut: float, budget: int, tick: Tick
) -> Found:
    draws = found_draws(context)
    damping, least = damped(own.ends)
    value = Value(context, draws, tick)
    if context.sampled:
        pursuit = Pursuit(value, Sobolev(context, draws, tick), damping, least, budget)
    else:
        M = gram(context, tick)
        if not bool(torch.isfinite(M).all()):
            return _NOT_FINITE
        pursuit = Pursuit(value, M.__matmul__, damping, least, budget)
    # A third of the budget goes to V_tt alone: the end of infinite lambda, and where to begin.
    pursuit.add_leader(_linear.random_direction(context, value.leader.n, Use.PROXIMAL_LEADER.at()))
    if not pursuit.sound():
        return _NOT_FINITE
    nash = pursuit.state(math.inf)
    while pursuit.products < budget // 3 and pursuit.add_leader(nash.residuals[0]):
        nash = pursuit.state(math.inf)
        if nash.leader <= 0.01 * abs(nash.value) and nash.value < -cut:
            break
    # Without the critic's own curvature, what its answers miss is not known either.
    known = own.ends.converged(2 * context.tolerance().value / own.reach**2)
    low, high, state, done = _pursued(pursuit, cut)
    fine = max(FINE * -nash.value, 0.0)
    strict = (low, high)
    if fine < cut:
        lower, upper, _, _ = _pursued(pursuit, fine)
        strict = (min(low, lower), min(high, upper))
    if not pursuit.sound():
        return _NOT_FINITE
    stackelberg, at_nash = pursuit.small().at(0.0).value, pursuit.state(math.inf).value
    evidence = {
        "complete": False,
        "threshold": -cut,
        "products": pursuit.products,
        "damping": damping,
        "lambda_star_strict": list(strict),
        "generator_residual": state.leader,
        "critic_residual": state.follower,
        "subspaces": [len(pursuit.U), len(pursuit.Q)],
    }
    limits = (
        *_damped(damping, own),
        "found in growing subspaces: a direction of the generator that they miss could only lower lambda*, and the "
        "curvatures at both ends are those of the subspaces",
    )
    return Found(
        low,
        high,
        stackelberg,
        stackelberg,
        at_nash,
        state.u,
        state.w,
        evidence,
        converged=known and done,
        limits=limits,
    )


def _pursued(pursuit: Pursuit, cut: float) -> tuple[float, float, State, bool]:
    """lambda* for the threshold -cut: (lower end, upper end, where it was found, whether that is settled)."""
    star, state = _at_threshold(pursuit, cut)
    while pursuit.grow(state, cut):
        star, state = _at_threshold(pursuit, cut)
    small = pursuit.small()
    done = answered(state, cut) and turned(state, cut)
    return (
        _certain(pursuit, small, star, cut),
        _upper(pursuit, small, state, star, cut),
        state,
        done,
    )


def _damped(damping: float, own: Curvature) -> list[str]:
    return [
        f"the critic's answers pay a damping of {damping:.3g} in every direction besides lambda's norm, as its own "
        f"Hessian has eigenvalues down to {own.ends.smallest:.3g}: without it lambda* could only be larger"
    ]


def _at_threshold(pursuit: Pursuit, cut: float) -> tuple[float, State]:
    small = pursuit.small()
    star, _ = small.threshold(cut, 0.0)
    # At 0 every answer is allowed; far out none but those that M does not see.
    return star, pursuit.state(star, small)


def _certain(pursuit: Pursuit, small: ReducedSchur, star: float, cut: float) -> float:
    """The largest lambda up to `star` at which the smallest eigenvalue less its residual is above -cut."""

    def sure(lam: float) -> bool:
        state = pursuit.state(lam, small)
        return state.value - state.leader >= -cut

    if math.isinf(star) and sure(math.inf):
        return math.inf
    high = star if math.isfinite(star) else 1e12 * small.tau
    if high > 0 and sure(high):
        return high
    low = 1e-12 * min(high, small.tau)
    if high <= 0 or not sure(low):
        return 0.0
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if sure(middle) else (low, middle)
    return low


def _upper(pursuit: Pursuit, small: ReducedSchur, state: State, star: float, cut: float) -> float:
    """A lambda above which the critical direction alone refutes, with the bound of what its answer misses; infinite
    where none was found."""
    if math.isinf(star):
        return math.inf
    y = torch.stack([q @ state.u for q in pursuit.U])
    if star > 0:
        tried = [star * factor for factor in (1, 1.001, 1.01, 1.03, 1.1, 1.3, 2, 4, 16, 256)]
    else:
        tried = [small.tau * 10.0**k for k in range(-12, 7)]
    for lam in tried:
        value, missed = pursuit.along(y, lam, small)
        # At the root itself the value is -cut to rounding.
        if value + missed < -cut * (1 - 1e-6) + 1e-6 * abs(float(y @ small.a @ y)):
            return lam
    return math.inf


# -- the certificate -------------------------------------------------------------------------------------


def _certificate(
    context: AuditContext,
    firsts: tuple[FirstOrder, FirstOrder],
    own: Curvature,
    found: Found,
    reach: float,
    nothing: float,
    tolerance: Tolerance,
    tick: Tick,
) -> Certificate:
    leader, follower = order_of(context.game)
    where, unit = free(context), context.unit
    led, followed = firsts
    # What the critic gains by a small move of its own: the slack of Proposition 2's first inequality.
    slack = own.moved.gain if own.moved else own.gains
    curves = decide(slack, tolerance.value)
    if (moving := followed.decision(context)).verdict is Verdict.REFUTED:
        slack = followed.gain
    rest = led.decision(context)
    evidence: dict[str, Any] = {
        "lambda_star": [found.low, found.high],
        "infinite": math.isinf(found.low),
        "stackelberg_curvature": _finite(found.stackelberg),
        "vanishing_curvature": _finite(found.vanishing),
        "nash_curvature": _finite(found.nash),
        "move": reach,
        "critic_smallest": own.ends.smallest,
        "critic_gain": slack.mean,
        "critic_gain_interval": [slack.low, slack.high],
        "generator_gain": led.gain.mean,
        "generator_gain_interval": [led.gain.low, led.gain.high],
        **found.evidence,
    }
    scored: Interval | None = None
    if (
        context.sampled
        and found.u is not None
        and found.w is not None
        and math.isfinite(found.high)
    ):
        scored, slope = _scored(context, own, found, tick)
        evidence["curvature_on_score"] = [scored.low, scored.mean, scored.high]
        # A shift of the curve u^T S(lambda) u moves its root by shift / slope. The spread is that of the mean over
        # the score batches; lambda* itself is of fewer samples.
        wider = (
            _samples(_linear.score_draws(context)) / _samples(_linear.found_draws(context))
        ) ** 0.5
        evidence["lambda_star_noise"] = (
            wider * (scored.mean - scored.low) / -slope if slope < 0 else None
        )
    gain = -0.5 * reach**2 * found.vanishing  # whatever the answer costs
    rested = all(at_rest(context, p, tolerance) for p in (leader, follower))
    witness: Any = None
    kind = "direction"
    star, paid = _interval(found.low, found.high), ""
    if own.ends.smallest < -own.ends.zero:
        paid = f" with the {follower}'s answers damped (see the limits)"
    star += paid
    between = "between Stackelberg (0) and Nash (infinite)"
    if found.failed:
        verdict = Verdict.UNASSESSED
        summary = f"Second derivatives of V are {found.failed}, so nothing can be said of lambda*."
    elif moving.verdict is Verdict.REFUTED and followed.witness is not None:
        verdict, witness, kind = Verdict.REFUTED, {follower: followed.witness}, "deviation"
        summary = (
            f"No proximal equilibrium, for any lambda: the {follower} is not at rest, a {followed.size:.2g} move of it "
            f"alone gains {promised(slack, unit, tolerance)}."
        )
    elif curves.verdict is Verdict.REFUTED and own.direction is not None:
        verdict = Verdict.REFUTED
        witness = direction_witness(context, follower, own.direction)
        summary = (
            f"No proximal equilibrium, for any lambda: a small move of the {follower} alone gains "
            f"{promised(slack, unit, tolerance)}."
        )
    elif Verdict.UNASSESSED in (moving.verdict, curves.verdict):
        verdict = Verdict.UNASSESSED
        why = moving.reason if moving.verdict is Verdict.UNASSESSED else curves.reason
        summary = f"Cannot tell whether the {follower} answers best by small moves: {why.value}."
    elif rest.verdict is not Verdict.NOT_REFUTED:
        verdict = Verdict.UNASSESSED
        summary = (
            f"The {leader} is not at rest: a {led.size:.2g} move of it gains {promised(led.gain, unit, tolerance)} "
            f"against the {follower} as it is, so the pair is no proximal equilibrium for every lambda, and its "
            "curvature does not tell up to which."
            if rest.verdict is Verdict.REFUTED
            else f"Cannot tell whether the {leader} is at rest on V ({rest.reason.value}), so its curvature does not "
            "decide whether the pair is proximal."
        )
    elif not rested:
        verdict = Verdict.UNASSESSED
        summary = (
            "The pair is not at rest, so its curvature does not decide whether it is proximal."
        )
    elif found.high == 0 or (
        found.low == 0 and scored is not None and _lost(found, scored, nothing)
    ):
        worth = gain if scored is None or not context.sampled else -0.5 * reach**2 * scored.high
        sure = worth > tolerance.value and found.converged
        if sure and found.u is not None:
            verdict = Verdict.REFUTED
            witness = _witness(context, found)
            summary = (
                f"No lambda > 0 makes the pair a proximal equilibrium (lambda* = 0): a small move of the {leader} "
                f"gains {worth:.3g} {unit} whatever it costs the {follower} to answer. Stackelberg at best."
            )
        elif context.sampled:
            verdict = Verdict.UNASSESSED
            summary = (
                f"The {leader} seems to gain by a small move at every lambda > 0, but the score split does not "
                "say so for certain."
            )
        else:
            verdict = Verdict.NOT_REFUTED
            summary = (
                f"lambda* = 0: a small move of the {leader} gains at every lambda > 0, but less than "
                f"{tolerance.value:.3g} {unit}."
            )
    elif found.low == 0 or not found.converged:
        verdict = Verdict.UNASSESSED
        summary = (
            f"lambda* is {star}, as far as {found.evidence.get('products', 0)} products can tell: raise "
            "local_products to narrow it."
        )
    else:
        exact = not context.sampled and found.strict
        held = where.held[leader] or where.held[follower]
        verdict = Verdict.VERIFIED if exact and not held else Verdict.NOT_REFUTED
        if math.isinf(found.low):
            low, high = found.evidence.get("lambda_star_strict", [math.inf, math.inf])
            below = math.isinf(low)
            summary = (
                "Near the pair it is a lambda-proximal equilibrium of V for every lambda: no small move of the "
                f"{leader} gains"
                + (f" more than {tolerance.value:.3g} {unit}" if context.sampled else "")
                + f" on V even where the {follower} may not answer."
                + (
                    ""
                    if below
                    else f" Without that tolerance lambda* is {_interval(low, high)}{paid}."
                )
            )
        else:
            witness = _witness(context, found)
            summary = (
                f"Near the pair it is a lambda-proximal equilibrium of V up to lambda* = {star} ({unit} per squared "
                f"slope): {between}. A {leader} that moves along one direction gains above it."
            )
    if verdict is not Verdict.REFUTED:
        summary += elsewhere(context, leader, tick)
    limits = [
        "second order, near the pair only; whether the pair is at rest is the check "
        + ('"stationary"' if context.sampled else "of the first order"),
        *where.limits(leader, follower),
        *found.limits,
    ]
    if context.sampled:
        limits.append(
            "lambda* is that of the mean over the batches that its directions were found on; the batches' noise, to "
            "first order and at this confidence, is lambda_star_noise"
        )
    if own.ends.smallest < -own.ends.zero and verdict is not Verdict.REFUTED:
        limits.append(
            f"the critic's own Hessian has eigenvalues down to {own.ends.smallest:.3g}, within the tolerance: lambda* "
            "is the generator's side (Definition 1) alone"
        )
    return Certificate(
        "proximal",
        verdict,
        summary,
        evidence,
        tolerance,
        scope(
            context,
            losses="the zero-sum V, minus the critic's own loss",
            norm="Sobolev semi-norm E |grad_x D(X)|^2 over real samples, lambda as in equation 11",
        ),
        tuple(limits),
        REFERENCES,
        follower if kind == "deviation" else None,
        witness,
        kind,
    )


def _samples(draws: Iterable[Draw]) -> int:
    """How many samples these draws hold."""
    return sum(max(len(entry) for entry in draw.values() if entry.ndim) for draw in draws)


def _scored(
    context: AuditContext, own: Curvature, found: Found, tick: Tick
) -> tuple[Interval, float]:
    """u^T S(lambda) u at the upper end of lambda*, on the score split, and its slope by
    lambda, -2 w^T M w."""
    assert found.u is not None
    assert found.w is not None
    images = [Sobolev(context, [draw], tick)(found.w) for draw in _linear.score_draws(context)]
    held = [2 * found.high * image for image in images]
    sure = own.ends.smallest - (0.0 if own.ends.complete else own.ends.residual)
    span = answered_curvature(context, found.u, found.w, max(sure, 0.0), tick, held)
    return span, -2 * float(found.w @ torch.stack(images).mean(0))


def _lost(found: Found, scored: Interval, nothing: float) -> bool:
    """Whether the generator gains at every lambda, for certain."""
    return found.vanishing < -nothing and scored.high < 0


def _witness(context: AuditContext, found: Found) -> Any:
    leader, follower = order_of(context.game)
    assert found.u is not None
    assert found.w is not None
    parts = Part(context, leader), Part(context, follower)
    return direction_witness(context, leader, parts[0].flat(found.u)) | direction_witness(
        context, follower, parts[1].flat(found.w)
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _interval(low: float, high: float) -> str:
    if math.isinf(low):
        return "infinite"
    if low == high or (math.isfinite(high) and high - low <= 1e-3 * high):
        return f"{high:.4g}"
    return f"{low:.3g} to {'infinity' if math.isinf(high) else format(high, '.3g')}"
