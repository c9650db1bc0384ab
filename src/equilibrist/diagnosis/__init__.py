"""From a verdict to a cause: what is wrong with a training loop, by name, with evidence and a cure."""

from equilibrist.diagnosis.diagnose import Diagnosis, diagnose
from equilibrist.diagnosis.findings import VOCABULARY, Finding, ordered
from equilibrist.diagnosis.loop import Loop
from equilibrist.diagnosis.wiring import Wiring, check_wiring

__all__ = [
    "VOCABULARY",
    "Diagnosis",
    "Finding",
    "Loop",
    "Wiring",
    "check_wiring",
    "diagnose",
    "ordered",
]
