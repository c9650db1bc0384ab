"""The ladder from motion to Nash, and what fits the evidence."""

from equilibrist.certificates import HOLDS
from equilibrist.report._html import e
from equilibrist.report._record import Audit, Record, Verdict


def highest(audit: Audit) -> str | None:
    """The highest rung that holds or that nothing speaks against; None where the pair still moves, where the
    self-tests failed, or where no rung holds."""
    tests = audit.find("self-tests")
    if tests is not None and tests.verdict is not Verdict.VERIFIED:
        return None
    verdicts = {rung.claim: rung.verdict for rung in audit.ladder}
    if verdicts.get("stationary") is Verdict.REFUTED:
        return None
    for rung in reversed(audit.ladder):
        if rung.verdict in HOLDS:
            return rung.claim
    return None


def advice(record: Record) -> str:
    """What was measured and what fits it, largest effect first, without what the headline says; "" where nothing
    is left."""
    audit = record.audit
    lines = [line for line in audit.advice if line not in audit.place] if audit else []
    rows = "".join(f"<li>{e(text)}</li>" for text in lines)
    return (
        f'<div class="advice"><h2>What fits the evidence</h2><ul>{rows}</ul></div>' if rows else ""
    )
