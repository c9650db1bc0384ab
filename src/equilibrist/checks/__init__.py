"""Audits: where a trained pair landed, with evidence."""

from equilibrist.checks._audit import CHECKS, Audit, audit, audit_pair
from equilibrist.checks._bench import Settings
from equilibrist.checks.certificate import Certificate, Tolerance, Verdict

__all__ = [
    "CHECKS",
    "Audit",
    "Certificate",
    "Settings",
    "Tolerance",
    "Verdict",
    "audit",
    "audit_pair",
]
