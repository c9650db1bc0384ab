"""Changes of training that were tried: from one audited state, in short branches with common random numbers."""

from equilibrist.prescriptions.menu import Change, changes_of
from equilibrist.prescriptions.prescription import Prescription, Tried
from equilibrist.prescriptions.try_changes import prescribe

__all__ = ["Change", "Prescription", "Tried", "changes_of", "prescribe"]
