"""lambda* on samples: which deviation has the least lambda at which it gains, and at which it surely loses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from equilibrist.checks._decide import Interval
from equilibrist.checks.certificate import Json, Verdict
from equilibrist.checks.context import AuditContext, Meter, SpentError
from equilibrist.checks.proximal.inner import Part, Prox
from equilibrist.checks.proximal.trial import (
    Deviation,
    Trial,
    hints,
    mirrored,
    on_ray,
    prox_values,
    resting,
    scored,
    trial,
    verdict_of,
)

_BEYOND = 1e3  # how far above `prox_lambdas` a deviation's lambda is looked for, as a factor
_DECADE = 10.0
_UP = (1.0, 1.03, 1.07, 1.15, 1.3, 1.6, 2.5, 5.0, 20.0, 200.0)
_DOWN = (1.0, 0.97, 0.93, 0.87, 0.8, 0.7, 0.5, 0.25, 0.1, 0.01)
SHARES = (0.5, 0.25)  # of a deviation's distance, at which the best deviation must lose too
_AGAIN = 2  # searches at the lower end, each after one that found a deviation there


@dataclass
class Bracket:
    """lambda* between `low` and `high`; `best`: the trial that gives the upper end; `losses`: the looks at the lower
    end."""

    trials: list[Trial] = field(default_factory=list)
    low: float = 0.0
    high: float = math.inf
    best: Trial | None = None
    losses: list[Json] = field(default_factory=list)


def bracket_sampled(
    context: AuditContext, prox: Prox, tolerance: float, found: Bracket | None = None
) -> Bracket:
    """The interval of lambda*.

    A deviation's gain rises with lambda and is concave in it, for V_prox is a maximum of functions that fall linearly
    in lambda. So every deviation has one lambda at which it begins to gain, and lambda* is the least of these. A
    search at the lambda where the last deviation gains the tolerance finds another with a lesser one, until
    none is found (as in Dinkelbach's method).

    The upper end is the least lambda at which the score part sees the last deviation gain more than the tolerance.
    The lower end is the greatest at which it sees every deviation that was found lose, whole and at `SHARES` of its
    distance, after two residuals: what the answer to the trained generator may still gain, and what the deviation's
    search might still have. (On the straight line a part of a deviation is another thing: where it is half a
    symmetry of the game it leads away from what gains. So each is searched for, within that distance.) And a
    search there must find nothing that gains.
    """
    found = Bracket() if found is None else found
    first = context.settings.prox_lambdas[0]
    for lam in (math.inf, *reversed(context.settings.prox_lambdas)):
        at = trial(context, prox, lam, tolerance)
        found.trials.append(at)
        if at.verdict is Verdict.REFUTED:
            found.best = at
        elif at.verdict is Verdict.NOT_REFUTED:
            found.low = lam
        # Noise stays as it is at a smaller lambda. A search that failed may not: answers are easier there.
        if at.verdict is not Verdict.UNASSESSED or (lam < math.inf and not at.failed):
            break
    if found.best is None or found.best.deviation is None:
        return found
    found.low = 0.0
    known, start = _least(context, prox, found, tolerance)
    _upper(context, prox, found, known, start, tolerance)
    if found.best is None or found.high <= first:
        return found
    found.low = found.high
    critical = nearer(prox, known, found.high)
    for _ in range(_AGAIN):
        _lower(context, prox, found, critical)
        if found.low <= 0:
            break
        also = [critical[0].generator, critical[-1].generator]
        at = trial(context, prox, found.low, tolerance, also)
        found.trials.append(at)
        if at.deviation is None or not at.gain.low > 0:
            break
        critical += nearer(prox, at.deviation, found.high)
    return found


def bracket_within(
    context: AuditContext, prox: Prox, tolerance: float, meter: Meter
) -> tuple[Bracket, bool]:
    """The same, and whether it was cut short where the meter's gradients were spent: the upper end is then the least
    lambda at which a deviation was seen to gain so far, and nothing is known of the lower end."""
    found = Bracket()
    try:
        return bracket_sampled(context, prox, tolerance, found), False
    except SpentError:
        meter.most = math.inf
        found.low = 0.0
        if found.best is not None:
            found.high = min(found.high, found.best.lam)
        return found, True


# -- the critical deviation --------------------------------------------------------------------------


def _least(
    context: AuditContext, prox: Prox, found: Bracket, tolerance: float
) -> tuple[Deviation, float | None]:
    """The deviation of the least lambda that was found, and that lambda (None: its gain is within the tolerance on the
    selection part)."""
    assert found.best is not None
    assert found.best.deviation is not None
    known = found.best.deviation
    top = min(found.best.lam, _BEYOND * context.settings.prox_lambdas[-1])
    lam = begins(context, prox, known, tolerance, top, _DECADE)
    while lam is not None and lam > context.settings.prox_lambdas[0]:
        if len(found.trials) >= context.settings.prox_trials:
            break
        at = trial(context, prox, lam, tolerance, hints(prox, known))
        found.trials.append(at)
        if at.deviation is None:
            break
        less = begins(context, prox, at.deviation, tolerance, lam)
        if less is None:
            break
        settled = less > lam / (1 + context.settings.prox_width)
        known, lam = at.deviation, less
        if settled:
            break
    return known, lam


def begins(
    context: AuditContext,
    prox: Prox,
    deviation: Deviation,
    threshold: float,
    top: float,
    stride: float = 1.1,
) -> float | None:
    """The lambda, up to `top`, above which the deviation gains more than `threshold` on the selection part; None
    where it does not at `top`. The least of `prox_lambdas` where it does there already. `stride`: the first step down,
    as a factor."""
    least = context.settings.prox_lambdas[0]
    warm: list[Part | None] = [None] * (1 + len(deviation.sides))

    def gain(lam: float) -> float:
        return float(_gain(prox, deviation, lam, warm).mean())

    # Downwards: where a critic is free to answer, answers are easier, and each begins at the one before.
    high, at_high = top, gain(top)
    while not math.isfinite(at_high) and high > least:
        high = max(high / stride, least)
        at_high = gain(high)
    if not at_high > threshold:
        return None
    low, at_low = high, at_high
    while at_low > threshold:
        if low <= least:
            return least
        high, at_high = low, at_low
        low = max(low / stride, least)
        at_low = gain(low)
        stride = min(stride**2, _DECADE**2)
    return _between(gain, (low, at_low), (high, at_high), threshold, context.settings.prox_width)


def _gain(prox: Prox, deviation: Deviation, lam: float, warm: list[Part | None]) -> Tensor:
    """The gain on every batch of the selection part, the critic at `warm` to begin with, which moves on."""
    sides = [prox.trained["generator"], *deviation.sides]
    for k, side in enumerate(sides):
        warm[k] = prox.solve(side, lam, warm=warm[k]).critic
    base, *answers = (critic for critic in warm if critic is not None)
    rest = prox.measure(sides[0], base, lam, "select")
    return rest - prox_values(prox, deviation, answers, lam, "select")


def _between(
    gain: Callable[[float], float],
    below: tuple[float, float],
    above: tuple[float, float],
    threshold: float,
    width: float,
) -> float:
    """Where a rising function passes the threshold: regula falsi in log lambda (Illinois), the upper side."""
    (low, at_low), (high, at_high) = below, above
    a, b = at_low - threshold, at_high - threshold
    for _ in range(20):
        if high <= low * (1 + width / 2):
            break
        share = a / (a - b) if math.isfinite(a) and high < _DECADE * low else 0.5
        share = min(max(share, 0.02), 0.98)
        middle = low * (high / low) ** share
        at = gain(middle) - threshold
        if at > 0:
            high, b, a = middle, at, a / 2
        else:
            low, a, b = middle, at, b / 2
    return high


# -- the ends, on the score part ----------------------------------------------------------------------


def _upper(
    context: AuditContext,
    prox: Prox,
    found: Bracket,
    deviation: Deviation,
    start: float | None,
    tolerance: float,
) -> None:
    """The least lambda, from `start` upwards, at which the deviation gains on the score part, though the critic
    answered as well as it can."""
    top = found.best.lam if found.best is not None else math.inf

    def refutes(lam: float) -> bool:
        at = scored(context, prox, lam, deviation)
        at.verdict = verdict_of(at, tolerance)
        found.trials.append(at)
        if at.verdict is Verdict.REFUTED:
            found.high, found.best = lam, at
        return at.verdict is Verdict.REFUTED

    if start is None:
        start = top if math.isfinite(top) else _BEYOND * context.settings.prox_lambdas[-1]
    least, failed = context.settings.prox_lambdas[0], 0.0
    for factor in _UP:
        if refutes(max(factor * start, least)):
            break
        failed = factor * start
    else:
        if math.isfinite(top):
            found.high = top
        return
    _narrowed(refutes, failed, found.high, context.settings.prox_width)


def nearer(prox: Prox, deviation: Deviation, lam: float) -> list[Deviation]:
    """The deviation, and the best ones at `SHARES` of its distance, at a lambda at which it gains; all with their
    mirror images."""
    stay = prox.trained["generator"]
    far = sum(float((x - stay[k]).square().sum()) for k, x in deviation.generator.items()) ** 0.5
    found = [mirrored(prox, deviation)]
    for share in SHARES:
        start = on_ray(prox, deviation.generator, share)
        search = prox.descend(start, lam, share * far, share)
        found.append(mirrored(prox, Deviation(search.iterates[-1], promise=search.left)))
    return found


def _lower(context: AuditContext, prox: Prox, found: Bracket, known: list[Deviation]) -> None:
    """The greatest lambda, up to the lower end so far, at which every known deviation is seen to lose."""
    top = min(found.low, _BEYOND * context.settings.prox_lambdas[-1])
    best, failed = 0.0, math.inf
    warm: dict[int, Part] = {}

    def loses(lam: float) -> bool:
        nonlocal best
        gains = losses(context, prox, known, lam, warm)
        found.losses.append(
            {
                "lambda": lam,
                "gains": [g.mean for g in gains],
                "intervals": [g.ends for g in gains],
            }
        )
        held = all(g.high < 0 for g in gains)
        best = max(best, lam) if held else best
        return held

    start = begins(
        context, prox, known[-1], 0.0, top
    )  # the nearest one: what far ones gain is less than quadratic
    start = top if start is None else start
    for factor in _DOWN:
        lam = factor * start
        if lam < context.settings.prox_lambdas[0] or loses(lam):
            break
        failed = lam
    if best > 0 and math.isfinite(failed):
        _narrowed(lambda lam: not loses(lam), best, failed, context.settings.prox_width)
    found.low = best


def losses(
    context: AuditContext,
    prox: Prox,
    known: list[Deviation],
    lam: float,
    warm: dict[int, Part] | None = None,
) -> list[Interval]:
    """The deviations' gains at `lam` on the score part, the upper ends raised by both residuals: by what the answer to
    the trained generator may still gain, and by what the deviation's search might still have.

    (The answers to a deviation are from below, which makes its gain too large: safe here.) `warm`: where answers to
    these generators begin, by identity; moves on.
    """
    warm = {} if warm is None else warm
    at_rest = resting(context, prox, lam)
    before = prox.measure(prox.trained["generator"], at_rest.answer.critic, lam, "score")
    found = []
    for deviation in known:
        for side in deviation.sides:
            warm[id(side)] = prox.solve(side, lam, warm=warm.get(id(side))).critic
        answers = [warm[id(side)] for side in deviation.sides]
        gain = context.interval(before - prox_values(prox, deviation, answers, lam, "score"))
        found.append(Interval(gain.mean, gain.low, gain.high + at_rest.left + deviation.promise))
    return found


def _narrowed(holds: Callable[[float], bool], fails: float, holding: float, width: float) -> None:
    """Bisect (in log lambda) between a lambda at which `holds` fails and a greater one at which it holds."""
    while fails > 0 and holding > fails * (1 + width):
        middle = math.sqrt(fails * holding)
        if holds(middle):
            holding = middle
        else:
            fails = middle
