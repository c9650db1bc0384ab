"""Solvers: one file each."""

from equilibrist.solvers._base import DrawSource, Solver, State, Step
from equilibrist.solvers.alternating import Alternating
from equilibrist.solvers.simultaneous import Simultaneous

__all__ = ["Alternating", "DrawSource", "Simultaneous", "Solver", "State", "Step"]
