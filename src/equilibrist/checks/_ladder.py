"""The verdicts as one ladder, from "not at rest" to Nash, and where the pair stands on it, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeGuard

from equilibrist.certificates import HOLDS, RUNGS, Rung
from equilibrist.checks._implications import FOLLOWER, LEADER, measured_gain, reconcile
from equilibrist.checks.certificate import Certificate, Verdict
from equilibrist.findings import Finding


def ladder(certificates: Sequence[Certificate]) -> tuple[Rung, ...]:
    """The rungs in order, with their verdicts."""
    by = {c.claim: c for c in reconcile(certificates)}
    return tuple(
        replace(rung, verdict=by[rung.claim].verdict, summary=by[rung.claim].summary)
        if rung.claim in by
        else rung
        for rung in RUNGS
    )


def place(certificates: Sequence[Certificate], first: Finding | None = None) -> str:
    """Where the pair stands, in a few sentences: the finding to act on first, then at rest or not, Nash or not, and
    what holds nearby."""
    by = {c.claim: c for c in reconcile(certificates)}
    opening = [] if first is None else [first.text]
    tests = by.get("self-tests")
    if tests is not None and tests.verdict is not Verdict.VERIFIED:
        return " ".join([*opening, f"No verdict can be had for this pair yet: {tests.summary}"])
    if not any(rung.claim in by for rung in RUNGS):
        if "epsilon-nash" in by:  # a mixed profile has one rung
            return by["epsilon-nash"].summary
        return " ".join([*opening, "No check was asked for that could place the pair."])
    near = _near(by)
    locally = [f"Locally: {'; '.join(near)}."] if near else []
    verdicts = (
        [*locally, *_global(by)] if _only_against_a_frozen_critic(by) else [*_global(by), *locally]
    )
    if not verdicts:
        verdicts = ["The checks that were made do not place the pair: see their summaries."]
    return " ".join([*opening, *verdicts])


def verdict_of(by: dict[str, Certificate], claim: str) -> Verdict | None:
    """The claim's verdict, None where it was not asked for."""
    return by[claim].verdict if claim in by else None


def parts_of(
    by: dict[str, Certificate], claim: str, verdict: Verdict | None = None
) -> list[Certificate]:
    """The claim of each player by itself, where it was asked for; those of one verdict where one is given."""
    parts = [by[name] for p in (LEADER, FOLLOWER) if (name := f"{claim}/{p}") in by]
    return [c for c in parts if verdict in (None, c.verdict)]


def _only_against_a_frozen_critic(by: dict[str, Certificate]) -> bool:
    """Whether all that is gained is the generator's, by large moves: against a critic that stands still many losses
    fall without end (Wasserstein's, the hinge's), so that it says less than what holds nearby."""
    return (
        not moving(by)
        and verdict_of(by, f"nash/{LEADER}") is Verdict.REFUTED
        and verdict_of(by, f"nash/{FOLLOWER}") in HOLDS
        and verdict_of(by, "local-nash") in HOLDS
    )


def _global(by: dict[str, Certificate]) -> list[str]:
    """At rest or not, Nash or not."""
    nash = verdict_of(by, "nash")
    if moving(by):
        sentences = [f"The pair is not at rest, so it is no equilibrium yet{_moves(by)}."]
    else:
        sentences = []
    if nash is Verdict.REFUTED:
        far = (
            " by large moves, while the critic stands still"
            if _only_against_a_frozen_critic(by)
            else ""
        )
        sentences.append(f"Not a Nash equilibrium: {_gains(by)}{far}.")
    elif nash is Verdict.VERIFIED:
        sentences.append("A Nash equilibrium.")
    elif nash is Verdict.NOT_REFUTED and not moving(by):
        sentences.append(
            f"No player was found to gain more than the tolerance{_at_most(by)}: a Nash equilibrium as far as the "
            "searches reach."
        )
    return sentences


def _at_most(by: dict[str, Certificate]) -> str:
    """The tolerance of the Nash claim and the best gain that was found below it."""
    parts = [c for c in parts_of(by, "nash") if c.tolerance is not None]
    if not parts:
        return " by deviating alone"

    def found(c: Certificate) -> float:
        gain = number_or_nan(c.evidence.get("gain"))
        return gain if gain > 0 else 0.0

    most = max(parts, key=found)
    assert most.tolerance is not None
    remarks = f" ({most.tolerance.value:.3g} {gain_unit(most)}) by deviating alone"
    if found(most) > 0.1 * most.tolerance.value:  # what is near the tolerance is worth a word
        remarks += f", though the {most.player} gains {found(most):.3g}"
    return remarks


def moving(by: dict[str, Certificate]) -> bool:
    """Whether a player was shown not to be at rest."""
    return verdict_of(by, "stationary") is Verdict.REFUTED


