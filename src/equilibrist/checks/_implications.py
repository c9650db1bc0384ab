"""What verdicts imply of each other, written down once: the ladder, the headline and the advice follow from it.

A row carries a refutation, with its witness, from one claim to another; or it withholds a claim that the evidence of
another does not allow. Both sides use the same tolerance, the same relative move and the same iterate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from equilibrist.certificates import HOLDS
from equilibrist.checks.certificate import WHOLE, Certificate, Verdict, least_settled
from equilibrist.core.game import Players

LEADER, FOLLOWER = "generator", "critic"


@dataclass(frozen=True)
class Implication:
    """One implication.

    Attributes:
        premise: the claim that is refuted. "{player}" stands for each player.
        consequence: the claim that follows.
        refutes: whether the consequence is refuted too, by the premise's witness; else it is withheld:
            UNASSESSED instead of VERIFIED or NOT_REFUTED.
        why: the reason, in words.
        value: whether it holds for the zero-sum V alone: then the premise must be of a player whose own loss is V
            or -V.
        witnessed: whether the premise must hold a witness that was evaluated (a gain that a gradient promises is not
            one).
        verified: whether only VERIFIED is withheld: a search that found nothing says what it says.
        by: the player whose deviation must have refuted the premise; "" for any.
    """

    premise: str
    consequence: str
    refutes: bool
    why: str
    value: bool = False
    witnessed: bool = False
    verified: bool = False
    by: str = ""


# Farnia and Ozdaglar 2020, inequalities (2) and Propositions 2 and 3; Jin, Netrapalli and Jordan 2020, section 2.
IMPLICATIONS = (
    Implication(
        "stationary/{player}",
        "local-nash/{player}",
        True,
        "a small move down the gradient gains",
        witnessed=True,
    ),
    Implication(
        "stationary/{player}",
        "local-nash/{player}",
        False,
        "second order decides only where first order is settled",
    ),
    Implication(
        "stationary/{player}",
        "nash/{player}",
        True,
        "a small move down the gradient gains",
        witnessed=True,
    ),
    Implication(
        "stationary/{player}",
        "nash/{player}",
        False,
        "the player is not at rest, and what the move down its gradient gains was not evaluated",
        verified=True,
    ),
    Implication("local-nash/{player}", "nash/{player}", True, "a small deviation is a deviation"),
    *(
        Implication(premise, consequence, refutes, why)
        for premise, refutes, why in (
            (
                f"stationary/{LEADER}",
                False,
                "the generator is not at rest, and what it gains after the critic's answer was not evaluated",
            ),
            (
                f"stationary/{FOLLOWER}",
                False,
                "the critic does not answer best: it is not at rest",
            ),
            (
                f"local-nash/{FOLLOWER}",
                True,
                "the critic does not answer best: a small move of its own gains",
            ),
        )
        for consequence in ("local-minimax", "proximal")
    ),
    Implication("local-minimax", "proximal", True, "a proximal equilibrium is a minimax point"),
    Implication(
        "local-minimax",
        f"local-nash/{LEADER}",
        True,
        "a gain that outlives the critic's answer is one against a frozen critic",
        value=True,
        by=LEADER,
    ),
)


def reconcile(certificates: Sequence[Certificate]) -> tuple[Certificate, ...]:
    """The same certificates with what they imply of each other carried out, in their order.

    A certificate that an implication refutes takes the premise's witness, gain and interval, and names the premise
    in its evidence ("implied_by", with its own former verdict); one that is withheld says why in its summary. Claims
    that were not asked about are not added.
    """
    by = {c.claim: c for c in certificates}
    changed = True
    while changed:
        changed = False
        for premise, consequence, row in _applicable(by):
            new = _applied(by[premise], by[consequence], row)
            if new is not None:
                by[consequence], changed = new, True
        for claim in WHOLE:
            if claim in by and (whole := _aggregated(by, claim)) is not None:
                by[claim], changed = whole, True
    return tuple(by[c.claim] for c in certificates)


def contradictions(certificates: Sequence[Certificate]) -> tuple[str, ...]:
    """Every pair of verdicts that contradict each other, in words; empty after `reconcile`."""
    by = {c.claim: c for c in certificates}
    found = [
        f"{premise} is REFUTED, yet {consequence} is {by[consequence].verdict.value}: {row.why}"
        for premise, consequence, row in _applicable(by)
        if _applied(by[premise], by[consequence], row) is not None
    ]
    for claim in WHOLE:
        if claim in by and _aggregated(by, claim) is not None:
            found.append(f"{claim} is {by[claim].verdict.value}, unlike its parts")
    return tuple(found)


def _applicable(by: dict[str, Certificate]) -> list[tuple[str, str, Implication]]:
    """The rows whose premise is refuted and whose consequence was asked about."""
    found = []
    for row in IMPLICATIONS:
        players = (LEADER, FOLLOWER) if "{player}" in row.premise else ("",)
        for player in players:
            premise = row.premise.replace("{player}", player)
            consequence = row.consequence.replace("{player}", player)
            if premise not in by or consequence not in by:
                continue
            given = by[premise]
            if given.verdict is not Verdict.REFUTED:
                continue
            if row.witnessed and given.witness is None:
                continue
            if row.by and given.player != row.by:
                continue
            if row.value and not _of_value(by):
                continue
            found.append((premise, consequence, row))
    return found


def _of_value(by: dict[str, Certificate]) -> bool:
    """Whether the generator's own loss is V."""
    return any("zero-sum" in str(c.scope.get("losses", "")) for c in by.values() if c.player)


