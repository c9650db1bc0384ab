"""Memorising: the samples that the critic was trained on score differently from others of the same law."""

from __future__ import annotations

from equilibrist.certificates import Json
from equilibrist.checks import Certificate, Interval, Tolerance, Verdict, decide
from equilibrist.critics._case import CriticCase
from equilibrist.critics._rates import share_ordered

CLAIM, STATE = "not-memorising", "memorising"
BEYOND = 0.05  # of pairs above one half: how much more often its own samples may come first
TOLERANCE = Tolerance(
    BEYOND, "of pairs, above one half", "its own samples would come first in half of them"
)
LIMITS = (
    "samples that it was trained on and held-out ones must be of one law: a difference of laws looks the same",
)


def memorising(case: CriticCase) -> Certificate:
    """The certificate: UNASSESSED, with the argument's name, without the samples that it was trained on."""
    fields: Json = {"scope": case.scope(), "limits": LIMITS, "player": "critic"}
    if case.samples.train_real is None and case.samples.train_fake is None:
        summary = (
            "Not assessed: pass the real samples that the critic was trained on (train_real=)."
        )
        return Certificate(CLAIM, Verdict.UNASSESSED, summary, {}, TOLERANCE, **fields)
    sides = 2 if case.samples.train_real is not None and case.samples.train_fake is not None else 1
    confidence = 1 - (1 - case.of_states) / sides
    found: dict[str, Interval] = {}
    real, fake = case.own_scores
    if case.samples.train_real is not None:
        own = case.sign * case.scores(case.critic, case.samples.train_real.batch)
        found["real"] = _less(share_ordered(own, real, confidence))
    if case.samples.train_fake is not None:
        own = case.sign * case.scores(case.critic, case.samples.train_fake.batch)
        found["generated"] = _less(share_ordered(fake, own, confidence))
    kind = max(found, key=lambda k: found[k].low)
    worst = found[kind]
    verdict = decide(worst, BEYOND, exhaustive=True).verdict
    if verdict is Verdict.VERIFIED and any(i.high > BEYOND for i in found.values()):
        verdict = Verdict.UNASSESSED
    evidence: Json = {
        "excess": worst.mean,
        "interval": worst.ends,
        "confidence": confidence,
        "unit": TOLERANCE.unit,
        **{f"{k}_above_half": i.mean for k, i in found.items()},
        **{f"{k}_above_half_interval": i.ends for k, i in found.items()},
    }
    shares = [f"{0.5 + x:.0%}" for x in (worst.mean, worst.low, worst.high)]
    how = (
        f"the {kind} samples that it was trained on score as more {kind} than held-out ones in {shares[0]} "
        f"({shares[1]} to {shares[2]}) of pairs"
    )
    summary = {
        Verdict.REFUTED: f"The critic is memorising: {how}.",
        Verdict.UNASSESSED: f"Cannot tell whether the critic memorises: {how}.",
    }.get(verdict, f"Not memorising: {how}.")
    return Certificate(CLAIM, verdict, summary, evidence, TOLERANCE, **fields)


def _less(share: Interval) -> Interval:
    """A share of pairs, less the half that chance gives."""
    return Interval(share.mean - 0.5, share.low - 0.5, share.high - 0.5)
