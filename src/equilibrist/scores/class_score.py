"""The class score: how sure a classifier is of each sample, and how varied over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from equilibrist.data.arrays import Array
from equilibrist.errors import DataError
from equilibrist.scores._arrays import rows
from equilibrist.scores._base import FeatureScore


class ClassScores(NamedTuple):
    """Mean over the splits, and the standard deviation over them (divided by their number)."""

    mean: float
    std: float


def class_score(outputs: Array, splits: int = 1, *, logits: bool = False) -> ClassScores:
    """exp of the mean over samples of KL(p(y | x_i) || p(y)), p(y) = mean_i p(y | x_i).

    Salimans et al. 2016, arXiv:1606.03498, section 4; with Inception-v3's classifier it is the
    Inception score. Between 1 (every sample alike, or nothing recognised) and the number of
    classes. It is computed for each of `splits` consecutive parts (of the original's 10, each with
    its own p(y)), whose mean and spread are returned; parts must be drawn alike, so samples sorted
    by class need shuffling first.

    Args:
        outputs: probabilities [n, classes], or what softmax makes into them.
        splits: parts, each scored by itself.
        logits: whether outputs are before the softmax.

    Returns:
        Mean and spread over the parts.

    Raises:
        DataError: other shapes, values that are not finite, rows that are no probabilities, and fewer
            samples than splits.

    Examples:
        >>> import numpy as np
        >>> from equilibrist.scores import class_score
        >>> round(class_score(np.eye(4)).mean, 6)  # four classes, each recognised for certain
        4.0
    """
    if splits < 1:
        raise ValueError(f"class_score needs splits >= 1, not {splits}")
    values = rows("classifier's outputs", outputs, least=splits)
    if logits:
        p = values.softmax(1)
    else:
        p = values
        sums = p.sum(1)
        # float32 softmax over a thousand classes is off by about 1e-6
        if bool((p < 0).any()) or not bool(((sums - 1).abs() < 1e-4).all()):
            raise DataError(
                "classifier's outputs: rows are not probabilities (negative, or sums other than "
                "1); pass logits=True for outputs before the softmax"
            )
        p = p / sums[:, None]
    scores = [_score(part) for part in torch.tensor_split(p, splits)]
    return ClassScores(float(np.mean(scores)), float(np.std(scores)))


def _score(p: Tensor) -> float:
    marginal = p.mean(0)
    # xlogy(0, 0) = 0: a class that no sample has adds nothing.
    return float((torch.xlogy(p, p).sum(1).mean() - torch.xlogy(marginal, marginal).sum()).exp())


@dataclass(frozen=True)
class ClassScore(FeatureScore):
    """`class_score` of a classifier: values `class_score` (higher is better) and `class_score_std`.

    `network` must return class scores; `logits` says that they are before the softmax. The floor is
    what as many real samples get: a ceiling, that is.
    """

    title: ClassVar[str] = "Class score"
    better: ClassVar[dict[str, str]] = {"class_score": "higher"}

    splits: int = 1
    logits: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.splits < 1:
            raise ValueError(f"ClassScore.splits must be at least 1, not {self.splits}")

    def figures(self, real: Tensor, fake: Tensor, rng: np.random.Generator) -> dict[str, float]:
        mean, std = class_score(fake, self.splits, logits=self.logits)
        return {"class_score": mean, "class_score_std": std}
