"""Small training loops whose faults are known, each beside its healthy twin: a benchmark of diagnoses."""

from equilibrist.zoo import (
    data_faults,
    numerics,
    players,
    practices_losses,
    practices_networks,
    practices_steps,
    practices_training,
    resume,
    resume_state,
    wiring_graph,
    wiring_rates,
    wiring_steps,
    wiring_terms,
)
from equilibrist.zoo._case import CASES, HALVES, Case, half_of, isolated
from equilibrist.zoo._kits import KITS
from equilibrist.zoo._matrix import CaseRecord, Matrix, Rate
from equilibrist.zoo.run import diagnose_case, run

FAMILIES = (  # importing them has made their cases
    wiring_steps,
    wiring_graph,
    wiring_terms,
    wiring_rates,
    data_faults,
    numerics,
    resume,
    resume_state,
    players,
    practices_steps,
    practices_losses,
    practices_training,
    practices_networks,
)

__all__ = [
    "CASES",
    "HALVES",
    "KITS",
    "Case",
    "CaseRecord",
    "Matrix",
    "Rate",
    "diagnose_case",
    "half_of",
    "isolated",
    "run",
]
