"""Solvers side by side on one recipe, over many seeds."""

from equilibrist.compare._compare import Comparison, compare
from equilibrist.compare.cost import Cost, cost

__all__ = ["Comparison", "Cost", "compare", "cost"]
