"""Findings from the audit of a critic: the states that it names, in a practitioner's order."""

from __future__ import annotations

from collections.abc import Sequence

from equilibrist.certificates import STATES, Json
from equilibrist.checks import Certificate, Verdict
from equilibrist.critics import CriticAudit
from equilibrist.diagnosis._outcome import Outcome
from equilibrist.diagnosis.findings import VOCABULARY, Finding

CHANCE = 0.15  # around one half: a critic whose order of held-out pairs stays there is at chance
SURE = 0.98  # share of pairs ordered rightly, from which a critic separates nearly all
UNSEEN = 1e-4  # of the scores' spread: a part that moves them less is not in the network's reach
SHARE = 0.9  # of the looks in the second half


def states(found: CriticAudit, where: str, outcome: Outcome) -> list[Finding]:
    """What was established of a critic's state, as findings.

    An audit judges one moment. What is found then is a fault where the game's way there agrees: a critic that is at
    chance throughout, or separates nearly all samples throughout. Otherwise it is a note, for players that go round
    one another pass through all of these states.
    """
    by = {c.claim: c for c in found.certificates}
    return [
        _finding(state, by[claim], where, outcome)
        for claim, state in STATES.items()
        if claim in by and by[claim].verdict is Verdict.REFUTED and state in VOCABULARY
    ]


def _finding(state: str, certificate: Certificate, where: str, outcome: Outcome) -> Finding:
    orders = [look.order for look in outcome.late if look.order is not None]
    evidence = _numbers(certificate)
    evidence["orders"] = [round(o, 3) for o in orders]
    lasting = _lasting(state, certificate, orders)
    return Finding(
        state,
        where,
        certificate.summary,
        level="fault" if lasting else "note",
        sure="likely" if lasting else "possible",
        evidence=evidence,
    )


def _lasting(state: str, certificate: Certificate, orders: Sequence[float]) -> bool:
    """Whether the game's way agrees with what was found at its end."""
    if state == "memorising":
        return True
    if state == "blind":
        depends = certificate.evidence.get("depends")
        return isinstance(depends, float) and depends < UNSEEN
    if len(orders) < 4:
        return False
    if state == "saturated":
        return sum(o > SURE for o in orders) >= SHARE * len(orders)
    if state in ("lagging", "smothered"):
        return sum(abs(o - 0.5) < CHANCE for o in orders) >= SHARE * len(orders)
    return False


def _numbers(certificate: Certificate) -> Json:
    """The certificate's plain numbers, and its interval."""
    return {
        name: value
        for name, value in certificate.evidence.items()
        if isinstance(value, int | float | str | bool)
        or (isinstance(value, list | tuple) and len(value) <= 4)
    }
