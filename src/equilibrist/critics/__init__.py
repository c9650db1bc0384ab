"""Audits of a critic alone: what state it is in, whatever the generator is."""

from equilibrist.critics._audit import CLAIMS, audit_critic
from equilibrist.critics._result import CriticAudit
from equilibrist.critics.description import LoneCritic

__all__ = ["CLAIMS", "CriticAudit", "LoneCritic", "audit_critic"]
