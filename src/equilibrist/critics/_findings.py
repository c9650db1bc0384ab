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


def constant_findings(certificates: Sequence[Certificate]) -> list[Finding]:
    """That the critic gives all samples one score: a fault where a critic of its class can tell them apart, and at
    some equilibria as it should be."""
    by = {c.claim: c for c in certificates}
    score = by["not-saturated"].evidence.get("constant") if "not-saturated" in by else None
    if not isinstance(score, float):
        return []
    apart = "indistinguishable" in by and by["indistinguishable"].verdict is Verdict.REFUTED
    text = (
        f"The critic gives every sample the same score ({score:.3g}, real and generated alike): its output does not "
        "depend on the sample, so that the generator has no gradient from it."
    )
    if apart:
        text += f" {by['indistinguishable'].summary}"
    return [
        Finding(
            "constant-score",
            "critic",
            text,
            "fault" if apart else "warning",
            "likely" if apart else "possible",
            {"value": score, "separation": by["not-saturated"].evidence.get("separation")},
        )
    ]


def critic_findings(certificates: Sequence[Certificate]) -> list[Finding]:
    """What was established of a critic alone.

    A critic that was never stepped looks like one that lags, so that this is "possible" at most; and a reward that is
    flat follows from other states, beside which it is a note.
    """
    found = established(certificates)
    return constant_findings(certificates) + [
        finding_of(
            state,
            certificate,
            "note" if state == "uninformative" and len(found) > 1 else "fault",
            "possible" if state == "lagging" else "likely",
        )
        for state, certificate in found.items()
    ]
