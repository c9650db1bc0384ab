"""The equilibrium profile r(lambda) = V(G*, D*) - inf over G of V_prox(G, D*), from Stackelberg to Nash."""

from __future__ import annotations

import math
from collections.abc import Sequence

from equilibrist.checks.certificate import Certificate, Json, Verdict
from equilibrist.checks.context import AuditContext, Tick, no_tick
from equilibrist.checks.proximal import inner
from equilibrist.checks.proximal._costs import PLAIN, POOL, trial_work
from equilibrist.checks.proximal.trial import Trial, hints, json_number, trial

CLAIM = "profile"


def equilibrium_profile(context: AuditContext, tick: Tick = no_tick) -> list[Certificate]:
    """Certificate "profile": what the generator still gains when the critic may answer within reach 1 / lambda.

        r(lambda) = V(G*, D*) - inf over G of V_prox(G, D*),  lambda in {0, prox_lambdas, inf}

    (Proposition 2's second inequality is r <= 0.) r never falls as lambda grows: an estimate
    below what is surely reached at a smaller lambda is lifted to it, and the rest made isotonic by weighted least
    squares; failed searches have no weight. r(inf) is the generator's Nash gain; r(0) its Stackelberg regret less the
    critic's slack max_D V(G*, D) - V(G*, D*), and negative where the slack is the greater.

    Each lambda is a `trial`; they are taken downwards, a deviation found at one lambda beginning searches at
    the next. The intervals hold the noise of the score part; a search gives r from below, an inner search from above.

    lambda*_eps, where r leaves the tolerance, lies between the last lambda of the grid whose isotonic r is at
    most the tolerance and the next; the same for r plus the critic's slack within reach (Definition 1), which where
    there is slack need not rise with lambda.

    REFUTED: a generator gains at the least positive lambda already. UNASSESSED: a search failed or noise is
    above the tolerance at some lambda. NOT_REFUTED: else.
    """
    if reason := inner.why_not_judged(context):
        return [inner.unfit(context, CLAIM, reason)]
    tolerance = context.tolerance()
    prox = inner.prox_of(context, tick)
    grid = (0.0, *context.settings.prox_lambdas, math.inf)
    trials: list[Trial] = []
    last: Trial | None = None
    for lam in reversed(grid):
        found = trial(
            context, prox, lam, tolerance.value, hints(prox, last.deviation if last else None)
        )
        trials.insert(0, found)
        last = found if found.deviation is not None else last
    return [_certificate(context, trials, tolerance.value)]


def _certificate(context: AuditContext, trials: list[Trial], tolerance: float) -> Certificate:
    weights = [1 / max(t.regret.half_width, 1e-12) ** 2 for t in trials]
    weights = [0.0 if t.failed else w for t, w in zip(trials, weights, strict=True)]
    r = isotonic(monotone_lower(trials), weights)
    both = [t.gain.mean for t in trials]  # with slack it need not rise with lambda
    lams = [t.lam for t in trials]
    evidence: Json = {
        "lambda": [json_number(lam) for lam in lams],
        "r": r,
        "raw": [t.regret.mean for t in trials],
        # r never falls: what is surely reached at one lambda is reached at every greater one.
        "low": [
            max((t.regret.low for t in trials[: k + 1] if not t.failed), default=math.nan)
            for k in range(len(trials))
        ],
        "high": [max(t.regret.high, value) for t, value in zip(trials, r, strict=True)],
        "slack_within_reach": [t.slack.mean for t in trials],
        "definition_1": both,
        "slack": trials[0].slack.mean,
        "slack_interval": trials[0].slack.ends,
        "lambda_star": _leaves(lams, r, tolerance),
        "lambda_star_definition_1": _leaves(lams, both, tolerance),
        "nash_gain": r[-1],
        "stackelberg_regret_less_slack": r[0],
        "trials": [t.row() for t in trials],
        "unit": context.unit,
        "confidence": context.settings.confidence,
        "radius": f"{context.settings.prox_starts} searches a lambda, {context.settings.prox_steps} steps each",
    }
    verdict, text = _judged(context, trials, r, evidence["lambda_star"], tolerance)
    witness = trials[1].generator if verdict is Verdict.REFUTED else None
    return Certificate(
        CLAIM,
        verdict,
        text,
        evidence,
        context.tolerance(),
        inner.scope(context) | {"player": "generator"},
        (
            "a search gives r(lambda) from below where it misses a better generator, and from above where the inner "
            "maximum is not reached; both stand on the stated budget",
            "lambda = 0 asks for the critic's best answer without a penalty: as far as its search reaches",
        ),
        inner.REFERENCES,
        "generator",
        {"generator": witness} if witness else None,
    )


