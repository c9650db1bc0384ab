"""The angle between the field and the straight path to the pair: attraction and rotation, seen from afar."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from equilibrist import tree
from equilibrist.certificates import Chart
from equilibrist.checks._decide import Interval
from equilibrist.checks.certificate import Certificate, Verdict, not_assessed
from equilibrist.checks.context import AuditContext, Tick
from equilibrist.core.draws import Draw
from equilibrist.core.field import VectorField
from equilibrist.core.game import Players

CLAIM = "path-angle"
REFERENCES = (
    "Berard et al. 2020, A closer look at the optimization landscapes of GANs, section 4",
)
# Dense around the pair, at 1, where the sign is to change.
WHERE = (
    *(k / 10 for k in range(9)),
    *(0.9 + k / 100 for k in range(5)),
    *(0.95 + k / 200 for k in range(21)),
    *(1.06 + k / 100 for k in range(5)),
    1.15,
    1.2,
    1.3,
)
NEAR = 0.05


def path_angle(context: AuditContext, tick: Tick) -> list[Certificate]:
    """Certificate "path-angle", of the cosine

        c(a) = <v(x(a)), d> / (|v(x(a))| |d|),  x(a) = x_0 + a d,  d = x_1 - x_0

    from another pair x_0 (`context.origin`: the initial weights, or an earlier checkpoint) to the pair under audit,
    v the own-loss gradients, averaged over the score split's minibatches, in float64. Where gradient
    descent comes to rest at x_1, c passes from negative to positive at a = 1: before it the players are drawn
    on, behind it back. A bump of c near 1 that does not change sign is rotation (Berard et al.).

    NOT_REFUTED: c is negative before 1 and positive behind it, within 0.05, for certain (paired over batches).
    REFUTED: c keeps its sign there, for certain. UNASSESSED: neither, or no other pair.
    """
    scope = context.scope() | {"from": context.origin_name or "nowhere"}
    if context.origin is None:
        why = "a path needs another pair to come from; an audit of a run begins at its initial weights"
        return [not_assessed(CLAIM, why, scope=scope, references=REFERENCES)]
    players, _ = context.wide
    start = tree.to(context.origin, dtype=torch.float64)
    d = tree.axpy(-1.0, start, players)
    length = float(tree.norm(d))
    if not 0 < length < math.inf:
        why = f"the path from {context.origin_name} has length {length:g}"
        return [not_assessed(CLAIM, why, scope=scope, references=REFERENCES)]
    draws = context.bank("score")[: context.settings.linear_batches * 2]
    rows = [_along(context, tree.axpy(a, d, start), d, length, draws, tick) for a in WHERE]
    cosines = [cosine for cosine, _ in rows]
    before, behind = (_slope_beside(context, [slopes for _, slopes in rows], s) for s in (-1, 1))
    verdict, summary = _judged(context, cosines, before, behind)
    evidence = {
        "where": list(WHERE),
        "cosine": cosines,
        "length": length,
        "before": before.ends,
        "behind": behind.ends,
        "minibatches": len(draws),
    }
    limits = ("one line through the space of weights: attraction along it is not stability",)
    chart = Chart(
        tuple(WHERE),
        {"cosine": tuple(cosines)},
        "0: where the path begins, 1: the pair",
        "The cosine between the field and the path: below 0 the players are drawn on, above 0 back.",
        marks=(1.0,),
    )
    found = Certificate(CLAIM, verdict, summary, evidence, None, scope, limits, REFERENCES)
    return [replace(found, chart=chart)]


def _slope_beside(context: AuditContext, slopes: list[torch.Tensor], side: int) -> Interval:
    """The mean slope along the path on one side of the pair, half-way to where "near" ends: at 1 itself the field may
    vanish."""
    near = [
        slope for a, slope in zip(WHERE, slopes, strict=True) if NEAR / 2 <= side * (a - 1) <= NEAR
    ]
    return context.interval(torch.stack(near).mean(0))


def _judged(
    context: AuditContext, cosines: list[float], before: Interval, behind: Interval
) -> tuple[Verdict, str]:
    """The verdict on "the field changes sign at the pair", and its sentence: two signs, no gain below a tolerance, so
    that `decide` has no part in it."""
    along = f"Along the path from {context.origin_name} the field"
    if not all(map(math.isfinite, cosines)):
        return Verdict.UNASSESSED, "The gradients along the path are not finite."
    if before.high < 0 < behind.low:
        return Verdict.NOT_REFUTED, (
            f"{along} changes sign at the pair: the players are drawn on before it and back behind it."
        )
    if before.low > 0 or behind.high < 0:
        far = "behind the pair it still pulls on"
        if not behind.high < 0:
            far = "before the pair it pushes back"
        return Verdict.REFUTED, f"{along} does not come to rest at the pair: {far}."
    summary = "The field's sign along the path is not certain on either side of the pair."
    return Verdict.UNASSESSED, summary


def planned_gradients(context: AuditContext) -> float:
    """Planned minibatch gradients."""
    if context.origin is None:
        return 0.0
    return float(len(WHERE) * context.settings.linear_batches * 2)


def _along(
    context: AuditContext, at: Players, d: Players, length: float, draws: list[Draw], tick: Tick
) -> tuple[float, torch.Tensor]:
    """c at one point of the path, and <v, d> / |d| of every minibatch."""
    constants = context.exact(at, context.wide[1])
    field = VectorField(context.game)
    slopes = []

    def gradient(draw: Draw) -> Players:
        v, _ = field(at, constants, draw)
        slopes.append(float(tree.dot(v, d)) / length)
        tick()
        return v

    mean = tree.mean(map(gradient, draws))
    size = float(tree.norm(mean))
    return (float(tree.dot(mean, d)) / (length * size) if size else 0.0), torch.tensor(slopes)
