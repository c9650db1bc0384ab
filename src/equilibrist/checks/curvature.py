"""Does a small move gain to second order? Each player's own Hessian, and the leader's Schur complement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist._draws import Address, Use
from equilibrist._game import Players
from equilibrist.checks import _linear
from equilibrist.checks._bench import Bench
from equilibrist.checks._decide import Interval
from equilibrist.checks._linear import (
    DENSE,
    Extremes,
    Hessian,
    Part,
    Value,
    extremes_of,
    found_draws,
    free,
    order_of,
    score_draws,
)
from equilibrist.checks._schur import Pursuit, Small, answered, turned
from equilibrist.checks.certificate import Certificate, Tolerance, Verdict, both
from equilibrist.checks.stationarity import norm_of

REFERENCES = (
    "Mazumdar, Jordan and Sastry 2019, Definition 2 (differential Nash equilibria)",
    "Jin, Netrapalli and Jordan 2020, Propositions 18 and 19 (local minimax points)",
)


@dataclass(frozen=True, eq=False)
class Curvature:
    """What was found of one player's own Hessian.

    Attributes:
        ends: of its spectrum, over the free coordinates.
        direction: unit [n_p], feasible, in which the player's loss curves down; None where there is none.
        scored: its curvature u^T H u, on the score split where losses are sampled.
        reach: move * |x|.
    """

    player: str
    ends: Extremes
    direction: Tensor | None
    scored: Interval
    reach: float

    def gain(self, curvature: float) -> float:
        """What a move of `reach` gains to second order; negative where it loses."""
        return -0.5 * curvature * self.reach**2 + 0.0

    @property
    def gains(self) -> Interval:
        """The promised gain, scored."""
        low, high = self.gain(self.scored.high), self.gain(self.scored.low)
        return Interval(self.gain(self.scored.mean), low, high)


def local(bench: Bench, tick: Any = lambda gradients=1.0: None) -> list[Certificate]:
    """Certificates "local-nash/<player>", "local-nash" and "local-minimax": second-order conditions.

    H_p is player p's own Hessian, J_pp. The pair is a strict local Nash equilibrium if it is stationary and
    every H_p is positive definite; with a negative eigenvalue, -1/2 lambda r^2 is what a move of
    r = move * |x_p| along its eigenvector gains. It is a strict local minimax point of the zero-sum V, the
    generator leading, if -V_ww and S = V_tt + V_tw (-V_ww)^-1 V_wt are positive definite (Jin, Netrapalli and
    Jordan 2020, Proposition 19; their Proposition 18 is the necessary half).

    Where losses are exact and n is at most 2,500, all eigenvalues are found. Otherwise: Lanczos on the mean
    over `local_draws` minibatches, at most `local_products` products; the direction found is scored by
    u^T H u on batches of the score split, with Student's interval.

    VERIFIED: all eigenvalues are positive (zero to rounding is enough where losses are quadratic), exact
    losses only, and the pair at rest. REFUTED: the interval of a direction's curvature is negative, and the
    gain promised is above the tolerance for certain; the direction is the witness. UNASSESSED: what is not
    finite, did not converge, has no feasible direction, or does not rest. NOT_REFUTED: otherwise.
    """
    share = bench.settings.local_products // len(found_draws(bench)) // 4
    tolerance = bench.tolerance()
    if why := _linear.inexact(bench):
        return _unassessed(bench, tolerance, why)
    found = {
        player: own_curvature(bench, player, share, tick, Use.CURVATURE.at(player=i))
        for i, player in enumerate(bench.game.players)
    }
    parts = [_certificate(bench, c, tolerance) for c in found.values()]
    overall = both("local-nash", parts, _overall(parts))
    _, follower = order_of(bench.game)
    minimax = _minimax(
        bench, found, next(c for c in parts if c.player == follower), tolerance, tick
    )
    return [*parts, overall, minimax]


def work(bench: Bench) -> float:
    """Planned minibatch gradients."""
    settings = bench.settings
    if not bench.sampled:
        return 2 * _linear.PRODUCT * min(tree.count(bench.players), DENSE)
    return _linear.PRODUCT * (settings.local_products + 4 * settings.local_batches)


def own_curvature(bench: Bench, player: str, steps: int, tick: Any, where: Address) -> Curvature:
    """The ends of H_p by at most `steps` products on every draw, and the worst direction, scored."""
    operator = Hessian(bench, player, found_draws(bench), tick)
    reach = bench.settings.move * norm_of(bench, player)
    if not operator.n:
        nothing = torch.zeros(0, dtype=torch.float64)
        empty = Extremes(0.0, nothing, 0.0, 0.0, True, 0, nothing)
        return Curvature(player, empty, None, Interval(0.0, 0.0, 0.0), reach)
    ends = extremes_of(bench, operator, max(2, steps), where)
    part = operator.part
    del operator  # its graphs are as large as those of a training step, one for each draw
    scored, direction = Interval(ends.smallest, ends.smallest, ends.smallest), None
    if ends.finite and ends.smallest < -ends.zero:
        gain = -0.5 * ends.smallest * reach**2
        direction = _linear.feasible(bench, player, part.flat(ends.vector), gain)
        if direction is not None:
            scored = bench.interval(_linear.curvatures(bench, player, direction, tick))
    return Curvature(player, ends, direction, scored, reach)


def at_rest(bench: Bench, player: str, tolerance: Tolerance) -> bool:
    """Whether the gradient is nothing to first order; of exact losses only (see "stationary" for others)."""
    return bench.sampled or free(bench).residual[player] <= tolerance.value


def scope(bench: Bench, **extra: Any) -> dict[str, Any]:
    """The bench's, with the precision of a second-order check."""
    settings = bench.settings
    how = (
        f"directions from {len(found_draws(bench))} minibatches of {settings.batch}, scored on "
        f"{len(list(score_draws(bench)))} batches of the score split"
        if bench.sampled
        else "exact expectations"
    )
    return bench.scope() | {"search_precision": "float64", "products": how} | extra


