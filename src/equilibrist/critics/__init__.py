"""Audits of a critic alone: what state it is in, whatever the generator is."""

from equilibrist.critics._audit import CLAIMS, audit_critic
from equilibrist.critics._result import CriticAudit
from equilibrist.critics.description import Critic

__all__ = ["CLAIMS", "Critic", "CriticAudit", "audit_critic"]
