"""lambda*, the largest lambda at which the pair is a proximal equilibrium, bracketed by search."""

from __future__ import annotations

import math

from equilibrist.checks._decide import Interval
from equilibrist.checks.certificate import Certificate, Json, Verdict
from equilibrist.checks.context import AuditContext, Meter, Tick, no_tick
from equilibrist.checks.proximal import inner
from equilibrist.checks.proximal._bracket import Bracket, bracket_within
from equilibrist.checks.proximal._costs import MEASURED, PLAIN, POOL, trial_work, well_work
from equilibrist.checks.proximal.inner import Prox
from equilibrist.checks.proximal.trial import Trial, hints, json_number, scored, trial, verdict_of

CLAIM = "lambda-search"


def lambda_search(context: AuditContext, tick: Tick = no_tick) -> list[Certificate]:
    """Certificate "lambda-search": lambda* as an interval, the generator's side of Definition 1.

    A pair that is no lambda-proximal equilibrium is not one for any greater lambda either (Proposition 3), so
    lambda* is bracketed. The upper end is the least lambda at which a generator was seen to gain more than the
    tolerance though the critic answered (`trial`).

    Where losses are exact: lambda = inf (Nash), the greatest of `prox_lambdas`, two short strides downwards, the
    least of `prox_lambdas`, then geometric middles. The lower end is the greatest lambda at which the searches found
    nothing. On samples finding nothing says little near lambda*: the lower end is the greatest lambda at which every
    deviation that was found is seen to lose, 0 where noise hides that (`bracket_sampled`).

    REFUTED: a generator gains at the least lambda tried: an equilibrium of no such lambda.
    NOT_REFUTED: an interval was found. UNASSESSED: noise, or failed searches, left no lambda assessed.
    """
    if reason := inner.why_not_judged(context):
        return [inner.unfit(context, CLAIM, reason)]
    tolerance = context.tolerance()
    settings, cut = context.settings, False
    meter = Meter(tick)
    prox = inner.prox_of(context, meter)
    if not context.sampled:
        found = bracket(context, prox, tolerance.value)
    else:
        if settings.gradients:
            meter.most = planned_gradients(context) - _slack_work(context)
        found, cut = bracket_within(context, prox, tolerance.value, meter)
    best, slack = found.best, _slack(context, prox)
    verdict, summary = _judged(context, found, tolerance.value)
    if cut:
        summary += " The budget was spent before the search had ended."
    evidence = _evidence(context, found, tolerance.value) | {
        "slack": slack.mean,
        "slack_interval": slack.ends,
        "cut_short": cut,
    }
    witness = None
    if best is not None and best.generator is not None:
        witness = {"generator": best.generator}
        evidence["witness_lambda"] = json_number(best.lam)
    return [
        Certificate(
            CLAIM,
            verdict,
            summary,
            evidence,
            tolerance,
            inner.scope(context) | {"player": "generator", "lambdas": "all: nestedness"},
            _limits(context, prox),
            (*inner.REFERENCES, "Farnia and Ozdaglar 2020, Proposition 3"),
            "generator",
            witness,
        )
    ]


def _slack(context: AuditContext, prox: Prox) -> Interval:
    """The critic's own slack, its reach unbounded: lambda = 0."""
    stay = prox.trained["generator"]
    answer = inner.solve_well(prox, stay, 0.0, staying=False).answer
    held = prox.measure(stay, prox.trained["critic"], math.inf, "score")
    return context.interval(prox.measure(stay, answer.critic, 0.0, "score") - held)


def _judged(context: AuditContext, found: Bracket, tolerance: float) -> tuple[Verdict, str]:
    """The verdict on "a proximal equilibrium of some lambda that was tried", and its sentence. Each trial's own
    verdict is `decide`'s; here the bracket says where they change."""
    low, high, best, unit = found.low, found.high, found.best, context.unit
    if all(t.verdict is Verdict.UNASSESSED for t in found.trials):
        why = next((t.failed for t in found.trials if t.failed), "the noise is above the tolerance")
        return Verdict.UNASSESSED, f"lambda* could not be bracketed: {why}."
    if best is None:
        return Verdict.NOT_REFUTED, (
            f"No search found a generator that gains more than {tolerance:.3g} {unit} up to lambda = "
            f"{json_number(low)}: lambda* is not below it, as far as this search can tell."
        )
    gained = best.gain.in_words()
    if high <= context.settings.prox_lambdas[0]:
        return Verdict.REFUTED, (
            f"A generator gains {gained} {unit} even at lambda = {best.lam:.3g}, though the critic "
            "answers: a proximal equilibrium of no lambda that was tried."
        )
    return Verdict.NOT_REFUTED, (
        f"lambda* lies between {low:.4g} and {high:.4g}: beyond, a generator gains {gained} "
        f"{unit} though the critic answers; below, none was found to."
    )