def direction_witness(bench: Bench, player: str, u: Tensor) -> Players:
    """A unit direction [n_p] as the player's parameters."""
    players, _ = bench.wide
    return {player: tree.unflatten(u, {"x": players[player]})["x"]}


def promised(gains: Interval, unit: str, tolerance: Tolerance) -> str:
    """A gain in words, with its interval where it has one."""
    span = f"{gains.low:.3g} to {gains.high:.3g}; " if gains.high > gains.low else ""
    return f"{gains.mean:.3g} {unit} ({span}tolerance {tolerance.value:.3g})"


def _certificate(bench: Bench, found: Curvature, tolerance: Tolerance) -> Certificate:
    player, ends, settings = found.player, found.ends, bench.settings
    where = free(bench)
    n = Part(bench, player).n
    unit = bench.unit
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
        "first_order_gain": where.residual[player],
        "gradient_norm": float(where.gradient[player].norm()),
        "confidence": settings.confidence,
    }
    if ends.values is not None:
        evidence["negative"] = int((ends.values < -rounding).sum())
        evidence["zero"] = int((ends.values.abs() <= rounding).sum())
    witness = None
    move = f"a {settings.move:.0%} move"
    said = promised(gains, unit, tolerance)
    if not n:
        exact = not bench.sampled and not where.held[player]
        verdict = Verdict.VERIFIED if exact else Verdict.NOT_REFUTED
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
    elif found.direction is not None and gains.low > tolerance.value:
        verdict, witness = Verdict.REFUTED, direction_witness(bench, player, found.direction)
        summary = f"The {player}'s loss curves down: {move} along one direction promises a gain of {said}."
    elif found.direction is None and ends.smallest < -max(nothing, rounding):
        verdict = Verdict.UNASSESSED
        summary = (
            f"The {player}'s Hessian has the eigenvalue {ends.smallest:.3g}, but its direction leaves the "
            "feasible set or climbs the loss to first order, so nothing is refuted."
        )
    elif not at_rest(bench, player, tolerance):
        verdict = Verdict.UNASSESSED
        summary = (
            f"The {player} is not at rest ({where.residual[player]:.3g} {unit} to gain to first order), so its "
            "curvature does not decide."
        )
    elif not ends.converged(nothing):
        verdict = Verdict.UNASSESSED
        summary = (
            f"The smallest curvature of the {player}'s loss was not found to enough digits in {ends.steps} "
            f"products ({ends.smallest:.3g}, residual {ends.residual:.3g}): raise local_products."
        )
    elif not bench.sampled and _holds(bench, ends) and not where.held[player]:
        verdict = Verdict.VERIFIED
        summary = (
            f"The {player}'s loss curves up in every direction (smallest eigenvalue {ends.smallest:.3g})."
            if ends.smallest > rounding
            else f"The {player}'s loss is quadratic and curves down in no direction."
        )
    elif not bench.sampled and ends.smallest >= -rounding:
        verdict = Verdict.NOT_REFUTED
        flat = evidence.get("zero", 0)
        why = f"it is flat along {flat} of {n}" if flat else "a boundary holds part of them"
        if not ends.complete:
            why = "only the end of its spectrum was looked for"
        summary = f"The {player}'s loss curves down in no direction, but {why}: second order leaves it open."
    elif bench.sampled and found.direction is not None and gains.high > tolerance.value:
        verdict = Verdict.NOT_REFUTED
        summary = (
            f"The {player}'s most negative curvature promises {said} for {move}: not above the tolerance "
            "for certain."
        )
    else:
        verdict = Verdict.NOT_REFUTED
        summary = (
            f"No {settings.move:.0%} move along the {player}'s most negative curvature "
            f"({found.scored.mean:.3g}) gains more than {tolerance.value:.3g} {unit}."
        )
    limits = [
        "second order, near the pair only; whether the pair is at rest is the check "
        + ('"stationary"' if bench.sampled else "of the first order"),
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
        scope(bench, player=player),
        tuple(limits),
        REFERENCES[:1],
        player,
        witness,
        "direction",
    )


