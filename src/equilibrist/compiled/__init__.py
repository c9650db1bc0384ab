"""The whole step of a solver, and products with a game's Jacobian, as compiled functions."""

from equilibrist.compiled.product import CompiledJacobian
from equilibrist.compiled.step import CompiledStep, seconds_to_compile

__all__ = ["CompiledJacobian", "CompiledStep", "seconds_to_compile"]
