"""From a verdict to a cause: what is wrong with a training loop, by name, with evidence and a cure."""

from equilibrist.diagnosis.findings import VOCABULARY, Finding, ordered
from equilibrist.diagnosis.loop import Loop
from equilibrist.diagnosis.resume import ResumeCheck, check_resume

__all__ = ["VOCABULARY", "Finding", "Loop", "ResumeCheck", "check_resume", "ordered"]
