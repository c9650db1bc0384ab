"""Small training loops whose faults are known, each beside its healthy twin: a benchmark of diagnoses."""

from equilibrist.zoo import practices_steps, wiring_graph, wiring_steps, wiring_terms
from equilibrist.zoo._case import CASES, HALVES, Case, half_of, isolated
from equilibrist.zoo._kits import KITS

FAMILIES = (
    wiring_steps,
    wiring_graph,
    wiring_terms,
    practices_steps,
)  # importing them has made their cases

__all__ = ["CASES", "HALVES", "KITS", "Case", "half_of", "isolated"]
