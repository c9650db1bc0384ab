"""Training: recipes, the loop, the run directory."""

from equilibrist.run.ensemble import Ensemble, ensemble
from equilibrist.run.loop import Run, load, train
from equilibrist.run.recipe import Recipe, Reference

__all__ = ["Ensemble", "Recipe", "Reference", "Run", "ensemble", "load", "train"]
