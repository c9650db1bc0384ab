"""From a verdict to a cause: what is wrong with a training loop, by name, with evidence and a cure."""

from equilibrist.diagnosis.findings import VOCABULARY, Finding, ordered
from equilibrist.diagnosis.loop import Loop

__all__ = ["VOCABULARY", "Finding", "Loop", "ordered"]
