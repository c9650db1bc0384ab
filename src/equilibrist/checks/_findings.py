"""The findings of an audit: what facts, certificates and the record of training show together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from equilibrist.certificates import HOLDS, Json
from equilibrist.checks._implications import measured_gain, reconcile
from equilibrist.checks._ladder import gain_unit, number_or_nan, total_rotation, verdict_of
from equilibrist.checks.certificate import Certificate, Verdict
from equilibrist.checks.facts import Facts
from equilibrist.findings import Finding, numbers_of, ordered, weighed, with_causes

By = dict[str, Certificate]

CHANCE = 0.15  # around one half: a critic whose order of held-out pairs is there is at chance
MUCH = 20.0  # tolerances: what a critic at chance must gain for certain to count as lagging
KEPT = 0.25  # of the best critic's advantage over chance: one that has less is near chance
DIFFER = ("collapsed", "range-mismatch", "normalization-mismatch", "starved-layer")


@dataclass(frozen=True)
class Training:
    """What is known of the training of a run, by this library's own loop.

    Attributes:
        steps: that were taken.
        still: players whose weights are the initial ones, bit for bit.
        broken: players with weights that are not finite.
        diverged: what is wrong with weights that have grown beyond all proportion, in words.
    """

    steps: int
    still: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    diverged: str = ""


def pair_findings(
    certificates: Sequence[Certificate],
    facts: Facts | None = None,
    training: Training | None = None,
) -> tuple[Finding, ...]:
    """What is wrong with a pair, or worth knowing; what to act on first in front.

    Args:
        certificates: of the audit.
        facts: the audit's plain facts; None where losses are exact.
        training: of a run; None where another loop trained the pair, of whose wiring nothing is known.
    """
    by = {c.claim: c for c in reconcile(certificates)}
    found = [] if training is None else _recorded(training)
    if facts is not None:
        # Whose weights moved is known of a run: they need not look so.
        found += [f for f in facts.findings if training is None or f.name != "never-stepped"]
        found += _held_back(by, facts, found)
    return ordered([*with_causes(weighed(found, training is not None)), *_spectrum(by)])


def _recorded(training: Training) -> list[Finding]:
    after = f"after {training.steps:,} steps"
    found = [
        Finding("not-finite", player, f"The {player}'s weights are not finite {after}.")
        for player in training.broken
    ]
    if training.diverged and not found:
        text = f"{training.diverged[:1].upper()}{training.diverged[1:]}".rstrip(".")
        found.append(Finding("step-too-large", "pair", f"{text}.", sure="likely"))
    return found + [
        Finding(
            "never-stepped",
            player,
            f"The {player}'s weights are its first ones, bit for bit, {after}.",
            evidence={"steps": training.steps},
            cure="raise its learning rate until its weights move, and see that its loss depends on them",
        )
        for player in training.still
    ]


def _held_back(by: By, facts: Facts, found: Sequence[Finding]) -> list[Finding]:
    """A critic at chance that could do better: it lags, or it is held back, or it does not look."""
    share, low, high = facts.separation
    critic = by.get("nash/critic")
    if critic is None or facts.constant is not None:
        return []
    if not 0.5 - CHANCE < low <= high < 0.5 + CHANCE:
        return []
    orders = f"The critic is near chance: it orders {share:.1%} of held-out pairs rightly ({low:.1%} to {high:.1%})"
    evidence: Json = {"value": share, "interval": [low, high], "confidence": facts.confidence}
    gain, interval = measured_gain(critic)
    if critic.verdict is Verdict.REFUTED and gain is not None and interval:
        evidence |= {"gain": gain, "gain_interval": list(interval)}
        tolerance = critic.tolerance.value if critic.tolerance else math.inf
        if not (interval[0] >= MUCH * tolerance and _behind(facts, interval[0])):
            return []
        text = f"{orders}, and gains {gain:.3g} {gain_unit(critic)} by moving alone: it does not answer best."
        return [Finding("lagging", "critic", text, "fault", "possible", evidence)]
    if critic.verdict not in HOLDS or not any(f.name in DIFFER for f in found):
        return []
    name, why = (
        ("smothered", "its penalty may hold it back")
        if facts.penalised
        else ("blind", "it may not see what tells them apart")
    )
    text = f"{orders}, although the samples differ and no search found it a gain: {why}."
    return [Finding(name, "critic", text, "warning", "possible", evidence)]


def _behind(facts: Facts, gain: float) -> bool:
    """Whether the critic lacks most of the advantage over a constant score that it has after its gain."""
    if facts.silent is None:
        return True
    own = max(facts.silent - facts.losses["critic"].value, 0.0)
    return own < KEPT * (own + gain)


def _spectrum(by: By) -> list[Finding]:
    """Step sizes and rotation near the pair."""
    stable = by.get("stable")
    if stable is None:
        return []
    e, found = stable.evidence, []
    steps = e.get("steps") if isinstance(e.get("steps"), dict) else {}
    assert isinstance(steps, dict)
    h, limit = number_or_nan(steps.get("h")), number_or_nan(steps.get("h_max", e.get("h_max")))
    if 0 < limit < h:
        found.append(
            Finding(
                "step-too-large",
                "pair",
                f"Plain gradient steps of {h:.3g} leave the pair; by this spectrum, steps below {limit:.3g} would "
                "stay.",
                # Of a pair that moves, the spectrum says what comes next, not where training ends.
                "warning" if verdict_of(by, "stationary") in HOLDS else "note",
                "likely",
                {"value": h, "bound": limit},
                f"lower the learning rate: below {limit:.3g}",
            )
        )
    q, total = number_or_nan(e.get("q")), total_rotation(stable)
    # Where the flow leaves, what turns is not what is wrong: consensus would hold the players there.
    if (total and stable.verdict is not Verdict.REFUTED) or (q > 2 and stable.verdict in HOLDS):
        text = (
            "Rotation is total: an eigenvalue turns without contracting, so that simultaneous gradient steps leave "
            "for every step size."
            if total
            else f"Rotation dominates: an eigenvalue turns {q:.3g} times as fast as it contracts, and simultaneous "
            "steps must be tiny there."
        )
        evidence = numbers_of({"value": e.get("q"), "rotation": e.get("rotation")})
        found.append(Finding("rotation", "pair", text, "note", "likely", evidence, _damped(stable)))
    return found


def _damped(stable: Certificate) -> str:
    """What methods that damp rotation would do to it, by the spectrum."""
    forecast = stable.evidence.get("consensus")
    forecast = forecast if isinstance(forecast, dict) else {}
    gamma, after = number_or_nan(forecast.get("gamma")), number_or_nan(forecast.get("q"))
    if math.isfinite(gamma) and math.isfinite(after):
        return f"by the spectrum, consensus with gamma about {gamma:.2g} brings the ratio to {after:.2g}"
    return ""
