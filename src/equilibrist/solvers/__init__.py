"""Solvers: one file each."""

from equilibrist.solvers._base import DrawSource, Solver, State, Step
from equilibrist.solvers.alternating import Alternating
from equilibrist.solvers.averaged import Averaged
from equilibrist.solvers.simultaneous import Simultaneous

__all__ = ["Alternating", "Averaged", "DrawSource", "Simultaneous", "Solver", "State", "Step"]
