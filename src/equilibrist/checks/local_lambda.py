"""How proximal is the pair near itself? The local lambda*, from second derivatives alone."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from equilibrist import tree
from equilibrist.checks._complement import answered_curvature
from equilibrist.checks._decide import Interval
from equilibrist.checks._first_order import (
    elsewhere,
    first_order,
    planned,
    planned_value,
)
from equilibrist.checks._lambda_star import LambdaStar, lambda_star_of
from equilibrist.checks._lambda_verdict import LambdaEvidence, verdict_of
from equilibrist.checks._linear import DENSE, PRODUCT, Sobolev
from equilibrist.checks._second_order import (
    curvature_of,
    found_draws,
    free,
    inexact,
    product_budget,
    scope,
    score_draws,
)
from equilibrist.checks.certificate import Certificate, Json, Verdict, not_assessed
from equilibrist.checks.context import AuditContext, Tick, no_tick, order_of, reach_of, rows_in
from equilibrist.checks.curvature import Curvature, own_curvature
from equilibrist.core.draws import Use

REFERENCES = (
    "Farnia and Ozdaglar 2020, Definition 1, Propositions 2 and 3, equation 15",
    "Jin, Netrapalli and Jordan 2020, Proposition 19 (the end lambda = 0)",
)


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
        return [
            not_assessed(
                "proximal",
                why or tolerance.why,
                tolerance=tolerance,
                scope=scope(context),
                references=REFERENCES,
            )
        ]
    leader, follower = order_of(context.game)
    share = context.settings.local_products // len(found_draws(context)) // 4
    led = first_order(context, leader, tick, value=True)
    followed = first_order(context, follower, tick)
    own = own_curvature(context, follower, share, tick, Use.PROXIMAL_CURVATURE.at())
    reach = reach_of(context, leader)
    star = lambda_star_of(context, own, curvature_of(tolerance, reach), tick)
    return [_certificate(LambdaEvidence(context, tolerance, led, followed, own, star, reach), tick)]


def planned_gradients(context: AuditContext) -> float:
    """Planned minibatch gradients."""
    settings = context.settings
    if not context.sampled:
        return 3 * PRODUCT * min(tree.count(context.players), DENSE)
    products = product_budget(context)
    draws, share = len(found_draws(context)), max(2, products // 4)
    follower = tree.count(context.players[order_of(context.game)[1]])
    whole = tree.count(context.players)
    # Dense: V's second derivatives and M, column by column.
    found = whole + follower if whole <= 2 * share else max(4, 3 * (products // 4))
    scored = min(settings.local_batches, settings.batches) * 4
    small = planned(context) + planned_value(context)
    return small + PRODUCT * (draws * (min(follower, share) + found) + scored)


def _why_not(context: AuditContext) -> str:
    """Why lambda* is not defined here, or cannot be computed; "" where it can."""
    game = context.game
    if why := inexact(context):
        return why
    if not context.sampled:
        if hasattr(game, "sobolev"):
            return ""
        return (
            f"{type(game).__name__} has no critic of samples, so there is no norm in which it could "
            "be proximal"
        )
    if missing := game.lacks("samples", "score"):
        return f"the Sobolev norm needs the critic's slope at real samples: give AdversarialGame {missing}=function"
    if game.heads > 1:
        return f"the Sobolev norm is that of one critic, and this game has {game.heads}"
    if not game.samplewise:
        return (
            "the Sobolev norm needs each score's own slope, but the critic's scores depend on the whole batch "
            "(batch norm?): use layer or group norm in the critic"
        )
    return ""


# -- the certificate -------------------------------------------------------------------------------------


def _certificate(seen: LambdaEvidence, tick: Tick) -> Certificate:
    context, star, own = seen.context, seen.star, seen.own
    leader, follower = seen.players
    evidence: Json = {
        "lambda_star": [star.low, star.high],
        "infinite": math.isinf(star.low),
        "stackelberg_curvature": _finite(star.stackelberg),
        "vanishing_curvature": _finite(star.vanishing),
        "nash_curvature": _finite(star.nash),
        "move": seen.reach,
        "critic_smallest": own.ends.smallest,
        "critic_gain": seen.slack.mean,
        "critic_gain_interval": seen.slack.ends,
        "generator_gain": seen.led.gain.mean,
        "generator_gain_interval": seen.led.gain.ends,
        **star.evidence,
    }
    if context.sampled and math.isfinite(star.high) and star.u is not None:
        scored, noise = _scored(context, own, star, tick)
        seen = replace(seen, scored=scored)
        evidence["curvature_on_score"] = [scored.low, scored.mean, scored.high]
        evidence["lambda_star_noise"] = noise
    verdict, summary, witness = verdict_of(seen)
    moved = verdict is Verdict.REFUTED and seen.moving.verdict is Verdict.REFUTED
    if verdict is not Verdict.REFUTED:
        summary += elsewhere(context, leader, tick)
    return Certificate(
        "proximal",
        verdict,
        summary,
        evidence,
        seen.tolerance,
        scope(
            context,
            losses="the zero-sum V, minus the critic's own loss",
            norm="Sobolev semi-norm E |grad_x D(X)|^2 over real samples, lambda as in equation 11",
        ),
        _limits(seen, verdict),
        REFERENCES,
        follower if moved else None,
        witness,
        "deviation" if moved else "direction",
    )


def _limits(seen: LambdaEvidence, verdict: Verdict) -> tuple[str, ...]:
    context, ends = seen.context, seen.own.ends
    limits = [
        "second order, near the pair only; whether the pair is at rest is the check "
        + ('"stationary"' if context.sampled else "of the first order"),
        *free(context).limits(*seen.players),
        *seen.star.limits,
    ]
    if context.sampled:
        limits.append(
            "lambda* is that of the mean over the batches that its directions were found on; the batches' noise, to "
            "first order and at this confidence, is lambda_star_noise"
        )
    if ends.smallest < -ends.zero and verdict is not Verdict.REFUTED:
        limits.append(
            f"the critic's own Hessian has eigenvalues down to {ends.smallest:.3g}, within the tolerance: lambda* "
            "is the generator's side (Definition 1) alone"
        )
    return tuple(limits)


def _scored(
    context: AuditContext, own: Curvature, star: LambdaStar, tick: Tick
) -> tuple[Interval, float | None]:
    """u^T S(lambda) u at the upper end of lambda*, on the score split, and the noise of lambda* that follows from it.

    A shift of the curve u^T S(lambda) u moves its root by shift / slope, the slope being -2 w^T M w. The spread is
    that of the mean over the score batches; lambda* itself is of fewer samples.
    """
    assert star.u is not None
    assert star.w is not None
    images = [Sobolev(context, [draw], tick)(star.w) for draw in score_draws(context)]
    held = [2 * star.high * image for image in images]
    sure = own.ends.smallest - (0.0 if own.ends.complete else own.ends.residual)
    span = answered_curvature(context, star.u, star.w, max(sure, 0.0), tick, held)
    slope = -2 * float(star.w @ torch.stack(images).mean(0))
    scored_on, found_on = (sum(map(rows_in, d(context))) for d in (score_draws, found_draws))
    wider = (scored_on / found_on) ** 0.5
    return span, wider * (span.mean - span.low) / -slope if slope < 0 else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
