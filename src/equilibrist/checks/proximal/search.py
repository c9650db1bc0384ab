"""lambda*, the largest lambda at which the pair is a proximal equilibrium, bracketed by search."""

from __future__ import annotations

import math
from typing import Any

from equilibrist.checks._bench import Bench
from equilibrist.checks._decide import Interval
from equilibrist.checks.certificate import Certificate, Verdict
from equilibrist.checks.proximal import inner
from equilibrist.checks.proximal._sampled import LEAD, MEASURED, PENALISED, PLAIN, POOL
from equilibrist.checks.proximal.inner import Part, Prox
from equilibrist.checks.proximal.trial import Trial, on_ray, scored, trial

CLAIM = "lambda-search"
SHARES = (0.5, 0.25)  # of a deviation, at which it must lose for lambda to count as below lambda*
_ROUNDS = 5  # lambdas at which that is looked at


def lambda_search(bench: Bench, tick: Any = lambda: None) -> list[Certificate]:
    """Certificate "lambda-search": lambda* as an interval, the generator's side of Definition 1.

    A pair that is no lambda-proximal equilibrium is none for any greater lambda (Proposition 3), so
    lambda* is bracketed: lambda = inf (Nash), the greatest of `prox_lambdas`, two short strides
    downwards, the least of `prox_lambdas`, then geometric middles (on samples these at once). The upper
    end is the least lambda at which a generator was seen to gain more than the tolerance though the
    critic answered (`trial`).

    The lower end, where losses are exact, is the greatest lambda at which the searches found nothing. On samples
    finding nothing says little near lambda*: there it is the greatest lambda at which the deviation of the
    upper end, shrunk to 1/2 and 1/4 and taken with both signs, is seen to lose; 0 where noise hides that.

    REFUTED: a generator gains at the least lambda tried: an equilibrium of no such lambda.
    NOT_REFUTED: an interval was found. UNASSESSED: noise, or failed searches, left no lambda assessed.
    """
    if reason := inner.why_not(bench):
        return [unfit(bench, CLAIM, reason)]
    tolerance = bench.tolerance()
    if math.isnan(tolerance.value):
        return [unfit(bench, CLAIM, f"there is no tolerance: {tolerance.why}")]
    prox = inner.prox_of(bench, tick)
    trials, high, best = bracket(bench, prox, tolerance.value)
    settings = bench.settings
    held = [t.lam for t in trials if t.verdict == "not refuted"]
    low = max(held, default=0.0)
    rays: list[dict[str, Any]] = []
    if bench.sampled and best is not None:
        low, rays = _below(bench, prox, best, high)
    # The critic's own slack, its reach unbounded: lambda = 0.
    stay = prox.trained["generator"]
    answer = inner.solve_well(prox, stay, 0.0, staying=False).answer
    slack = bench.interval(
        prox.measure(stay, answer.critic, 0.0, "score")
        - prox.measure(stay, prox.trained["critic"], math.inf, "score")
    )
    assessed = [t for t in trials if t.verdict != "unassessed"]
    unit = bench.unit
    if not assessed:
        verdict = Verdict.UNASSESSED
        why = next((t.failed for t in trials if t.failed), "the noise is above the tolerance")
        summary = f"lambda* could not be bracketed: {why}."
    elif high <= settings.prox_lambdas[0]:
        verdict = Verdict.REFUTED
        assert best is not None
        summary = (
            f"A generator gains {_said(best.gain)} {unit} even at lambda = {best.lam:.3g}, though the critic "
            "answers: a proximal equilibrium of no lambda that was tried."
        )
    elif best is None:
        verdict = Verdict.NOT_REFUTED
        summary = (
            f"No search found a generator that gains more than {tolerance.value:.3g} {unit} up to lambda = "
            f"{number(low)}: lambda* is not below it, as far as this search can tell."
        )
    else:
        verdict = Verdict.NOT_REFUTED
        summary = (
            f"lambda* lies between {low:.4g} and {high:.4g}: beyond, a generator gains {_said(best.gain)} "
            f"{unit} though the critic answers; below, none was found to."
        )
    evidence: dict[str, Any] = {
        "interval": [number(low), number(high)],
        "lower_end": "the greatest lambda at which the upper end's deviation is seen to lose"
        if bench.sampled and best is not None
        else "the greatest lambda at which no search found a gain",
        "interval_proposition_2": _by_regret(trials, tolerance.value),
        "width": (high - low) / high if 0 < high < math.inf and low < math.inf else None,
        "slack": slack.mean,
        "slack_interval": [slack.low, slack.high],
        "trials": [t.row() for t in trials],
        "rays": rays,
        "unit": unit,
        "confidence": settings.confidence,
    }
    witness = None
    if best is not None and best.generator is not None:
        witness = {"generator": best.generator}
        evidence["witness_lambda"] = number(best.lam)
    return [
        Certificate(
            CLAIM,
            verdict,
            summary,
            evidence,
            tolerance,
            inner.scope(bench) | {"player": "generator", "lambdas": "all: nestedness"},
            _limits(bench, prox),
            (*inner.REFERENCES, "Farnia and Ozdaglar 2020, Proposition 3"),
            "generator",
            witness,
        )
    ]


