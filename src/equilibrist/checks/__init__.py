"""Audits: where a trained pair landed, with evidence."""

from equilibrist.certificates import Chart, Words
from equilibrist.checks._audit import audit, audit_game
from equilibrist.checks._decide import Interval, decide
from equilibrist.checks._result import Audit
from equilibrist.checks._save import require_place, write_folder
from equilibrist.checks._settings import Settings
from equilibrist.checks.certificate import Certificate, Tolerance, Verdict
from equilibrist.checks.context import AuditContext
from equilibrist.checks.mixed import audit_mixed
from equilibrist.checks.pair import audit_pair
from equilibrist.checks.registry import CHECKS, REGISTRY, Check, Found, register

__all__ = [
    "CHECKS",
    "REGISTRY",
    "Audit",
    "AuditContext",
    "Certificate",
    "Chart",
    "Check",
    "Found",
    "Interval",
    "Settings",
    "Tolerance",
    "Verdict",
    "Words",
    "audit",
    "audit_game",
    "audit_mixed",
    "audit_pair",
    "decide",
    "register",
    "require_place",
    "write_folder",
]