def _holds(bench: Bench, ends: Extremes) -> bool:
    """Positive definite; or semi-definite where the losses are quadratic."""
    if not ends.complete:
        return False
    return ends.smallest > ends.zero or (
        ends.smallest >= -ends.zero and getattr(bench.game, "linear", False)
    )


def _overall(parts: list[Certificate]) -> str:
    for verdict, opening in (
        (Verdict.REFUTED, "Not a local Nash equilibrium. "),
        (Verdict.UNASSESSED, "Cannot tell whether this is a local Nash equilibrium. "),
    ):
        those = [part for part in parts if part.verdict is verdict]
        if those:
            return opening + those[0].summary
    if all(part.verdict is Verdict.VERIFIED for part in parts):
        return "A local Nash equilibrium: no player gains by any small move alone."
    return "No player was found to gain by a small move alone, to second order."


# -- local minimax -------------------------------------------------------------------------------------


def _minimax(
    bench: Bench,
    found: dict[str, Curvature],
    inner: Certificate,
    tolerance: Tolerance,
    tick: Any,
) -> Certificate:
    leader, follower = order_of(bench.game)
    own = found[follower]
    evidence: dict[str, Any] = {
        "leader": leader,
        "follower": follower,
        "follower_smallest": own.ends.smallest,
        "follower_verdict": inner.verdict.value,
    }
    where = free(bench)
    common: dict[str, Any] = {
        "tolerance": tolerance,
        "scope": scope(
            bench, losses="the zero-sum V, minus the follower's own loss", leader=leader
        ),
        "references": REFERENCES[1:],
    }
    limits = (
        "second order, near the pair only; the leader moves first, the follower answers best",
        *where.limits(leader, follower),
    )
    claim = "local-minimax"
    if inner.verdict is Verdict.REFUTED:
        said = f"Not a local minimax point: the {follower} does not answer best. {inner.summary}"
        return Certificate(
            claim,
            Verdict.REFUTED,
            said,
            evidence,
            limits=limits,
            witness=inner.witness,
            witness_kind="direction",
            player=follower,
            **common,
        )
    if inner.verdict is Verdict.UNASSESSED:
        said = f"Cannot tell whether this is a local minimax point: {inner.summary}"
        return Certificate(claim, Verdict.UNASSESSED, said, evidence, limits=limits, **common)
    reach = bench.settings.move * norm_of(bench, leader)
    schur = _schur(bench, found[leader], own, reach, tolerance, tick)
    evidence |= schur.evidence
    gains = Interval(*(-0.5 * reach**2 * c + 0.0 for c in (schur.mean, schur.high, schur.low)))
    evidence |= {"move": reach, "gain": gains.mean, "gain_interval": [gains.low, gains.high]}
    unit, witness = bench.unit, None
    said = promised(gains, unit, tolerance)
    feasible = None
    if schur.u is not None and gains.mean > 0:
        feasible = _linear.feasible(bench, leader, Part(bench, leader).flat(schur.u), gains.mean)
    if math.isnan(schur.mean):
        verdict, summary = (
            Verdict.UNASSESSED,
            "Second derivatives of V are not finite, so nothing can be said.",
        )
    elif gains.low > tolerance.value and schur.decides and feasible is not None:
        verdict = Verdict.REFUTED
        witness = direction_witness(bench, leader, Part(bench, leader).flat(schur.u))  # type: ignore[arg-type]
        if schur.w is not None:
            witness |= direction_witness(bench, follower, Part(bench, follower).flat(schur.w))
        summary = (
            f"Not a local minimax point: a {bench.settings.move:.0%} move of the {leader} gains {said} even after the "
            f"{follower}'s best answer."
        )
    elif gains.mean > tolerance.value:
        verdict = Verdict.UNASSESSED
        why = schur.why or "the direction cannot be followed, or the noise is above the tolerance"
        summary = (
            f"A move of the {leader} seems to gain {said} after the {follower}'s answer, but {why}."
        )
    elif not all(at_rest(bench, p, tolerance) for p in (leader, follower)):
        verdict = Verdict.UNASSESSED
        summary = "The pair is not at rest, so its curvature does not decide whether it is minimax."
    elif not schur.converged:
        verdict = Verdict.UNASSESSED
        summary = (
            f"The {leader}'s curvature after the {follower}'s answer was not found to enough digits "
            f"({schur.mean:.3g}): raise local_products."
        )
    elif schur.verified and not where.held[leader] and not where.held[follower]:
        verdict = Verdict.VERIFIED
        summary = (
            f"A local minimax point: the {follower} answers best, and no small move of the {leader} gains after "
            f"its answer (smallest curvature {schur.mean:.3g})."
        )
    else:
        verdict = Verdict.NOT_REFUTED
        summary = (
            f"No small move of the {leader} was found to gain after the {follower}'s answer, to second order "
            f"(smallest curvature {schur.mean:.3g})."
        )
    return Certificate(
        claim,
        verdict,
        summary,
        evidence,
        limits=(*limits, *schur.limits),
        witness=witness,
        witness_kind="direction",
        player=leader if witness else None,
        **common,
    )


