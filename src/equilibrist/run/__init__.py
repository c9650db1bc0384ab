"""Training: recipes, the loop, the run directory."""

from equilibrist.run.loop import Run, load, train
from equilibrist.run.recipe import Recipe, Reference

__all__ = ["Recipe", "Reference", "Run", "load", "train"]
