"""lambda* near the pair: the largest lambda at which S(lambda) curves down nowhere, dense or by products."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.certificates import Json
from equilibrist.checks._complement import damped, hessian_blocks, is_dense
from equilibrist.checks._linear import (
    Part,
    Sobolev,
    ValueHessian,
    dense_symmetric,
    random_direction,
)
from equilibrist.checks._pursuit import Pursuit, PursuitState, answered, turned
from equilibrist.checks._schur import ReducedSchur
from equilibrist.checks._second_order import found_draws
from equilibrist.checks.context import AuditContext, Tick, order_of
from equilibrist.checks.curvature import Curvature
from equilibrist.core.draws import Use
from equilibrist.core.memory import give_back

FINE = 1e-3  # "no tolerance" by products: this part of V_tt's own most negative curvature


@dataclass(frozen=True, eq=False)
class LambdaStar:
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
    evidence: Json = field(default_factory=dict)
    converged: bool = True
    strict: bool = False
    failed: str = ""
    limits: tuple[str, ...] = ()


_NOT_FINITE = LambdaStar(0.0, math.inf, *3 * (math.nan,), None, None, failed="not finite")


def lambda_star_of(context: AuditContext, own: Curvature, nothing: float, tick: Tick) -> LambdaStar:
    """lambda*, for the threshold 0 where losses are exact and the hessian_blocks dense, else -`nothing`.

    Args:
        own: of the follower.
        nothing: the curvature that promises the leader the tolerance.
    """
    draws = found_draws(context)
    share = context.settings.local_products // len(draws) // 4
    if not own.ends.finite:
        return _NOT_FINITE
    if not Part(context, order_of(context.game)[0]).n:
        return LambdaStar(math.inf, math.inf, 0.0, 0.0, 0.0, None, None)
    if is_dense(context, 2 * share):
        return _dense(context, own, nothing if context.sampled else 0.0, nothing, tick)
    return _by_products(context, own, nothing, 3 * share * len(draws), tick)


# -- dense ---------------------------------------------------------------------------------------------


def gram(context: AuditContext, tick: Tick) -> Tensor:
    """M [n_c, n_c] over the critic's free coordinates: the game's own, or built from products."""
    _, follower = order_of(context.game)
    part = Part(context, follower)
    if not context.sampled:
        game: Any = context.game
        whole: Tensor = game.sobolev(context.wide[0])
        return whole[part.mask][:, part.mask]
    return dense_symmetric(Sobolev(context, found_draws(context), tick), part.n, context.device)


def _dense(
    context: AuditContext, own: Curvature, cut: float, nothing: float, tick: Tick
) -> LambdaStar:
    a, g, c = hessian_blocks(context, tick)
    M = gram(context, tick)
    finite = tree.all_finite(a, g, c) and not bool(M.isnan().any())
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
    return LambdaStar(
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
) -> LambdaStar:
    give_back()  # what the curvatures took
    draws = found_draws(context)
    damping, least = damped(own.ends)
    value = ValueHessian(context, draws, tick)
    if context.sampled:
        pursuit = Pursuit(value, Sobolev(context, draws, tick), damping, least, budget)
    else:
        M = gram(context, tick)
        if not tree.all_finite(M):
            return _NOT_FINITE
        pursuit = Pursuit(value, M.__matmul__, damping, least, budget)
    # A third of the budget goes to V_tt alone: the end of infinite lambda, and where to begin.
    pursuit.add_leader(random_direction(context, value.leader.n, Use.PROXIMAL_LEADER.at()))
    if not pursuit.sound():
        return _NOT_FINITE
    nash = pursuit.state(math.inf)
    while pursuit.products < budget // 3 and pursuit.add_leader(nash.residuals[0]):
        nash = pursuit.state(math.inf)
        if nash.leader <= 0.01 * abs(nash.value) and nash.value < -cut:
            break
    fine = max(FINE * -nash.value, 0.0)
    del nash  # a state is as large as the pair twice over
    # Without the critic's own curvature, what its answers miss is not known either.
    known = own.ends.converged(2 * context.tolerance().value / own.reach**2)
    low, high, state, done = _pursued(pursuit, cut)
    strict = _strictly(pursuit, fine, low, high) if fine < cut else (low, high)
    if not pursuit.sound():
        return _NOT_FINITE
    small = pursuit.small()
    stackelberg, at_nash = small.at(0.0).value, small.at(math.inf).value
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
    return LambdaStar(
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


def _pursued(pursuit: Pursuit, cut: float) -> tuple[float, float, PursuitState, bool]:
    """lambda* for the threshold -cut: (lower end, upper end, where it was found, whether that is settled)."""
    star, state = _at_threshold(pursuit, cut)
    while pursuit.grow(state, cut):
        del state
        star, state = _at_threshold(pursuit, cut)
    small = pursuit.small()
    done = answered(state, cut) and turned(state, cut)
    state = replace(state, residuals=())  # half of what it holds
    return (
        _certain(pursuit, small, star, cut),
        _upper(pursuit, small, state, star, cut),
        state,
        done,
    )


def _strictly(pursuit: Pursuit, fine: float, low: float, high: float) -> tuple[float, float]:
    """lambda* without a tolerance, no end above that with one (`low`, `high`). It is pursued at the threshold -fine,
    whose root lies above that at 0: the lower end is taken at 0."""
    lower, upper, _, _ = _pursued(pursuit, fine)
    return min(low, _certain(pursuit, pursuit.small(), lower, 0.0)), min(high, upper)


def _damped(damping: float, own: Curvature) -> list[str]:
    return [
        f"the critic's answers pay a damping of {damping:.3g} in every direction besides lambda's norm, as its own "
        f"Hessian has eigenvalues down to {own.ends.smallest:.3g}: without it lambda* could only be larger"
    ]


def _at_threshold(pursuit: Pursuit, cut: float) -> tuple[float, PursuitState]:
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


def _upper(
    pursuit: Pursuit, small: ReducedSchur, state: PursuitState, star: float, cut: float
) -> float:
    """A lambda above which the critical direction alone refutes, with the bound of what its answer misses; infinite
    where none was found."""
    if math.isinf(star):
        return math.inf
    y = torch.stack([q.to(state.u.dtype) @ state.u for q in pursuit.U])
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
