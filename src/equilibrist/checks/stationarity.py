"""Is the pair stationary? The projected-gradient residual of each player, with its noise floor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from equilibrist import tree
from equilibrist.checks._decide import Interval, Reason, decide
from equilibrist.checks._first_order import FirstOrder, first_order, planned
from equilibrist.checks._second_order import is_box
from equilibrist.checks.certificate import Certificate, Json, Tolerance, Verdict, of_all_players
from equilibrist.checks.context import AuditContext, Tick, no_tick, reach_of
from equilibrist.core.draws import Batch
from equilibrist.core.field import VectorField
from equilibrist.core.game import Players

ROUNDING = 1e-14  # a variance below this part of the squares is their rounding
_PIECE = 2**20  # entries of a vector that are held in float64 at once
REFERENCES = ("Farnia and Ozdaglar 2020, section 2", "Jin, Netrapalli and Jordan 2020, section 2")


def stationarity(context: AuditContext, tick: Tick = no_tick) -> list[Certificate]:
    """Certificates "stationary/<player>" and "stationary".

    The residual of player p is |r| with r = (x - P(x - h v)) / h, h |v| = move * |x|, P the
    projection onto its feasible set (r = v without one). It is reported as move * |x| * |E r|: the
    loss that a move by this fraction of the player's norm gains to first order (|x| = sqrt(n) for a
    player whose parameters are all zero).

    |E r|^2 is estimated from K group means r_1..r_K as the mean of r_i . r_j over i != j, which
    noise does not bias, with a delete-one jackknife interval (K - 1 degrees of freedom). Which
    coordinates a wall blocks is decided once, by the mean of all groups: projecting each group's
    noise would look like motion. The noise floor is the residual that pure noise of the measured
    size would be taken for at this confidence. Minibatches come from all of the data: nothing is
    selected here.

    What a gradient promises, a move of finite size need not hold: `first_order` makes the move and measures it.

    REFUTED: the measured gain is above the tolerance for certain, and the promise is not below it for
    certain; the moved parameters are the witness. VERIFIED: the upper end of the promise is below the tolerance.
    UNASSESSED: the noise floor or the estimate is above it, or the promise is and no move keeps it.
    NOT_REFUTED: otherwise.
    """
    field, settings = VectorField(context.game), context.settings

    def gradient(k: int) -> Players:
        draw = context.minibatch(k, "all", index=Batch.STATIONARY)
        v, _ = field(context.players, context.constants, draw)
        tick()
        return v

    size = settings.group_batches
    means = [
        tree.mean(gradient(group * size + k) for k in range(size))
        for group in range(settings.groups)
    ]
    parts = []
    for player in context.game.players:
        tolerance = context.tolerance(f" per {settings.move:.0%} move", player)
        gram = gram_of(_residuals(context, player, [mean.pop(player) for mean in means]))
        moved = first_order(context, player, tick)
        parts.append(_certificate(context, player, gram, tolerance, moved))
    residual = [part.evidence["residual"] or 0.0 for part in parts]
    return [*parts, of_all_players("stationary", parts, residual)]


def planned_gradients(context: AuditContext) -> float:
    """About how many minibatch gradients `stationarity` takes."""
    return context.settings.groups * context.settings.group_batches + planned(context)


def _residuals(
    context: AuditContext, player: str, means: list[dict[str, torch.Tensor]]
) -> Sequence[torch.Tensor]:
    """Each group's gradient without what the projection would undo: K vectors [n]."""
    flat = [tree.flatten(mean) for mean in means]
    if not _may_block(context, player):
        return flat
    return list(unblocked(context, player, torch.stack([x.double().cpu() for x in flat])))


def _may_block(context: AuditContext, player: str) -> bool:
    """Whether the player's feasible set may have walls."""
    known = getattr(context.game, "projections", None)
    return known is None or any(p.player == player for p in known)