@dataclass(frozen=True, eq=False)
class _Schur:
    """The smallest eigenvalue of S with an interval, and what may be concluded of it.

    `decides`: a negative value refutes. `verified`: it is positive (semi-)definite for certain.
    """

    mean: float
    low: float
    high: float
    u: Tensor | None
    w: Tensor | None
    evidence: dict[str, Any]
    converged: bool
    decides: bool
    verified: bool
    why: str = ""
    limits: tuple[str, ...] = ()


_NOT_FINITE = _Schur(*3 * (float("nan"),), None, None, {}, False, False, False)


def blocks(bench: Bench, tick: Any) -> tuple[Tensor, Tensor, Tensor]:
    """V_tt [n_t, n_t], V_wt [n_c, n_t] and -V_ww [n_c, n_c] over the free coordinates, dense."""
    value = Value(bench, found_draws(bench), tick)
    nt, nc = value.leader.n, value.follower.n
    unit_t, unit_c = (torch.eye(n, dtype=torch.float64, device=bench.device) for n in (nt, nc))
    led = [value.of_leader(row) for row in unit_t]
    a = torch.stack([x for x, _ in led], 1) if nt else unit_t
    g = torch.stack([y for _, y in led], 1) if nt else unit_c.new_zeros(nc, 0)
    c = torch.stack([value.of_follower(row)[1] for row in unit_c], 1) if nc else unit_c
    return (a + a.mT) / 2, g, (c + c.mT) / 2


