"""The class score in cases that are known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from equilibrist.data import DataError
from equilibrist.scores import class_score


def test_one_class_each_gives_the_number_of_classes() -> None:
    assert class_score(np.eye(7)).mean == pytest.approx(7, rel=1e-14)
    assert class_score(np.tile(np.eye(7), (3, 1)), splits=3).mean == pytest.approx(7, rel=1e-14)


@pytest.mark.parametrize("row", [[0.25] * 4, [1.0, 0.0, 0.0, 0.0], [0.7, 0.2, 0.1, 0.0]])
def test_samples_alike_give_one(row: list[float]) -> None:
    assert class_score(np.tile(row, (9, 1))).mean == pytest.approx(1, abs=1e-14)


def test_unsure_classifier() -> None:
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    found = class_score(np.array([[0.9, 0.1], [0.1, 0.9]]))
    assert found.mean == pytest.approx(2 * math.exp(-entropy), rel=1e-14)
    assert found.std == 0


def test_uneven_classes() -> None:
    # Certain labels: exp of the entropy of the shares 3/4 and 1/4.
    found = class_score(np.eye(2)[[0, 0, 0, 1]])
    assert found.mean == pytest.approx(4 / 3**0.75, rel=1e-14)


def test_splits_are_consecutive_parts_with_their_own_marginals() -> None:
    p = np.eye(2)[[0, 1, 0, 0]]  # scores 2 and 1
    assert class_score(p, splits=2) == pytest.approx((1.5, 0.5))


def test_logits() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 6))) * 4
    found = class_score(logits, splits=5, logits=True)
    assert found == pytest.approx(class_score(logits.softmax(1), splits=5), rel=1e-12)
    assert found.mean == pytest.approx(class_score(logits + 7, 5, logits=True).mean, rel=1e-12)
    # Logits so far apart that probabilities vanish are no obstacle.
    assert class_score(2000 * torch.eye(3), logits=True).mean == pytest.approx(3)


def test_float32_probabilities_are_accepted() -> None:
    p = (torch.randn(40, 1000, generator=torch.Generator().manual_seed(0)) * 5).softmax(1)
    assert p.dtype == torch.float32
    assert class_score(p).mean == pytest.approx(
        class_score(p.double() / p.double().sum(1, keepdim=True)).mean, rel=1e-12
    )


@pytest.mark.parametrize("p", [[[0.5, 0.6], [0.5, 0.5]], [[1.5, -0.5], [0.5, 0.5]], [[3.0, -2.0]]])
def test_what_is_no_probability(p: list[list[float]]) -> None:
    with pytest.raises(DataError, match="logits=True"):
        class_score(np.array(p))


def test_refusals() -> None:
    with pytest.raises(DataError, match="too few"):
        class_score(np.eye(3), splits=4)
    with pytest.raises(DataError, match="NaN"):
        class_score(np.full((3, 3), np.nan), logits=True)
    with pytest.raises(ValueError, match="splits >= 1"):
        class_score(np.eye(3), splits=0)
    assert class_score(np.eye(3), splits=3).mean == 1, "a sample a part"