def unblocked(context: AuditContext, player: str, groups: torch.Tensor) -> torch.Tensor:
    """The groups' gradients [K, n] without what the projection would undo of a step along their mean:
    coordinates, where its feasible set is a box, else directions."""
    mean = groups.mean(0)
    size = float(mean.norm())
    if not size > 0 or not _may_block(context, player):
        return groups
    x = context.players[player]
    flat = tree.flatten(x)
    h = reach_of(context, player) / size
    step = h * mean.to(flat)
    if is_box(context, player):
        moved = {**context.players, player: tree.unflatten(flat - step, x)}
        landed = tree.flatten(context.game.project(moved)[player])
        blocked = ((landed == flat) & (step != 0)).cpu()
        return torch.where(blocked, 0.0, groups)
    return _slid(context, player, groups, h)


def _slid(context: AuditContext, player: str, groups: torch.Tensor, h: float) -> torch.Tensor:
    """Residuals r_i = (x - P(x - h g)) / h of the groups' gradients, P linearised around the step along
    their mean m: r_i = r(m) + DP (g_i - m). A set such as a ball of matrices blocks directions, not
    coordinates; DP keeps those in which noise could move the player."""
    wide = tree.to(context.players[player], dtype=torch.float64, device="cpu")
    rest = tree.to(context.players, dtype=torch.float64, device="cpu")
    flat = tree.flatten(wide)

    def projected(point: torch.Tensor) -> torch.Tensor:
        moved = {**rest, player: tree.unflatten(point, wide)}
        return tree.flatten(context.game.project(moved)[player])

    groups = groups.double()
    mean = groups.mean(0)
    there = flat - h * mean
    still = (flat - projected(there)) / h
    rows = []
    for deviation in groups - mean:
        # Central differences: P has no derivative that autograd could take where singular values tie.
        a, b = (projected(there - sign * 1e-3 * h * deviation) for sign in (1, -1))
        rows.append(still + (b - a) / (2e-3 * h))
    return torch.stack(rows)