def _applied(
    premise: Certificate, consequence: Certificate, row: Implication
) -> Certificate | None:
    """The consequence as the row has it; None where it says so already."""
    if consequence.verdict is Verdict.REFUTED:
        return None
    own_verdict = consequence.evidence.get("own_verdict", consequence.verdict.value)
    because = {"implied_by": premise.claim, "own_verdict": own_verdict}
    if not row.refutes:
        withheld = (Verdict.VERIFIED,) if row.verified else HOLDS
        if consequence.verdict not in withheld:
            return None
        return replace(
            consequence,
            verdict=Verdict.UNASSESSED,
            summary=f"Not assessed: {row.why}.",
            evidence=consequence.evidence | because,
            witness=None,
        )
    gain, interval = measured_gain(premise)
    moved = {} if gain is None else {"gain": gain, "interval": interval}
    own = {f"own_{key}": consequence.evidence[key] for key in moved if key in consequence.evidence}
    return replace(
        consequence,
        verdict=Verdict.REFUTED,
        summary=f"{row.why[:1].upper()}{row.why[1:]}. {premise.summary}",
        evidence=consequence.evidence | own | moved | because,
        witness=_own(premise.witness, consequence.player),
        player=consequence.player or premise.player,
        witness_kind=premise.witness_kind,
    )


def _own(witness: Players | None, player: str | None) -> Players | None:
    """The part of a witness that is the player's: a deviation "by x alone" changes nothing of the others."""
    if witness is None or player is None or player not in witness:
        return witness
    return {player: witness[player]}


def measured_gain(certificate: Certificate) -> tuple[float | None, list[float] | None]:
    """What a certificate's deviation gains where it was evaluated, with its interval; None for what it has not.

    "stationary" measures in addition to what a gradient promises, under "measured"; the others under their own names.
    """
    evidence = certificate.evidence
    if certificate.claim.startswith("stationary"):
        evidence = evidence.get("measured") or {}
    interval = evidence.get("gain_interval", evidence.get("interval"))
    gain = evidence.get("gain")
    if isinstance(gain, float | int) and math.isfinite(gain):
        return float(gain), interval
    return None, None


def _aggregated(by: dict[str, Certificate], claim: str) -> Certificate | None:
    """The claim of all players as its parts have it; None where it says so already, or a part is missing."""
    parts = [c for name, c in by.items() if name.startswith(f"{claim}/")]
    whole = by[claim]
    if len(parts) < 2:
        return None
    verdict = least_settled(c.verdict for c in parts)
    if whole.verdict is verdict:
        return None
    part = next(c for c in parts if c.verdict is verdict)
    opening = WHOLE[claim][verdict] if verdict is Verdict.REFUTED else ""
    verdicts = {c.claim: c.verdict.value for c in parts}
    return replace(
        whole, verdict=verdict, summary=opening + part.summary, evidence=whole.evidence | verdicts
    )
