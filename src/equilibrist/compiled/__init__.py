"""The whole step of a solver as one compiled function."""

from equilibrist.compiled.step import CompiledStep, seconds_to_compile

__all__ = ["CompiledStep", "seconds_to_compile"]
