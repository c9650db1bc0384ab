"""Scores of a checkpoint that have a value for each held-out row, so that two can be compared row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from equilibrist.checkpoints.intervals import Array
from equilibrist.core.draws import Use
from equilibrist.data import ArraySource
from equilibrist.errors import DataError, RecipeError
from equilibrist.scores import FeatureNetwork, Score

Kind = Literal["images", "points", "arrays"]
BLOCKS = 16  # of a score that compares sets of samples


@dataclass(frozen=True)
class EnergyScore:
    """The energy score of each held-out row under the generator's law; lower is better.

        u_i = 2 mean_l |x_i - y_il| - mean_{l != m} |y_il - y_im|

    with y_i1, ..., y_im generated for row i (under its condition, where there is one). It is a proper scoring rule
    (Gneiting and Raftery 2007, section 4.3): its mean is E|x - x'| plus the squared energy distance (Szekely and
    Rizzo 2013) of the two laws, which is zero only where they are the same. Shown is that mean less E|x - x'| of the
    held-out rows: zero, up to noise, for the data's own law, and no floor has to be known.

    Coordinates of points are divided by their standard deviations in the held-out rows; images are flattened.

    Args:
        network: samples are compared by its features where it is given.
        per_row: generated samples for each row, m >= 2.
    """

    name: ClassVar[str] = "energy distance"
    lower: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float] | None] = None

    network: FeatureNetwork | None = None
    per_row: int = 16

    def __post_init__(self) -> None:
        if self.per_row < 2:
            raise RecipeError(f"EnergyScore.per_row={self.per_row}: it must be at least 2")

    def on(
        self, real: Tensor, kind: Kind, value_range: tuple[float, float] | None
    ) -> Callable[[Tensor], Array]:
        """From generated samples [n m, ...] to the values [n] of these held-out rows."""

        def represent(x: Tensor) -> Tensor:
            if self.network is not None:
                return self.network(x, value_range).double().flatten(1)
            return x.detach().double().flatten(1)

        rows = represent(real)
        scale = rows.new_ones(rows.shape[1])
        if kind == "points" and self.network is None:
            spread = rows.std(0)
            scale = torch.where(spread > 0, spread, scale)
        rows, n, m = rows / scale, len(real), self.per_row
        apart = torch.cdist(rows, rows).sum(1) / max(n - 1, 1)
        # The projection of the mean over pairs of real rows: with it the interval covers their noise too.
        own = (2 * apart - apart.mean()).numpy(force=True)

        def values(fake: Tensor) -> Array:
            y = (represent(fake) / scale).reshape(n, m, -1)
            to_row = torch.linalg.vector_norm(y - rows[:, None], dim=2).mean(1)
            among = torch.cdist(y, y).sum((1, 2)) / (m * (m - 1))
            found: Array = (2 * to_row - among).numpy(force=True) - own
            return found

        return values


@dataclass(frozen=True)
class RowScore:
    """A score of your own that has a value for every generated sample.

    Args:
        function: from generated samples [n, ...] to values [n]: the share of a rule that they obey, a classifier's
            probability, ...
        bounds: (low, high) that hold every value; intervals are then those of `bernstein`, without asymptotics. None:
            Student's.
        better: "higher" or "lower".
        name: for people.
    """

    function: Callable[[Tensor], object]
    bounds: tuple[float, float] | None = None
    better: str = "higher"
    name: str = "score"
    per_row: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.better not in ("higher", "lower"):
            raise RecipeError(f"better={self.better!r}: choose 'higher' or 'lower'")

    @property
    def lower(self) -> bool:
        """Whether lower values are better."""
        return self.better == "lower"

    def on(
        self, real: Tensor, kind: Kind, value_range: tuple[float, float] | None
    ) -> Callable[[Tensor], Array]:
        """From as many generated samples as held-out rows to their values."""

        def values(fake: Tensor) -> Array:
            with torch.no_grad():
                found = np.asarray(torch.as_tensor(self.function(fake)).detach().cpu(), dtype=float)
            if found.shape != (len(fake),):
                raise DataError(
                    f"the score {self.name!r} gives shape {list(found.shape)} for {len(fake)} samples: "
                    "it must give one value a sample"
                )
            return found

        return values


@dataclass(frozen=True)
class Blocks:
    """A score that compares sets of samples (`equilibrist.scores`), on disjoint blocks of the held-out rows.

    A block has fewer samples than the whole: figures that are biased at few samples are so alike for all checkpoints,
    and compare only with each other.
    """

    score: Score
    seed: int
    per_row: ClassVar[int] = 1
    bounds: ClassVar[tuple[float, float] | None] = None
    lower: ClassVar[bool] = True  # of what `on` gives, whose sign is turned where higher is better

    @property
    def name(self) -> str:
        """The score's own."""
        return self.score.name

    def on(
        self, real: Tensor, kind: Kind, value_range: tuple[float, float] | None
    ) -> Callable[[Tensor], Array]:
        """From as many generated samples as held-out rows to a value for each block."""
        if len(real) < 4 * BLOCKS:
            raise DataError(
                f"{self.name} needs at least {4 * BLOCKS} held-out rows, for {BLOCKS} blocks: there are {len(real)}"
            )
        parts = real.tensor_split(BLOCKS)
        sources = [
            ArraySource(
                part, kind=kind, value_range=value_range, dtype=part.dtype, name="held-out rows"
            )
            for part in parts
        ]

        def values(fake: Tensor) -> Array:
            found = []
            for k, (part, source) in enumerate(
                zip(fake.tensor_split(BLOCKS), sources, strict=True)
            ):
                rng = Use.CHECKPOINT_SCORE.at(block=k).generator(self.seed)
                result = self.score(part, source, rng)
                key = next(iter(result.better), next(iter(result.values)))
                sign = -1.0 if result.better.get(key) == "higher" else 1.0
                found.append(sign * result.values[key])
            return np.array(found)

        return values


AnyScore = EnergyScore | RowScore | Blocks


def score_of(score: object, seed: int) -> AnyScore:
    """A score as checkpoints are judged by it, from what a user gives."""
    if score is None:
        return EnergyScore()
    if isinstance(score, EnergyScore | RowScore):
        return score
    if isinstance(score, Score) and not isinstance(score, type):
        return Blocks(score, seed)
    if callable(score) and not isinstance(score, type):
        return RowScore(score)
    raise RecipeError(
        f"score={score!r} is none: give EnergyScore(), RowScore(function), or one of equilibrist.scores"
    )
