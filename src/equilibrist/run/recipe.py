"""A recipe: everything that a run needs, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from equilibrist._errors import RecipeError
from equilibrist.data import Source
from equilibrist.games import GAN
from equilibrist.solvers import Solver


@dataclass(frozen=True)
class Reference:
    """What to cite: one line for people, BibTeX for their bibliography."""

    text: str
    bibtex: str = ""


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, how and for how long.

    Args:
        game: the GAN.
        data: the law of real samples.
        solver: the method.
        steps: steps of the solver (for `Alternating`: generator steps).
        batch: samples in each minibatch.
        title, summary: for people.
        dtype: of parameters and data.
        log_every, sample_every, checkpoint_every: steps between records; 0 chooses about 200
            records, 8 sample sheets and 20 checkpoints.
        keep: checkpoints that stay on the disk.
        audit: settings of the audit that differ from the defaults (see `equilibrist.checks`).
        references: what to cite.
    """

    game: GAN
    data: Source
    solver: Solver
    steps: int
    batch: int = 64
    title: str = ""
    summary: str = ""
    dtype: torch.dtype = torch.float32
    log_every: int = 0
    sample_every: int = 0
    checkpoint_every: int = 0
    keep: int = 3
    audit: dict[str, Any] = field(default_factory=dict)
    references: tuple[Reference, ...] = ()

    def __post_init__(self) -> None:
        for name, wanted, mend in (
            ("game", ("losses", "init"), "a GAN(...)"),
            ("data", ("sample", "origin"), "a source such as digits() or ArraySource(x)"),
            ("solver", ("step", "init"), "a solver such as Alternating()"),
        ):
            value = getattr(self, name)
            if isinstance(value, type) or not all(hasattr(value, part) for part in wanted):
                shown = value.__name__ if isinstance(value, type) else type(value).__name__
                raise RecipeError(f"{name}={shown} in the recipe is not {mend}")
        for name in ("steps", "batch", "keep", "log_every", "sample_every", "checkpoint_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise RecipeError(f"{name}={value!r} in the recipe: it must be a whole number")
        for name in ("steps", "batch", "keep"):
            if getattr(self, name) < 1:
                raise RecipeError(
                    f"{name}={getattr(self, name)} in the recipe: it must be at least 1"
                )
        for name in ("log_every", "sample_every", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise RecipeError(
                    f"{name}={getattr(self, name)} in the recipe: it must not be negative"
                )
        if self.data.size is not None and self.batch > self.data.size:
            raise RecipeError(
                f"batch={self.batch} is larger than the {self.data.size} samples of {self.data.name}: "
                "take a smaller batch"
            )

    def every(self, what: str) -> int:
        """Steps between records of `what` ("log", "sample" or "checkpoint")."""
        chosen: int = getattr(self, f"{what}_every")
        return chosen or max(1, self.steps // {"log": 200, "sample": 8, "checkpoint": 20}[what])

    def describe(self) -> dict[str, Any]:
        """Plain values for the record."""
        return {
            "game": self.game.describe(),
            "data": {
                "name": self.data.name,
                "kind": self.data.kind,
                "size": self.data.size,
                "shape": list(self.data.shape),
                "source": self.data.origin,
                "sha256": getattr(self.data, "sha256", None),
            },
            "solver": {
                "name": type(self.solver).__name__,
                "text": str(self.solver),
                "spec": repr(self.solver),
                "batch": self.batch,
            },
        }