def is_dense(bench: Bench, products: int) -> bool:
    """Whether V's second derivatives are built whole: within `products` on every draw, or exact and small."""
    leader, follower = order_of(bench.game)
    n = Part(bench, leader).n + Part(bench, follower).n
    return n <= products or (not bench.sampled and n <= DENSE)


def _schur(
    bench: Bench, ahead: Curvature, own: Curvature, reach: float, tolerance: Tolerance, tick: Any
) -> _Schur:
    draws = found_draws(bench)
    products = bench.settings.local_products // 2
    nothing = 2 * tolerance.value / reach**2
    leader, _ = order_of(bench.game)
    if not Part(bench, leader).n:
        return _Schur(0.0, 0.0, 0.0, None, None, {}, True, False, not bench.sampled)
    if is_dense(bench, products // len(draws)):
        a, g, c = blocks(bench, tick)
        if not all(bool(torch.isfinite(t).all()) for t in (a, g, c)):
            return _NOT_FINITE
        small = Small(a, g, c)
        found = small.at(0.0)
        flat = len(c) - len(small.b) - small.runaway
        rounding = 1e-9 * max(float(a.abs().max()), 1e-300)
        evidence: dict[str, Any] = {
            "schur_smallest": None if math.isinf(found.value) else found.value,
            "complete": True,
            "flat_answers": flat,
            "runaway_answers": small.runaway,
        }
        if math.isinf(found.value):
            found_value, u, w = 0.0, None, None
        else:
            found_value, u, w = found.value, found.y, found.z
        if not bench.sampled:
            quadratic = bool(getattr(bench.game, "linear", False))
            sound = not small.runaway and (quadratic or not flat)
            verified = sound and (
                found_value > rounding or (quadratic and found_value >= -rounding)
            )
            return _Schur(
                found_value,
                found_value,
                found_value,
                u,
                w,
                evidence,
                True,
                sound,
                verified,
                "the follower's Hessian is singular, which leaves it open",
                _flat_limits(flat),
            )
        if u is None or found_value >= 0:
            return _Schur(
                found_value, found_value, found_value, u, w, evidence, True, False, False,
                limits=_flat_limits(flat),
            )  # fmt: skip
        assert w is not None
        least = 0.0 if flat or small.runaway else float(torch.linalg.eigvalsh(c)[0])
        low, mean, high = answered_curvature(bench, u, w, least, tick)
        return _Schur(
            mean, low, high, u, w, evidence, True, least > 0, False,
            "the follower's Hessian is singular, which leaves it open", _flat_limits(flat),
        )  # fmt: skip
    damping, least = damped(own.ends)
    pursuit = Pursuit(Value(bench, draws, tick), None, damping, least, products)
    # Where the own loss curves down most is a good place to begin, and a random direction misses nothing.
    start = _linear.random_direction(bench, pursuit.value.leader.n, Use.ANSWERED.at())
    pursuit.add_leader(ahead.ends.vector)
    pursuit.add_leader(start)
    if not pursuit.sound():
        return _NOT_FINITE
    state = pursuit.state(0.0)
    while pursuit.grow(state, nothing):
        state = pursuit.state(0.0)
    if not pursuit.sound():
        return _NOT_FINITE
    done = answered(state, nothing) and turned(state, nothing)
    evidence = {
        "schur_smallest": state.value,
        "complete": False,
        "products": pursuit.products,
        "residual": state.leader,
        "answer_residual": state.follower,
        "damping": damping,
    }
    limits = (
        f"the follower's answers pay a damping of {damping:.3g} in every direction, as its own Hessian has "
        f"eigenvalues down to {own.ends.smallest:.3g}",
    )
    if state.value >= 0 or state.value - state.value != 0:
        one = state.value
        return _Schur(one, one, one, state.u, state.w, evidence, done, False, False, limits=limits)
    low, mean, high = answered_curvature(bench, state.u, state.w, least, tick)
    sound = own.ends.smallest > 0 and least > damping
    return _Schur(
        mean, low, high, state.u, state.w, evidence, done, sound, False,
        "the follower's Hessian is not positive definite for certain, which leaves it open", limits,
    )  # fmt: skip


def damped(ends: Extremes) -> tuple[float, float]:
    """(damping, a lower bound of the smallest eigenvalue of -V_ww + damping): 1e-8 of the largest eigenvalue,
    and twice the most negative eigenvalue where there is one."""
    lowest = ends.smallest - (0.0 if ends.complete else ends.residual)
    damping = 1e-8 * max(abs(ends.largest), 1e-300) + 2 * max(0.0, -ends.smallest)
    return damping, lowest + damping


def answered_curvature(
    bench: Bench, u: Tensor, w: Tensor, least: float, tick: Any, held: list[Tensor] | None = None
) -> tuple[float, float, float]:
    """(low, mean, high) of u^T S u on the score split, where the follower answers w or better.

    For a fixed w, q = u^T V_tt u + 2 w^T V_wt u - w^T K w is below u^T S u on every batch; the best answer adds
    r^T K^-1 r <= |r|^2 / `least` with r = V_wt u - K w, r the mean over the batches, K = -V_ww plus what
    `held` gives of K w on every batch (2 lambda M w). `high` holds that bound.
    """
    values, rests = [], []
    for i, draw in enumerate(score_draws(bench)):
        value = Value(bench, [draw], tick)
        au, gu = value.of_leader(u)
        _, cw = value.of_follower(w)
        if held is not None:
            cw = cw + held[i]
        values.append(u @ au + 2 * (w @ gu) - w @ cw)
        rests.append(gu - cw)
    scored = bench.interval(torch.stack(values))
    rest = float(torch.stack(rests).mean(0).square().sum())
    more = rest / least if least > 0 else (math.inf if rest else 0.0)
    return scored.low, scored.mean, scored.high + more


def _flat_limits(flat: int) -> tuple[str, ...]:
    if not flat:
        return ()
    return (
        f"the follower's Hessian is zero (below 1e-10 of its largest) along {flat} directions: where the leader is "
        "not coupled to them they were left out, where it is the answer has no bound",
    )


def _unassessed(bench: Bench, tolerance: Tolerance, why: str) -> list[Certificate]:
    claims = [*(f"local-nash/{p}" for p in bench.game.players), "local-nash", "local-minimax"]
    return [
        Certificate(
            claim,
            Verdict.UNASSESSED,
            f"Not assessed: {why}.",
            {},
            tolerance,
            scope(bench),
            references=REFERENCES,
            player=claim.partition("/")[2] or None,
        )
        for claim in claims
    ]
