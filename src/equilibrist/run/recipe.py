"""A recipe: everything that a run needs, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from equilibrist.certificates import Json
from equilibrist.core.parts import require_separable
from equilibrist.data import Source
from equilibrist.display import Rows, Shown
from equilibrist.errors import RecipeError
from equilibrist.games import SampledGame
from equilibrist.scores import Score
from equilibrist.solvers import Solver


@dataclass(frozen=True)
class Reference:
    """What to cite: one line for people, BibTeX for their bibliography."""

    text: str
    bibtex: str = ""


@dataclass(frozen=True, repr=False)
class Recipe(Shown):
    """What is trained, on what, how and for how long.

    Args:
        game: the GAN.
        data: the law of real samples.
        solver: the method.
        steps: steps of the solver (for `Alternating`: generator steps).
        batch: samples in each minibatch.
        title, summary: for people.
        dtype: of parameters and data.
        accumulate: cut each minibatch into that many equal parts, one after the other: the same
            gradient in less memory (with batch norm: see `per_part`).
        per_part: where losses depend on whole batches (batch norm, minibatch discrimination), let each of the
            `accumulate` parts be a batch of its own, as every process of DistributedDataParallel has its own batch
            norm. The record says so, and audits evaluate batches of that size.
        mixed_precision: losses in bfloat16, parameters and penalties in `dtype`; audits never.
            (bfloat16 has float32's range, so there is no loss scale that could go wrong.)
        scores: what to measure on samples while training goes on (see `equilibrist.scores`).
        log_every, sample_every, checkpoint_every, score_every: steps between records; 0 chooses
            about 200 records, 8 sample sheets, 20 checkpoints and 8 looks at the scores.
        keep: checkpoints that stay on the disk.
        audit: settings of the audit that differ from the defaults (see `equilibrist.checks`).
        references: what to cite.
    """

    game: SampledGame
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
    score_every: int = 0
    accumulate: int = 1
    per_part: bool = False
    mixed_precision: bool = False
    scores: tuple[Score, ...] = ()
    keep: int = 3
    audit: Json = field(default_factory=dict)
    references: tuple[Reference, ...] = ()

    def __post_init__(self) -> None:
        for name, wanted, remedy in (
            ("game", ("losses", "init"), "a GAN(...)"),
            ("data", ("sample", "origin"), "a source such as digits() or ArraySource(x)"),
            ("solver", ("step", "init"), "a solver such as Alternating()"),
        ):
            value = getattr(self, name)
            if isinstance(value, type) or not all(hasattr(value, part) for part in wanted):
                shown = value.__name__ if isinstance(value, type) else type(value).__name__
                raise RecipeError(f"{name}={shown} in the recipe is not {remedy}")
        if not isinstance(self.scores, tuple | list):
            raise RecipeError(f"scores={self.scores!r} in the recipe: write scores=(Frechet(),)")
        for score in self.scores:
            if isinstance(score, type) or not callable(score) or not hasattr(score, "samples"):
                raise RecipeError(
                    f"scores holds {score!r}, which is no score: write scores=(Frechet(),)"
                )
        every = ("log_every", "sample_every", "checkpoint_every", "score_every")
        for name in ("steps", "batch", "keep", "accumulate", *every):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise RecipeError(f"{name}={value!r} in the recipe: it must be a whole number")
        for name in ("steps", "batch", "keep", "accumulate"):
            if getattr(self, name) < 1:
                raise RecipeError(
                    f"{name}={getattr(self, name)} in the recipe: it must be at least 1"
                )
        for name in every:
            if getattr(self, name) < 0:
                raise RecipeError(
                    f"{name}={getattr(self, name)} in the recipe: it must not be negative"
                )
        for name in ("mixed_precision", "per_part"):
            if not isinstance(getattr(self, name), bool):
                raise RecipeError(
                    f"{name}={getattr(self, name)!r} in the recipe: it must be True or False"
                )
        if self.dtype not in (torch.float32, torch.float64):
            raise RecipeError(
                f"dtype={self.dtype!r} in the recipe: take torch.float32 or torch.float64 "
                "(bfloat16 is mixed_precision=True)"
            )
        if self.batch % self.accumulate:
            raise RecipeError(
                f"batch={self.batch} cannot be cut into accumulate={self.accumulate} equal parts: "
                "take a multiple"
            )
        self._require_parts()
        if self.mixed_precision and self.dtype != torch.float32:
            raise RecipeError(
                f"mixed_precision with dtype {self.dtype}: it is meant for torch.float32"
            )
        if self.data.size is not None and self.batch > self.data.size:
            raise RecipeError(
                f"batch={self.batch} is larger than the {self.data.size} samples of {self.data.name}: "
                "take a smaller batch"
            )

    def _require_parts(self) -> None:
        """RecipeError where minibatches cannot be cut, or parts are to be batches of their own for nothing."""
        if self.per_part and (self.accumulate == 1 or self.game.separable):
            why = (
                "its losses are means over samples"
                if self.game.separable
                else "a minibatch is not cut (accumulate=1, --parts on the command)"
            )
            raise RecipeError(f"per_part=True in the recipe, but {why}: leave it out")
        if self.accumulate == 1 or self.game.separable:
            return
        if not self.per_part:
            raise RecipeError(
                f"accumulate={self.accumulate}, but losses depend on whole batches "
                f"({self.game.why_not_separable}): leave it at 1, replace batch norm, or let every part be a batch of "
                "its own (per_part=True, --per-part on the command)"
            )
        require_separable(self.game, many=False, per_part=True)

    @property
    def seen_together(self) -> int:
        """How many samples the losses are evaluated on at once, where they depend on that."""
        return self.batch // self.accumulate if self.per_part else self.batch

    def _facts(self) -> tuple[str, Rows]:
        players = self.game.describe()["players"]
        networks = ", ".join(f"{p}: {one['class']}" for p, one in players.items())
        rows = [
            ("game", f"{self.game.formulation} ({networks})"),
            ("data", f"{self.data.name}, {list(self.data.shape)}"),
            ("solver", str(self.solver)),
            ("steps", f"{self.steps:,} of batch {self.batch}"),
        ]
        return f"Recipe {self.title}".rstrip(), rows

    def every(self, what: str) -> int:
        """Steps between records of `what` ("log", "sample", "checkpoint", "score")."""
        chosen: int = getattr(self, f"{what}_every")
        return chosen or max(
            1, self.steps // {"log": 200, "sample": 8, "checkpoint": 20, "score": 8}[what]
        )

    def describe(self) -> Json:
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
                # Only where they are used: a record from before they existed describes the same run.
                **({"accumulate": self.accumulate} if self.accumulate > 1 else {}),
                **({"per_part": True} if self.per_part else {}),
                **({"mixed_precision": "bfloat16"} if self.mixed_precision else {}),
            },
            **({"scores": [repr(score) for score in self.scores]} if self.scores else {}),
        }
