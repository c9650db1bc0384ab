"""The states of a critic as findings."""

from __future__ import annotations

from collections.abc import Sequence

from equilibrist.certificates import STATES
from equilibrist.checks import Certificate, Verdict
from equilibrist.findings import Finding, numbers_of

# The number of a state's certificate that its interval is of.
VALUE = {
    "saturated": "share",
    "smothered": "missing",
    "lagging": "missing",
    "blind": "depends",
    "memorising": "excess",
    "uninformative": "share",
}


def established(certificates: Sequence[Certificate]) -> dict[str, Certificate]:
    """The states that were established, most telling first, with their certificates."""
    by = {c.claim: c for c in certificates if c.verdict is Verdict.REFUTED}
    return {state: by[claim] for claim, state in STATES.items() if claim in by}


def finding_of(
    state: str, certificate: Certificate, level: str = "fault", sure: str = "likely"
) -> Finding:
    """A state as a finding about the critic."""
    evidence = {
        "value": certificate.evidence.get(VALUE[state]),
        **numbers_of(certificate.evidence),
    }
    return Finding(state, "critic", certificate.summary, level, sure, evidence)


def critic_findings(certificates: Sequence[Certificate]) -> list[Finding]:
    """What was established of a critic alone.

    A critic that was never stepped looks like one that lags, so that this is "possible" at most; and a reward that is
    flat follows from other states, beside which it is a note.
    """
    found = established(certificates)
    return [
        finding_of(
            state,
            certificate,
            "note" if state == "uninformative" and len(found) > 1 else "fault",
            "possible" if state == "lagging" else "likely",
        )
        for state, certificate in found.items()
    ]