def _judged(
    context: AuditContext,
    trials: list[Trial],
    r: list[float],
    star: list[float | str],
    tolerance: float,
) -> tuple[Verdict, str]:
    """The verdict on "no generator gains at the least positive lambda" from those on each lambda, and its sentence."""
    failed = [t for t in trials if t.failed]
    noisy = [t for t in trials if t.verdict is Verdict.UNASSESSED and not t.failed]
    where = (
        f"r leaves the tolerance of {tolerance:.3g} between lambda = {star[0]} and {star[1]}"
        if r[-1] > tolerance
        else f"r stays within the tolerance of {tolerance:.3g} at every lambda"
    )
    text = (
        f"Alone the generator gains {r[-1]:.3g} {context.unit} (Nash, lambda = inf), against an answering critic "
        f"{r[1]:.3g} at lambda = {trials[1].lam:.3g}; {where}. The critic's slack is {trials[0].slack.mean:.3g}."
    )
    if failed:
        summary = f"{text} At lambda = {failed[0].lam:.3g} {failed[0].failed}."
        return Verdict.UNASSESSED, summary
    if trials[1].verdict is Verdict.REFUTED:
        return Verdict.REFUTED, text
    if noisy:
        summary = f"{text} At lambda = {noisy[0].lam:.3g} the noise hides whether it does."
        return Verdict.UNASSESSED, summary
    return Verdict.NOT_REFUTED, text


def monotone_lower(trials: Sequence[Trial]) -> list[float]:
    """The estimates, each at least what is surely reached at a smaller lambda: a search that misses there what
    another found here says nothing against it. A failed one takes that value."""
    found: list[float] = []
    sure = -math.inf
    for t in trials:
        found.append(sure if t.failed else max(t.regret.mean, sure))
        sure = sure if t.failed else max(sure, t.regret.low)
    least = min((v for v in found if math.isfinite(v)), default=math.nan)
    return [v if math.isfinite(v) else least for v in found]


def isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The nearest non-decreasing sequence in weighted least squares: neighbours that fall are pooled to their
    mean (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, x, m), (b, y, n) = blocks[-2:]
            mean = (a * x + b * y) / (x + y) if x + y > 0 else max(a, b)
            blocks[-2:] = [(mean, x + y, m + n)]
    return [value for value, _, count in blocks for _ in range(count)]


def _leaves(lams: list[float], r: list[float], tolerance: float) -> list[float | str]:
    """The neighbours of the grid between which r leaves the tolerance; lambda = 0 and inf included."""
    above = [k for k, value in enumerate(r) if value > tolerance]
    if not above:
        return ["inf", "inf"]
    first = above[0]
    return [json_number(lams[first - 1]) if first else 0.0, json_number(lams[first])]


def planned_gradients(context: AuditContext) -> float:
    """Planned minibatch gradients."""
    count = len(context.settings.prox_lambdas) + 2
    if inner.why_not(context):
        return 1.0
    if not context.sampled:
        return 600.0 * count
    return POOL * PLAIN + count * trial_work(context, extra=2)
