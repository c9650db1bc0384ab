"""Audits: where a trained pair landed, with evidence."""

from equilibrist.audit._audit import CHECKS, Audit, audit, audit_pair
from equilibrist.audit._bench import Settings
from equilibrist.audit.certificate import Certificate, Tolerance, Verdict

__all__ = [
    "CHECKS", "Audit", "Certificate", "Settings", "Tolerance", "Verdict", "audit", "audit_pair",
]
