"""Audits: where a trained pair landed, with evidence."""

from equilibrist.checks._audit import Audit, audit, audit_game
from equilibrist.checks._settings import Settings
from equilibrist.checks.certificate import Certificate, Tolerance, Verdict
from equilibrist.checks.mixed import audit_mixed
from equilibrist.checks.pair import audit_pair
from equilibrist.checks.registry import CHECKS, REGISTRY

__all__ = [
    "CHECKS",
    "REGISTRY",
    "Audit",
    "Certificate",
    "Settings",
    "Tolerance",
    "Verdict",
    "audit",
    "audit_game",
    "audit_mixed",
    "audit_pair",
]
