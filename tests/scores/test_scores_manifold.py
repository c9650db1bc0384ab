"""Precision, recall, density and coverage against loops and the expectations of equal laws."""

from __future__ import annotations

import numpy as np
import pytest

from equilibrist.data import DataError
from equilibrist.scores import precision_recall


def looped(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """Straight from the definitions, with distances taken from differences."""

    def square(a: np.ndarray, b: np.ndarray) -> float:
        return float(((a - b) ** 2).sum())

    def radii(z: np.ndarray) -> list[float]:
        return [
            sorted(square(a, b) for j, b in enumerate(z) if j != i)[k - 1] for i, a in enumerate(z)
        ]

    r_real, r_fake = radii(real), radii(fake)
    near = np.array([[square(x, y) <= r for x, r in zip(real, r_real, strict=True)] for y in fake])
    recalled = [any(square(x, y) <= r for y, r in zip(fake, r_fake, strict=True)) for x in real]
    return (
        float(near.any(1).mean()),
        float(np.mean(recalled)),
        float(near.sum() / (k * len(fake))),
        float(near.any(0).mean()),
    )


def rows(seed: int, n: int, d: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("block", [1 << 20, 100, 7])
def test_against_loops(k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equilibrist.scores._arrays.BLOCK", block)
    real, fake = rows(0, 45), 0.8 * rows(1, 38) + 0.4
    want = looped(real, fake, k)
    assert min(want) > 0.1  # no figure of this case is trivial
    assert len(set(want)) == 4
    assert precision_recall(real, fake, k) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_ties_and_copies(seed: int) -> None:
    # Integer grids: copies within a set, copies across, and points on rims. Balls are closed.
    rng = np.random.default_rng(seed)
    real, fake = rng.integers(0, 4, (40, 2)) * 1.0, rng.integers(1, 6, (35, 2)) * 1.0
    for shift in (0.0, 1000.3):
        found = precision_recall(real + shift, fake + shift, 3)
        assert found == pytest.approx(looped(real, fake, 3), abs=1e-12)


def test_equal_sets_are_perfect() -> None:
    x = rows(2, 50)
    found = precision_recall(x, x[::-1].copy(), 3)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_sets_apart_share_nothing() -> None:
    assert precision_recall(rows(3, 30), rows(4, 30) + 100, 3) == (0, 0, 0, 0)


def test_a_dropped_mode_costs_recall_alone() -> None:
    both = np.concatenate([rows(5, 100), rows(6, 100) + 50])
    found = precision_recall(both, rows(7, 200), 3)
    assert found.precision > 0.8
    assert found.recall < 0.55
    assert found.coverage < 0.55


def test_a_distant_sample_spoils_no_other() -> None:
    """Rounding that is relative to the largest norm would merge all other points."""
    real, fake = rows(8, 60), rows(9, 60)
    near = precision_recall(real, fake, 3)
    far = precision_recall(real, np.concatenate([fake, [[1e7, 0.0, 0.0]]]), 3)
    assert far.precision == pytest.approx(near.precision * 60 / 61)
    assert far.coverage == near.coverage


def test_expectations_of_equal_laws() -> None:
    """Density 1; coverage 1 - (n-1)...(n-k) / ((2n-1)...(2n-k)) (Naeem et al. 2020, lemma 2)."""
    n, k, draws = 60, 3, 150
    found = np.array([precision_recall(rows(s, n), rows(s + 5000, n), k) for s in range(draws)])
    error = found.std(0) / draws**0.5
    coverage = 1 - np.prod([(n - i) / (2 * n - i) for i in range(1, k + 1)])
    assert abs(found[:, 2].mean() - 1) < 4 * error[2]
    assert abs(found[:, 3].mean() - coverage) < 4 * error[3]
    assert abs(found[:, 0].mean() - found[:, 1].mean()) < 4 * (error[0] + error[1])


def test_refusals() -> None:
    with pytest.raises(DataError, match="4 real and 3 fake samples have no 3 neighbours"):
        precision_recall(rows(0, 4), rows(1, 3), 3)
    precision_recall(rows(0, 4), rows(1, 4), 3)
    with pytest.raises(DataError, match="NaN"):
        precision_recall(rows(0, 9), np.full((9, 3), np.nan))
    with pytest.raises(ValueError, match="k >= 1"):
        precision_recall(rows(0, 9), rows(1, 9), 0)
