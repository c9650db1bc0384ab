"""Training: recipes, the loop, the run directory."""

from equilibrist.run.guard import Guard
from equilibrist.run.recipe import Recipe, Reference
from equilibrist.run.trained import Run, load
from equilibrist.run.training import Ensemble, ensemble, train

__all__ = ["Ensemble", "Guard", "Recipe", "Reference", "Run", "ensemble", "load", "train"]
