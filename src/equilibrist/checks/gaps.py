"""Duality gap and proximal duality gap, by searched best responses: signed, on held-out samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from equilibrist.checks._decide import Interval, decide
from equilibrist.checks.certificate import Certificate, Json, Tolerance, Verdict
from equilibrist.checks.context import AuditContext, Tick, no_tick
from equilibrist.checks.proximal import inner
from equilibrist.checks.proximal._costs import MEASURED, PLAIN, POOL, trial_work, well_work
from equilibrist.checks.proximal.inner import Part, Prox, solve_well
from equilibrist.checks.proximal.trial import Trial, json_number, trial

CLAIMS = {"duality-gap": math.inf, "proximal-duality-gap": None}
REFERENCES = (
    "duality gap: Grnarova et al. 2019, A domain agnostic measure for monitoring and evaluating GANs, section 3",
    "proximal duality gap: Sidheekh et al. 2021, On characterizing GAN convergence through proximal duality gap",
    "V_prox: Farnia and Ozdaglar 2020, equation 11",
)


@dataclass
class _Response:
    """A searched best response: what it gains on the score part, and whether the search did its work."""

    gain: Interval
    status: str
    part: Part | None

    @property
    def failed(self) -> bool:
        return self.status.startswith("failed")

    def describe(self) -> Json:
        """Plain values."""
        return {"gain": self.gain.mean, "interval": self.gain.ends, "status": self.status}


def duality_gaps(context: AuditContext, tick: Tick = no_tick) -> list[Certificate]:
    """Certificates "duality-gap" and "proximal-duality-gap".

        DG        = max over D of V(G*, D) - min over G of V(G, D*)
        DG_lambda = max over D of V(G*, D) - min over G of V_prox(G, D*)

    at lambda = `prox_lambda`. (Definition 1's first maximum, of V_prox(G*, .) over critics, is max_D V(G*, D): the
    best critic is at distance 0 of itself.) Each is the sum of what two best responses gain:
    max_D V(G*, D) - V(G*, D*), the critic's slack, and r(lambda) = V(G*, D*) - min_G V_prox(G, D*), r(inf) for DG.
    They are searched for on the optimise part, chosen on the selection part and scored on the score part.

    No absolute value is taken. A response that scores below zero by more than the tolerance, or whose
    search was non-finite or ended below where it began, failed: the gap is then reported as failed, and the
    sum of what was measured is given all the same.

    REFUTED: the interval's lower end is above the tolerance: not a (proximal) equilibrium. UNASSESSED: a
    response failed, or noise. NOT_REFUTED: else; searches give gaps from below.
    """
    if reason := inner.why_not_judged(context):
        return [inner.unfit(context, claim, reason) for claim in CLAIMS]
    tolerance = context.tolerance()
    prox = inner.prox_of(context, tick)
    critic = _critic(context, prox, tolerance.value)
    certificates = []
    for claim, fixed in CLAIMS.items():
        lam = context.settings.prox_lambda if fixed is None else fixed
        found = trial(context, prox, lam, tolerance.value)
        certificates.append(_certificate(context, prox, claim, lam, critic, found, tolerance))
    return certificates


def _critic(context: AuditContext, prox: Prox, tolerance: float) -> _Response:
    stay, trained = prox.trained["generator"], prox.trained["critic"]
    solved = solve_well(prox, stay, 0.0, staying=False)  # a search that fails must be seen to
    now = prox.measure(stay, trained, math.inf, "score")
    found = solved.answer.critic
    gain = context.interval(prox.measure(stay, found, math.inf, "score") - now)
    return _Response(gain, _status(gain, tolerance), found)


def _generator(found: Trial, tolerance: float) -> _Response:
    status = f"failed: {found.failed}" if found.failed else _status(found.regret, tolerance)
    if found.lam < math.inf and not found.failed and status.startswith("failed"):
        # r may well be negative: the critic's slack within reach counts against it.
        status = "nothing found" if found.gain.high >= -tolerance else status
    return _Response(found.regret, status, found.generator)


def _status(gain: Interval, tolerance: float) -> str:
    if not all(map(math.isfinite, (gain.mean, gain.low, gain.high))):
        return "failed: the value is not finite"
    if gain.high < -tolerance:
        return f"failed: the best response found loses {-gain.mean:.3g}"
    return "found" if gain.low > 0 else "nothing found"


def _certificate(
    context: AuditContext,
    prox: Prox,
    claim: str,
    lam: float,
    critic: _Response,
    found: Trial,
    tolerance: Tolerance,
) -> Certificate:
    generator, settings = _generator(found, tolerance.value), context.settings
    stay = prox.trained["generator"]
    best = prox.measure(stay, critic.part or prox.trained["critic"], math.inf, "score")
    least = prox.measure(found.generator or stay, found.critic, lam, "score")
    paired = context.interval(best - least)  # both on the same batches
    gap = Interval(paired.mean, paired.low - (found.gap or 0.0), paired.high)
    responses = {"critic": critic, "generator": generator}
    verdict, text = _judged(context, lam, gap, responses, tolerance)
    witness = {"generator": found.generator or stay, "critic": critic.part or {}}
    evidence: Json = {
        "gap": gap.mean,
        "interval": gap.ends,
        "lambda": json_number(lam),
        "critic": critic.describe(),
        "generator": {
            **generator.describe(),
            "searched": found.searched,
            "inner_values": found.reached,
            "inner_gap_bound": found.gap,
        },
        "budget": {
            "generator_searches": settings.prox_starts,
            "generator_steps": settings.prox_steps,
            "critic_steps": 4 * settings.inner_steps,
        }
        if context.sampled
        else {"generator_searches": settings.prox_starts, "critic": "to convergence"},
        "unit": context.unit,
        "confidence": settings.confidence,
    }
    return Certificate(
        claim,
        verdict,
        text,
        evidence,
        tolerance,
        inner.scope(context),
        (
            "best responses by search give the duality gap from below",
            "the minimum over generators of V_prox is of a maximum by search: see the inner values"
            if found.gap is None
            else "the inner maximum is bounded from above, and the bound was subtracted",
        ),
        REFERENCES,
        witness=witness if verdict is Verdict.REFUTED else None,
    )


def _judged(
    context: AuditContext,
    lam: float,
    gap: Interval,
    responses: dict[str, _Response],
    tolerance: Tolerance,
) -> tuple[Verdict, str]:
    """The verdict on "the gap is at most the tolerance", and its sentence."""
    name = "duality gap" if math.isinf(lam) else f"proximal duality gap (lambda = {lam:g})"
    span, failed = gap.in_words(context.unit), [p for p in responses if responses[p].failed]
    if failed:
        whose = "; ".join(f"the {p}'s best response {responses[p].status}" for p in failed)
        summary = f"The {name} failed: {whose}. What was measured adds up to {span}."
        return Verdict.UNASSESSED, summary
    # The lower end also holds the bound of what answers miss: the noise is the upper half.
    decision = decide(gap, tolerance.value, noise=gap.high - gap.mean)
    parts = (
        f"the critic gains {responses['critic'].gain.mean:.3g}, the generator "
        f"{responses['generator'].gain.mean:.3g}"
    )
    if decision.verdict is Verdict.REFUTED:
        return Verdict.REFUTED, f"The {name} is {span}: {parts}."
    if decision.verdict is Verdict.UNASSESSED:
        summary = (
            f"The {name} is {span}: the noise hides whether it is above {tolerance.value:.3g}."
        )
        return Verdict.UNASSESSED, summary
    summary = f"The {name} is {span}, no more than the tolerance of {tolerance.value:.3g}: {parts}."
    return Verdict.NOT_REFUTED, summary


def planned_gradients(context: AuditContext) -> float:
    """Planned minibatch gradients."""
    if inner.why_not(context):
        return 1.0
    if not context.sampled:
        return 1000.0
    s = context.settings
    if s.gradients:
        least = 12 * s.batches * MEASURED
        return POOL * PLAIN + 2 * trial_work(context, extra=0) + well_work(context) + least
    return POOL * PLAIN + 2 * trial_work(context, extra=0) + 9 * s.inner_steps * PLAIN
