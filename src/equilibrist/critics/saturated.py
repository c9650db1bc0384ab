"""Saturated: the critic separates nearly all held-out pairs, and has no slope where the generated samples are."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from equilibrist.certificates import Json
from equilibrist.checks import Certificate, Chart, Interval, Tolerance, Verdict, decide
from equilibrist.critics._case import CriticCase, Measured
from equilibrist.critics._rates import wilson
from equilibrist.critics._reward import FLAT, Reward

CLAIM, STATE = "not-saturated", "saturated"
SAME = 5e-7  # of the largest score: scores in float32 that differ by less are the same
SEPARATES = 0.98  # of held-out pairs ordered rightly: nearly all
WITHOUT = 0.2  # of generated samples without slope: what leaves a generator without a signal
LIMITS = (
    f"a sample is without slope where the reward changes under {FLAT:g} times as fast as along a straight line from "
    "the generated samples' reward to the real ones'",
    "of the critic's own scores and the samples that were given: no search",
)


def saturated(case: CriticCase, reward: Reward) -> Certificate:
    """The certificate."""
    separation = case.separation("own")
    found = reward.without_slope("own", "own")
    tolerance = Tolerance(
        WITHOUT, "of generated samples", f"where over {SEPARATES:.0%} of pairs are told apart"
    )
    evidence: Json = {
        "constant": _constant(case.measured("own")),
        "separation": separation.mean,
        "separation_interval": separation.ends,
        "confidence": case.of_states,
    }
    fields: Json = {
        "tolerance": tolerance,
        "scope": {**case.scope(), "reward": reward.words},
        "limits": LIMITS,
        "player": "critic",
    }
    if found is None:
        summary = "Not assessed: the critic's samples are whole numbers, along which a score has no slope."
        if separation.high < SEPARATES:
            summary = f"Not saturated: it orders {_percent(separation)} of held-out pairs rightly."
            return Certificate(CLAIM, Verdict.VERIFIED, summary, evidence, **fields)
        return Certificate(CLAIM, Verdict.UNASSESSED, summary, evidence, **fields)
    share = wilson(found.share, found.count, case.of_states)
    evidence |= {
        "share": share.mean,
        "interval": share.ends,
        "unit": "of generated samples",
        "median_slope": found.median,
        "no_reward": found.none,
    }
    decision = decide(share, WITHOUT, exhaustive=True)
    verdict = decision.verdict
    if separation.high < SEPARATES:
        verdict = Verdict.VERIFIED
    elif separation.low < SEPARATES and verdict is Verdict.REFUTED:
        verdict = Verdict.UNASSESSED
    return Certificate(
        CLAIM,
        verdict,
        _summary(verdict, separation, share, reward),
        evidence,
        chart=_chart(found.slopes),
        **fields,
    )


def _summary(verdict: Verdict, separation: Interval, share: Interval, reward: Reward) -> str:
    apart = f"it separates {_percent(separation)} of held-out pairs"
    flat = (
        f"{reward.name} has no slope at {share.mean:.0%} ({share.low:.0%} to {share.high:.0%}) of the generated "
        "samples"
    )
    if verdict is Verdict.REFUTED:
        return f"The critic is saturated: {apart}, and {flat}."
    if verdict is Verdict.UNASSESSED:
        return f"Cannot tell whether the critic is saturated: {apart}; {flat}."
    if separation.mean >= SEPARATES:
        return f"Not saturated: {apart}, but {flat} only."
    return f"Not saturated: {apart}, not nearly all."


def _constant(own: Measured) -> float | None:
    """The score that all samples have, to rounding."""
    scores = torch.cat([own.real.flatten(), own.fake.flatten()])
    low, high = (float(end) for end in torch.aminmax(scores))
    return high if high - low <= SAME * max(abs(low), abs(high)) else None


def _percent(share: Interval) -> str:
    return f"{share.mean:.1%} ({share.low:.1%} to {share.high:.1%})"


def _chart(slopes: NDArray[np.float64]) -> Chart | None:
    """The slopes at the generated samples, smallest first."""
    values = np.sort(slopes)
    if len(values) < 2:
        return None
    at = np.unique(np.linspace(0, len(values) - 1, 60).round().astype(int))
    share = tuple(float(100 * k / (len(values) - 1)) for k in at)
    return Chart(
        share,
        {
            "slope at generated samples": tuple(float(values[k]) for k in at),
            "what counts as none": (FLAT,) * len(at),
        },
        "generated samples, per cent, flattest first",
        f"Slopes relative to a straight line, from {values[0]:.2g} to {values[-1]:.2g}",
    )
