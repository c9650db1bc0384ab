"""The ladder from motion to Nash."""

from equilibrist.certificates import HOLDS
from equilibrist.report._record import AuditRecord, Verdict


def highest(audit: AuditRecord) -> str | None:
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