def _moves(by: dict[str, Certificate]) -> str:
    """What the small moves gain that refute rest, largest first."""
    parts = [
        (gain, c)
        for c in parts_of(by, "stationary", Verdict.REFUTED)
        if (gain := measured_gain(c)[0]) is not None
    ]
    if not parts:
        return ""
    gain, most = max(parts, key=lambda part: part[0])
    return f": a small move of the {most.player} alone gains {gain:.3g} {gain_unit(most)}"


def _gains(by: dict[str, Certificate]) -> str:
    parts = [
        (number_or_nan(c.evidence.get("gain")), c) for c in parts_of(by, "nash", Verdict.REFUTED)
    ]
    remarks = [
        f"the {c.player} gains {gain:.3g} {gain_unit(c)}"
        for gain, c in sorted(parts, key=lambda part: -part[0])
    ]
    return f"{' and '.join(remarks) or 'a player gains'} by deviating alone"


def _near(by: dict[str, Certificate]) -> list[str]:
    """What holds near the pair, as clauses."""
    near = []
    local, nash = verdict_of(by, "local-nash"), verdict_of(by, "nash")
    if local is Verdict.REFUTED and not moving(by):
        near.append("a small move of one player alone already gains")
    elif local is Verdict.VERIFIED:
        near.append("it is a local Nash equilibrium")
    elif local is Verdict.NOT_REFUTED and nash is not Verdict.NOT_REFUTED:
        near.append("no small move of one player alone was found to gain more than the tolerance")
    lagging = verdict_of(by, f"local-nash/{FOLLOWER}") is Verdict.REFUTED
    words = proximal_words(by.get("proximal"))
    proximal, minimax = verdict_of(by, "proximal"), verdict_of(by, "local-minimax")
    if lagging:
        near.append("the critic does not answer best, so it is neither minimax nor proximal")
    elif words and proximal in HOLDS and local not in HOLDS:
        near.append(f"it is {words}")
    elif proximal is Verdict.REFUTED:
        near.append("it is proximal for no lambda: Stackelberg at best")
    if minimax is Verdict.REFUTED and not lagging:
        near.append("it is not minimax either")
    elif minimax in HOLDS and local not in HOLDS and not words and not lagging:
        near.append(
            "it holds as a local minimax (Stackelberg) point, where the critic answers at once"
        )
    return [*near, *_stability(by)]


def _stability(by: dict[str, Certificate]) -> list[str]:
    stable = by.get("stable")
    if stable is None or moving(by):
        return []
    if stable.verdict is Verdict.REFUTED:
        # Otherwise another line says already that no small move gains more.
        slow = all(verdict_of(by, claim) in HOLDS for claim in ("local-nash", "nash"))
        return [
            "gradient flow leaves it, though small moves gain less than the tolerance"
            if slow
            else "gradient flow leaves it"
        ]
    if total_rotation(stable):
        leaves = "simultaneous steps of any size leave it"
        # Where it is not known whether the flow leaves, that it circles is not known either.
        unknown = stable.verdict is Verdict.UNASSESSED
        return [leaves if unknown else f"gradient flow circles it, and {leaves}"]
    if stable.verdict is Verdict.VERIFIED:
        return ["gradient flow comes back to it"]
    # Where it is unknown whether the pair is at rest, a search that found no gain is no headline.
    if (
        stable.verdict is Verdict.NOT_REFUTED
        and verdict_of(by, "stationary") is not Verdict.UNASSESSED
    ):
        return ["gradient flow was not found to leave it"]
    return []


def total_rotation(stable: Certificate) -> bool:
    """Whether an eigenvalue turns without contracting at all."""
    q = stable.evidence.get("q")
    return stable.evidence.get("rotation") == "total" or (isinstance(q, float) and math.isinf(q))


def proximal_words(found: Certificate | None) -> str:
    """lambda* in words; "" where it is infinite (a local Nash equilibrium), zero or unknown."""
    if found is None or "lambda_star" not in found.evidence or found.evidence.get("infinite"):
        return ""
    low, high = found.evidence["lambda_star"]
    if not (is_finite_number(low) and low > 0):
        return ""
    several = is_finite_number(high) and high > 1.005 * low
    return f"lambda-proximal up to lambda* = {low:.3g}" + (f" to {high:.3g}" if several else "")


def gain_unit(certificate: Certificate) -> str:
    """The unit of a certificate's gains."""
    unit = certificate.tolerance.unit if certificate.tolerance else ""
    return unit.partition(" per ")[0]


def is_finite_number(value: object) -> TypeGuard[float]:
    """Whether a piece of evidence is a finite number."""
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)


def number_or_nan(value: object) -> float:
    """The number, or NaN, for which every comparison is False."""
    return float(value) if is_finite_number(value) else math.nan
