"""Audits of a critic alone: what state it is in, whatever the generator is."""

from equilibrist.critics._audit import audit_critic
from equilibrist.critics._result import CriticAudit

__all__ = ["CriticAudit", "audit_critic"]
