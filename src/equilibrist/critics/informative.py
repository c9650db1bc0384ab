"""Informative: the reward that a generator gets still varies where its samples are."""

from __future__ import annotations

import math

import torch

from equilibrist.certificates import Json
from equilibrist.checks import Certificate, Interval, Tolerance, Verdict, decide
from equilibrist.checks.context import student
from equilibrist.critics._case import TELLS, CriticCase
from equilibrist.critics._rates import wilson
from equilibrist.critics._reward import FLAT, Reward

CLAIM, STATE = "informative", "uninformative"
MOST = 0.9  # of generated samples without slope: a critic that answers the hinge loss best is flat at many
LEAST = 0.02  # of the difference of rewards between real and generated: the standard deviation among generated samples
TOLERANCE = Tolerance(
    MOST, "of generated samples", "more without slope, and hardly anything is left to follow"
)
LIMITS = (
    f"a sample is without slope where the reward changes under {FLAT:g} times as fast as along a straight line between "
    "the rewards of generated and real samples by the best critic of the class under the same loss",
)


def informative(case: CriticCase, reward: Reward) -> Certificate:
    """The certificate."""
    fields: Json = {
        "tolerance": TOLERANCE,
        "scope": {**case.scope(), "reward": reward.words},
        "limits": LIMITS,
        "player": "critic",
    }
    free = case.unpenalised is not None and case.bounded
    names = ["trained on", "fresh", *(["freed of its penalty"] if free else [])]
    best = max(names, key=case.order_on_select)
    apart = case.separation(best)
    spread = _spread(case, reward)
    evidence: Json = {"reward_spread": spread, "confidence": case.of_states}
    if apart.low <= TELLS and case.separation("own").low <= TELLS:
        summary = (
            "Not assessed: no critic was found that tells the samples apart, so there is nothing that a reward could "
            "say of them."
        )
        return Certificate(CLAIM, Verdict.UNASSESSED, summary, evidence, **fields)
    found = reward.without_slope("own", best if apart.low > TELLS else "own")
    if found is None:
        summary = "Not assessed: the critic's samples are whole numbers, along which a score has no slope."
        return Certificate(CLAIM, Verdict.UNASSESSED, summary, evidence, **fields)
    share = wilson(found.share, found.count, case.of_states)
    squares = student(torch.from_numpy(found.varies), case.of_states)
    varies = Interval(*(math.sqrt(max(v, 0.0)) for v in (squares.mean, squares.low, squares.high)))
    verdict = decide(share, MOST, exhaustive=True).verdict
    if varies.high < LEAST:
        verdict = Verdict.REFUTED
    elif varies.low < LEAST and verdict is Verdict.VERIFIED:
        verdict = Verdict.UNASSESSED
    evidence |= {
        "share": share.mean,
        "interval": share.ends,
        "unit": TOLERANCE.unit,
        "median_slope": found.median,
        "no_reward": found.none,
        "variation": varies.mean,
        "variation_interval": varies.ends,
    }
    return Certificate(CLAIM, verdict, _summary(verdict, reward, share, varies), evidence, **fields)


def _summary(verdict: Verdict, reward: Reward, share: Interval, varies: Interval) -> str:
    flat = f"{reward.name} is flat at {share.mean:.0%} ({share.low:.0%} to {share.high:.0%}) of the generated samples"
    among = (
        f"its standard deviation among generated samples is {varies.mean:.2g} ({varies.low:.2g} to {varies.high:.2g}) "
        "times what the best critic's differs between real and generated ones"
    )
    if verdict is Verdict.REFUTED and varies.high < LEAST:
        return f"The reward is uninformative: {among}."
    if verdict is Verdict.REFUTED:
        return f"The reward is uninformative: {flat}."
    if verdict is Verdict.UNASSESSED:
        return f"Cannot tell whether the reward is informative: {flat}, and {among}."
    return f"Informative: {flat}, and {among}."


def _spread(case: CriticCase, reward: Reward) -> float:
    return float(reward.at(case.critic, case.held_out[1]).std())