def bracket(bench: Bench, prox: Prox, tolerance: float) -> tuple[list[Trial], float, Trial | None]:
    """The trials, the upper end of lambda*, and the trial that gives it (None, inf: nothing was found)."""
    settings = bench.settings
    trials: list[Trial] = []
    best: Trial | None = None
    high, low = math.inf, 0.0

    def at(lam: float) -> Trial:
        nonlocal high, low, best
        found = trial(bench, prox, lam, tolerance, hints(prox, best))
        trials.append(found)
        if found.verdict == "refuted":
            high, best = lam, found
            high, best = _lowered(bench, prox, found, tolerance, low, trials)
        elif lam < high:
            low = max(low, lam)  # here the search for the upper end goes on above it
        return found

    first, last = settings.prox_lambdas[0], settings.prox_lambdas[-1]
    if at(math.inf).verdict == "not refuted":
        return trials, high, best
    if high == math.inf or high > last:
        at(last)
    strides = iter((0.9 * math.log1p(settings.prox_width), 6 * math.log1p(settings.prox_width)))
    most = settings.prox_trials * (1 if bench.sampled else 2)
    while len(trials) < most and high > first:
        if high <= max(low, first) * (1 + settings.prox_width):
            break
        if low or bench.sampled:
            lam = math.sqrt(max(low, first) * min(high, last))
        else:  # a known deviation often leaves the upper end close to lambda*: two short strides, then all the way
            lam = max(first, min(high, last) * math.exp(-next(strides, math.inf)))
        if lam in {t.lam for t in trials}:
            break
        at(lam)
    return trials, high, best


def _lowered(
    bench: Bench, prox: Prox, found: Trial, tolerance: float, low: float, trials: list[Trial]
) -> tuple[float, Trial]:
    """A smaller lambda at which the same generator still gains: V_prox falls as lambda does not, so its gain rises
    with lambda. Only where V is exact and concave in D, and a look costs next to nothing."""
    high, best = found.lam, found
    if not getattr(prox, "concave", False) or found.generator is None:
        return high, best
    below = max(low, bench.settings.prox_lambdas[0])
    top = min(high, 1e3 * bench.settings.prox_lambdas[-1])
    for _ in range(12):
        if top <= below * (1 + bench.settings.prox_width / 4):
            break
        middle = math.sqrt(below * top)
        there = scored(bench, prox, middle, found.generator)
        if there.gain.low > tolerance:
            there.verdict, there.searched = "refuted", []
            top = high = middle
            best = there
        else:
            below = middle
    if best is not found:
        trials.append(best)
    return high, best


def hints(prox: Prox, best: Trial | None) -> list[Part]:
    """Where to begin besides: the last deviation that gained, and half of it."""
    if best is None or best.generator is None:
        return []
    return [best.generator, on_ray(prox, best.generator, 0.5)]