def _evidence(context: AuditContext, found: Bracket, tolerance: float) -> Json:
    low, high = found.low, found.high
    losing = context.sampled and found.best is not None
    return {
        "interval": [json_number(low), json_number(high)],
        "lower_end": "the greatest lambda at which every deviation found is seen to lose"
        if losing
        else "the greatest lambda at which no search found a gain",
        "interval_proposition_2": _by_regret(found.trials, tolerance),
        "width": (high - low) / high if 0 < high < math.inf and low < math.inf else None,
        "trials": [t.row() for t in found.trials],
        "losses": found.losses,
        "unit": context.unit,
        "confidence": context.settings.confidence,
    }


def bracket(context: AuditContext, prox: Prox, tolerance: float) -> Bracket:
    """lambda* where losses are exact."""
    settings = context.settings
    found = Bracket()

    def at(lam: float) -> Trial:
        deviation = None if found.best is None else found.best.deviation
        tried = trial(context, prox, lam, tolerance, hints(prox, deviation))
        found.trials.append(tried)
        if tried.verdict is Verdict.REFUTED:
            found.high, found.best = lam, tried
            _lowered(context, prox, found, tolerance)
        elif lam < found.high:
            found.low = max(found.low, lam)  # here the search for the upper end goes on above it
        return tried

    first, last = settings.prox_lambdas[0], settings.prox_lambdas[-1]
    if at(math.inf).verdict is not Verdict.NOT_REFUTED:
        if found.high == math.inf or found.high > last:
            at(last)
        strides = iter((0.9 * math.log1p(settings.prox_width), 6 * math.log1p(settings.prox_width)))
        while len(found.trials) < 2 * settings.prox_trials and found.high > first:
            low, high = found.low, found.high
            if high <= max(low, first) * (1 + settings.prox_width):
                break
            if low:
                lam = math.sqrt(max(low, first) * min(high, last))
            else:  # a known deviation often leaves the upper end close to lambda*: two short strides, then all the way
                lam = max(first, min(high, last) * math.exp(-next(strides, math.inf)))
            if lam in {t.lam for t in found.trials}:
                break
            at(lam)
    held = [t.lam for t in found.trials if t.verdict is Verdict.NOT_REFUTED]
    found.low = max(held, default=0.0)
    return found


def _lowered(context: AuditContext, prox: Prox, found: Bracket, tolerance: float) -> None:
    """A smaller lambda at which the same generator still gains: V_prox falls as lambda does not, so its gain rises
    with lambda. Only where V is concave in D, and a look costs next to nothing."""
    first = found.best
    if not getattr(prox, "concave", False) or first is None or first.deviation is None:
        return
    below = max(found.low, context.settings.prox_lambdas[0])
    top = min(found.high, 1e3 * context.settings.prox_lambdas[-1])
    for _ in range(12):
        if top <= below * (1 + context.settings.prox_width / 4):
            break
        middle = math.sqrt(below * top)
        there = scored(context, prox, middle, first.deviation)
        there.verdict = verdict_of(there, tolerance)
        if there.verdict is Verdict.REFUTED:
            top = found.high = middle
            found.best = there
        else:
            below = middle
    if found.best is not first and found.best is not None:
        found.trials.append(found.best)


def _by_regret(trials: list[Trial], tolerance: float) -> list[float | str]:
    """The neighbouring lambdas tried between which V(G*, D*) - V_prox(G, D*) leaves the tolerance: Proposition 2's
    reading, in which the critic's slack counts for the pair."""
    above = [t.lam for t in trials if t.regret.low > tolerance]
    high = min(above, default=math.inf)
    low = [t.lam for t in trials if t.regret.mean <= tolerance and (t.lam < high or not above)]
    return [json_number(max(low, default=0.0)), json_number(high)]


def planned_gradients(context: AuditContext) -> float:
    """Planned minibatch gradients."""
    settings = context.settings
    if inner.why_not(context):
        return 1.0
    if not context.sampled:
        return 400.0 * settings.prox_trials
    trials = POOL * PLAIN + settings.prox_trials * trial_work(context, extra=2)
    if settings.gradients:  # what the ends take is not known: it is bounded
        return 1.5 * trials + _slack_work(context)
    return trials


def _slack_work(context: AuditContext) -> float:
    """What the critic's own slack takes, and what a step that is being counted may exceed."""
    return well_work(context) + 4 * context.settings.batches * MEASURED


def _limits(context: AuditContext, prox: Prox) -> tuple[str, ...]:
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
