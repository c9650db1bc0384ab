"""Informative: the reward that a generator gets still varies where its samples are."""

from __future__ import annotations

from typing import Any

from equilibrist.checks import Certificate, Tolerance, Verdict, decide
from equilibrist.critics._case import TELLS, Case
from equilibrist.critics._rates import wilson
from equilibrist.critics._reward import FLAT, Reward

CLAIM, STATE = "informative", "uninformative"
MOST = 0.9  # of generated samples without slope: a critic that answers the hinge loss best is flat at many
TOLERANCE = Tolerance(
    MOST, "of generated samples", "more without slope, and hardly anything is left to follow"
)
LIMITS = (
    f"a sample is without slope where the reward changes under {FLAT:g} times as fast as along a straight line between "
    "the rewards of generated and real samples by the best critic of the class under the same loss",
)


def informative(case: Case, reward: Reward) -> Certificate:
    """The certificate."""
    fields: dict[str, Any] = {
        "tolerance": TOLERANCE,
        "scope": {**case.scope(), "reward": reward.words},
        "limits": LIMITS,
        "player": "critic",
    }
    free = case.freed is not None and case.bounded
    names = ["trained on", "fresh", *(["freed of its penalty"] if free else [])]
    best = max(names, key=lambda name: case.separation(name).mean)
    apart = case.separation(best)
    spread = _spread(case, reward)
    evidence: dict[str, Any] = {"reward_spread": spread, "confidence": case.of_states}
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
    verdict = decide(share, MOST, exhaustive=True).verdict
    evidence |= {
        "share": share.mean,
        "interval": share.ends,
        "unit": TOLERANCE.unit,
        "median_slope": found.median,
        "no_reward": found.none,
    }
    flat = (
        f"{reward.name} is flat at {share.mean:.0%} ({share.low:.0%} to {share.high:.0%}) of the generated samples "
        f"(standard deviation {spread:.3g})"
    )
    summary = {
        Verdict.REFUTED: f"The reward is uninformative: {flat}.",
        Verdict.UNASSESSED: f"Cannot tell whether the reward is informative: {flat}.",
    }.get(verdict, f"Informative: {flat}, and varies at the others.")
    return Certificate(CLAIM, verdict, summary, evidence, **fields)


def _spread(case: Case, reward: Reward) -> float:
    return float(reward.at(case.critic, case.held_out[1]).std())
