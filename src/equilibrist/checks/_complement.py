"""The leader's curvature after the follower's answer of the same order: the (restricted) Schur complement."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.certificates import Json
from equilibrist.checks._decide import Interval
from equilibrist.checks._linear import DENSE, Extremes, Part, ValueHessian, random_direction
from equilibrist.checks._pursuit import Pursuit, answered, missed, turned
from equilibrist.checks._schur import restricted
from equilibrist.checks._second_order import found_draws, score_draws
from equilibrist.checks.context import AuditContext, Tick, order_of
from equilibrist.core.draws import Use

# Sampled or exact: |eigenvalues| of V_ww up to this share are null.
NULL = {True: 1e-6, False: 1e-10}
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
    evidence: Json = field(default_factory=dict)
    limits: tuple[str, ...] = ()


_NOT_FINITE = Schur(math.nan, None, None, Interval.at(math.nan), (), True, False, False)


def hessian_blocks(context: AuditContext, tick: Tick) -> tuple[Tensor, Tensor, Tensor]:
    """V_tt [n_t, n_t], V_wt [n_c, n_t] and -V_ww [n_c, n_c] over the free coordinates, dense."""
    value = ValueHessian(context, found_draws(context), tick)
    nt, nc = value.leader.n, value.follower.n
    unit_t, unit_c = (torch.eye(n, dtype=torch.float64, device=context.device) for n in (nt, nc))
    led = [value.of_leader(row) for row in unit_t]
    a = torch.stack([x for x, _ in led], 1) if nt else unit_t
    g = torch.stack([y for _, y in led], 1) if nt else unit_c.new_zeros(nc, 0)
    c = torch.stack([value.of_follower(row)[1] for row in unit_c], 1) if nc else unit_c
    return (a + a.mT) / 2, g, (c + c.mT) / 2


def is_dense(context: AuditContext, products: int) -> bool:
    """Whether V's second derivatives are built whole: within `products` on every draw, or exact and small."""
    n = sum(Part(context, player).n for player in order_of(context.game))
    return n <= products or (not context.sampled and n <= DENSE)


def schur_of(
    context: AuditContext, ends: Extremes, start: Tensor | None, nothing: float, tick: Tick
) -> Schur:
    """The leader's curvature after the follower's answer of the same order: dense where that is affordable."""
    products = context.settings.local_products // 2
    leader, _ = order_of(context.game)
    if not Part(context, leader).n:
        exact = not context.sampled
        return Schur(0.0, None, None, Interval.at(0.0), (), False, True, exact)
    if is_dense(context, products // len(found_draws(context))):
        return _dense(context, tick)
    return _by_products(context, ends, start, nothing, products, tick)


def _dense(context: AuditContext, tick: Tick) -> Schur:
    a, g, c = hessian_blocks(context, tick)
    if not tree.all_finite(a, g, c):
        return _NOT_FINITE
    found = restricted(a, g, c, NULL[context.sampled])
    value = 0.0 if math.isinf(found.value) else found.value
    limits = _restricted_limits(found.null.shape[1], found.room, len(a), NULL[context.sampled])
    evidence: Json = {
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
    scored = Interval.at(value)
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
    pursuit = Pursuit(
        ValueHessian(context, found_draws(context), tick), None, damping, least, products
    )
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
    evidence = {
        "schur_smallest": state.value,
        "complete": False,
        "products": pursuit.products,
        "residual": state.leader,
        "answer_residual": state.follower,
        "damping": damping,
        "sensitivity": _sensitivity(*pursuit.blocks()),
    }
    limits = (
        f"the follower's answers pay a damping of {damping:.3g} in every direction, as its own Hessian has "
        f"eigenvalues down to {ends.smallest:.3g}: without it the curvature could only be larger",
    )
    scored = Interval.at(state.value)
    if state.value < 0:
        scored = answered_curvature(context, state.u, state.w, least, tick)
    return Schur(
        state.value,
        state.u,
        state.w,
        scored,
        (ends.vector,),
        not (ends.smallest > 0 and least > damping),
        answered(state, nothing) and turned(state, nothing),
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
    return [
        {
            "threshold": share,
            "null": found.null.shape[1],
            "restricted_to": found.room,
            "smallest": None if math.isinf(found.value) else found.value,
        }
        for share in THRESHOLDS
        for found in [restricted(a, g, c, share)]
    ]


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
        value = ValueHessian(context, [draw], tick)
        au, gu = value.of_leader(u)
        _, cw = value.of_follower(w)
        if held is not None:
            cw = cw + held[i]
        values.append(u @ au + 2 * (w @ gu) - w @ cw)
        rests.append(gu - cw)
    scored = context.interval(torch.stack(values))
    rest = float(torch.stack(rests).mean(0).square().sum())
    return Interval(scored.mean, scored.low, scored.high + missed(rest, least))
