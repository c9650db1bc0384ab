"""Findings from the audit of a critic: the states that it names, in a practitioner's order."""

from __future__ import annotations

from equilibrist.certificates import STATES, Json
from equilibrist.checks import Certificate, Verdict
from equilibrist.critics import CriticAudit
from equilibrist.diagnosis.findings import VOCABULARY, Finding


def states(found: CriticAudit, where: str = "critic") -> list[Finding]:
    """What was established of a critic's state, as findings."""
    by = {c.claim: c for c in found.certificates}
    return [
        Finding(
            state,
            where,
            by[claim].summary,
            sure="likely",
            evidence=_numbers(by[claim]),
        )
        for claim, state in STATES.items()
        if claim in by and by[claim].verdict is Verdict.REFUTED and state in VOCABULARY
    ]


def _numbers(certificate: Certificate) -> Json:
    """The certificate's plain numbers, and its interval."""
    return {
        name: value
        for name, value in certificate.evidence.items()
        if isinstance(value, int | float | str | bool)
        or (isinstance(value, list | tuple) and len(value) <= 4)
    }