def gram_of(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Inner products [K, K] of K vectors [n] in float64, of which few entries at a time are held in it."""
    gram = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for pieces in zip(*(x.split(_PIECE) for x in vectors), strict=True):
        block = torch.stack([piece.double().cpu() for piece in pieces])
        gram += block @ block.mT
    return gram


def squared_norm(gram: torch.Tensor, confidence: float) -> tuple[float, float, float, float]:
    """From the inner products [K, K] of K independent estimates of a vector m: an unbiased estimate of |m|^2, its
    jackknife interval, and the bound below which |m|^2 = 0 would lie with this (one-sided) confidence."""
    from scipy.special import stdtrit

    K = len(gram)
    cross = gram.sum() - gram.diagonal().sum()
    estimate = cross / (K * (K - 1))
    without = (cross - 2 * (gram.sum(1) - gram.diagonal())) / ((K - 1) * (K - 2))
    spread = ((K - 1) / K * (without - without.mean()).square().sum()).sqrt()
    reach = float(stdtrit(K - 1, 0.5 + confidence / 2)) * float(spread)
    # Under m = 0 the estimate has variance 2 tr(S^2) / (K (K - 1)), S the covariance of one group.
    trace = _trace_of_square(gram)
    floor = float(stdtrit(K - 1, confidence)) * float(
        (2 * trace / (K * (K - 1))).clamp_min(0).sqrt()
    )
    return float(estimate), float(estimate) - reach, float(estimate) + reach, floor


def _trace_of_square(gram: torch.Tensor) -> torch.Tensor:
    """tr(S^2) without bias, from the Gram matrix of K independent vectors of covariance S: the mean of
    ((g_i - g_j) . (g_k - g_l))^2 / 4 over distinct i, j, k, l. (With three, pairs that share one.)"""
    K = len(gram)
    if K < 4:
        centred = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
        products = centred.square()
        return (products.sum() - products.diagonal().sum()) / (K * (K - 1)) * (K / (K - 1)) ** 2
    # Multiplied out, means over pairs, chains of three and two disjoint pairs: K^2 work rather than K^4.
    # Differences do not feel a common shift; without it nothing large cancels.
    gram = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
    off = gram - gram.diagonal().diag()
    pairs = off.square().sum()
    chains = off.sum(1).square().sum() - pairs
    disjoint = off.sum().square() - 4 * chains - 2 * pairs
    two = K * (K - 1)
    return pairs / two - 2 * chains / (two * (K - 2)) + disjoint / (two * (K - 2) * (K - 3))


def _certificate(
    context: AuditContext,
    player: str,
    gram: torch.Tensor,
    tolerance: Tolerance,
    moved: FirstOrder,
) -> Certificate:
    settings = context.settings
    scope = context.scope() | {
        "player": player,
        "minibatches": settings.groups * settings.group_batches,
    }
    if context.sampled:
        scope["data"] = f"{context.data.name}, all of it"
    limits = (
        "a stationary pair need not be an equilibrium: saddle points and maxima are stationary too",
        f"the interval is statistical, at {settings.confidence:.0%} confidence over minibatches of "
        f"{settings.batch}",
    )
    verdict, summary, evidence = _judged(context, player, gram, tolerance, moved)
    refuted = verdict is Verdict.REFUTED
    return Certificate(
        f"stationary/{player}",
        verdict,
        summary,
        evidence,
        tolerance,
        scope,
        limits,
        REFERENCES,
        player,
        {player: moved.witness} if refuted and moved.witness else None,
    )


def _judged(
    context: AuditContext,
    player: str,
    gram: torch.Tensor,
    tolerance: Tolerance,
    moved: FirstOrder,
) -> tuple[Verdict, str, Json]:
    """The verdict on "the player is at rest", its sentence and its evidence."""
    settings = context.settings
    if not torch.isfinite(gram).all():
        wording = f"The {player}'s gradient is not finite, so nothing can be said."
        return Verdict.UNASSESSED, wording, {"residual": None}
    unit = reach_of(context, player)
    squares = squared_norm(gram, settings.confidence)
    value, low, high, floor = (unit * max(s, 0.0) ** 0.5 for s in squares)
    # The variances' sum over coordinates, of K vectors: (sum of |g_i|^2 - K |mean|^2) / (K - 1).
    K, sizes = len(gram), float(gram.diagonal().sum())
    spread = (sizes - float(gram.sum()) / K) / (K - 1)
    noise = unit * spread**0.5 if spread > ROUNDING * sizes else 0.0
    promise = decide(Interval(value, low, high), tolerance.value, exhaustive=True, noise=floor)
    gained = decide(moved.gain, tolerance.value)
    verdict, wording = promise.verdict, _SAID.get(promise.reason, promise.reason.value)
    # Two numbers speak of one claim: a gradient verifies by itself, but refutes only with a move that keeps its
    # promise.
    if gained.verdict is Verdict.REFUTED and verdict is not Verdict.VERIFIED:
        verdict, wording = Verdict.REFUTED, "still moving"
    elif verdict is Verdict.REFUTED:
        verdict, wording = (
            Verdict.UNASSESSED,
            "not settled: its gradient promises what no move keeps",
        )
    elif promise.reason is Reason.NO_TOLERANCE:
        wording = f"not assessed: {tolerance.why}"
    summary = (
        f"The {player} is {wording}: a {settings.move:.0%} move of its weights down its gradient promises "
        f"{value:.3g} {context.unit} ({low:.3g} to {high:.3g}; tolerance {tolerance.value:.3g})"
    )
    if moved.witness is not None and promise.reason is not Reason.NOT_FINITE:
        summary += f"; a {moved.size:.2g} move, made, gains {moved.gain.in_words()}"
    if verdict is Verdict.UNASSESSED and promise.reason is Reason.NOISE:
        # Noise falls with the root of the minibatches in a group.
        enough = math.ceil(settings.group_batches * (floor / tolerance.value) ** 2)
        summary += (
            f"; group_batches={enough} in the settings would bring the noise of {floor:.3g} down to the tolerance "
            f"({settings.groups * enough} gradients in place of {settings.groups * settings.group_batches})"
        )
    evidence = {
        "residual": value,
        "interval": [low, high],
        "noise_floor": floor,
        "unit": tolerance.unit,
        "signal_to_noise": value / noise if noise else None,
        "gradient_norm": value / unit if unit else None,
        "confidence": settings.confidence,
        "groups": settings.groups,
        "batches_per_group": settings.group_batches,
        "measured": moved.describe(),
    }
    return verdict, summary + ".", evidence


_SAID = {
    Reason.NOISE: "hidden in the noise",
    Reason.STRADDLES: "perhaps still moving",
    Reason.BOUNDED: "at rest within the tolerance",
    Reason.BELOW: "at rest as far as this many minibatches can tell",
}