def _below(
    bench: Bench, prox: Prox, best: Trial, high: float
) -> tuple[float, list[dict[str, Any]]]:
    """The greatest lambda found at which the deviation loses at every share tried, and the looks."""
    rows: list[dict[str, Any]] = []

    def loses(lam: float) -> bool:
        assert best.generator is not None
        stay = prox.trained["generator"]
        base = prox.measure(stay, prox.trained["critic"], math.inf, "score")
        worst: Interval | None = None
        for share in SHARES:
            sides = []
            for sign in (1, -1):
                moved = on_ray(prox, best.generator, sign * share)
                answer = prox.solve(moved, lam, effort=4)
                sides.append(prox.measure(moved, answer.critic, lam, "score"))
            # Both signs together: what is linear in the deviation, most of the noise, cancels.
            gain = bench.interval(base - (sides[0] + sides[1]) / 2)
            rows.append(
                {
                    "lambda": lam,
                    "share": share,
                    "gain": gain.mean,
                    "interval": [gain.low, gain.high],
                }
            )
            worst = gain if worst is None or gain.high > worst.high else worst
        return worst is not None and worst.high < 0

    low, below, above = 0.0, bench.settings.prox_lambdas[0], high
    if not math.isfinite(above) or best.generator is None:
        above = bench.settings.prox_lambdas[-1]
    if best.generator is None or not loses(below):
        return low, rows
    low = below
    for _ in range(_ROUNDS):
        if above <= below * (1 + bench.settings.prox_width):
            break
        middle = math.sqrt(below * above)
        if loses(middle):
            low = below = middle
        else:
            above = middle
    return low, rows


def _by_regret(trials: list[Trial], tolerance: float) -> list[float | str]:
    """The neighbouring lambdas tried between which V(G*, D*) - V_prox(G, D*) leaves the tolerance: Proposition 2's
    reading, in which the critic's slack counts for the pair."""
    above = [t.lam for t in trials if t.regret.low > tolerance]
    high = min(above, default=math.inf)
    low = [t.lam for t in trials if t.regret.mean <= tolerance and (t.lam < high or not above)]
    return [number(max(low, default=0.0)), number(high)]


def unfit(bench: Bench, claim: str, reason: str) -> Certificate:
    """UNASSESSED: the check does not apply."""
    return Certificate(
        claim,
        Verdict.UNASSESSED,
        f"Not assessed: {reason}.",
        scope=inner.scope(bench),
        references=inner.REFERENCES,
    )


def work(bench: Bench) -> float:
    """Planned minibatch gradients."""
    settings = bench.settings
    if inner.why_not(bench):
        return 1.0
    if not bench.sampled:
        return 400.0 * settings.prox_trials
    ray = 4 * settings.inner_steps * PENALISED + settings.batches * MEASURED
    rays = _ROUNDS * 2 * len(SHARES) * ray
    return POOL * PLAIN + rays + settings.prox_trials * trial_work(bench, extra=2)


def trial_work(bench: Bench, extra: int = 1) -> float:
    """Planned minibatch gradients of one trial on samples."""
    s = bench.settings
    searches = s.prox_starts + min(extra, 1)
    track = s.prox_steps * (s.prox_track * PENALISED + LEAD)
    looks = (2 * searches + extra) * (s.inner_steps * PENALISED + s.look_batches * MEASURED)
    begun = searches * s.inner_steps * PENALISED
    well = 3 * (9 * s.inner_steps * PENALISED + 3 * s.look_batches * MEASURED)
    return searches * track + begun + looks + well + 3 * s.batches * MEASURED


def _limits(bench: Bench, prox: Prox) -> tuple[str, ...]:
    limits = [
        "no search proves that there is no better deviation: the lower end, and a lambda that is not refuted, "
        "stand on the stated budget",
        "the generator's side of Definition 1 only: the critic's slack stands beside it, and where there is slack "
        "this side alone need not be nested",
    ]
    if getattr(prox, "concave", False):
        limits.append("the inner maximum is bounded from above, and the bound was subtracted")
    else:
        limits.append(
            "the inner maximum is by search, from below: a gain counts where it survived four times the inner "
            "steps and a fresh start"
        )
    return tuple(limits)


def number(x: float) -> float | str:
    return x if math.isfinite(x) else "inf"


def _said(gain: Interval) -> str:
    return f"{gain.mean:.3g} ({gain.low:.3g} to {gain.high:.3g})"
