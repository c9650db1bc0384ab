"""Frechet distance against closed forms, SciPy's matrix root and exact small cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from equilibrist.data import DataError
from equilibrist.scores import frechet_distance, frechet_from_moments


def rows(seed: int, n: int, d: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def with_moments(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """The rows moved so that their sample moments are exactly these."""
    centred = x - x.mean(0)
    own = np.linalg.cholesky(np.cov(centred.T))
    return centred @ np.linalg.inv(own).T @ np.linalg.cholesky(covariance).T + mean


def gaussians(m1: np.ndarray, c1: np.ndarray, m2: np.ndarray, c2: np.ndarray) -> float:
    """The textbook formula, with SciPy's root of the product."""
    root = np.real(sqrtm(c1 @ c2))
    return float(((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * root))


def test_four_numbers() -> None:
    # Means 1 and 2; variances 2 and 8 when divided by n - 1 (1 and 4 when by n: 2 instead of 3).
    assert frechet_distance(np.array([[0.0], [2.0]]), np.array([[0.0], [4.0]])) == pytest.approx(3)


def test_known_moments() -> None:
    mean, scales = np.array([1.0, -2.0, 0.5]), np.array([0.5, 2.0, 3.0])
    x = with_moments(rows(0, 50, 3), np.zeros(3), np.eye(3))
    y = with_moments(rows(1, 80, 3), mean, np.diag(scales**2))
    want = (mean**2).sum() + ((1 - scales) ** 2).sum()
    assert frechet_distance(x, y) == pytest.approx(want, rel=1e-12)
    found = frechet_from_moments(np.zeros(3), np.eye(3), mean, np.diag(scales**2))
    assert found == pytest.approx(want, rel=1e-12)


def test_covariances_that_do_not_commute() -> None:
    x = rows(2, 300, 6) @ rows(3, 6, 6)
    y = rows(4, 200, 6) @ rows(5, 6, 6) + 1
    moments = (x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    assert frechet_distance(x, y) == pytest.approx(gaussians(*moments), rel=1e-10)
    assert frechet_from_moments(*moments) == pytest.approx(gaussians(*moments), rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(5, 7), (5, 300), (41, 40)])
def test_fewer_samples_than_features(n: int, m: int) -> None:
    x, y = rows(6, n, 40), 2 * rows(7, m, 40)
    cross = (x - x.mean(0)) @ (y - y.mean(0)).T / np.sqrt((n - 1) * (m - 1))
    small = cross @ cross.T if n <= m else cross.T @ cross
    # One of its eigenvalues is zero, for centred rows are dependent; the others are not.
    root = np.sqrt(np.linalg.eigvalsh(small)[1:]).sum()
    want = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T)) - 2 * root
    assert frechet_distance(x, y) == pytest.approx(want, rel=1e-11)


def test_singular_covariances_from_moments() -> None:
    # Noise around zero eigenvalues must not enter by its root: the samples know the answer.
    x, y = rows(20, 6, 40), rows(21, 9, 40)
    found = frechet_from_moments(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    assert found == pytest.approx(frechet_distance(x, y), rel=1e-12)
    # Laws on crossing planes of three dimensions: no shared direction but the second.
    c1, c2 = np.diag([4.0, 1.0, 0.0]), np.diag([0.0, 9.0, 1.0])
    assert frechet_from_moments(np.zeros(3), c1, np.zeros(3), c2) == pytest.approx(4 + 4 + 1)


def test_a_collapsed_generator() -> None:
    x = rows(8, 100, 4)
    y = np.full((100, 4), 2.0)
    want = ((x.mean(0) - 2) ** 2).sum() + np.trace(np.cov(x.T))
    assert frechet_distance(x, y) == pytest.approx(want, rel=1e-12)
    assert frechet_distance(y, y) == 0


@pytest.mark.parametrize("n", [10, 200])
def test_zero_between_a_sample_and_itself_in_another_order(n: int) -> None:
    x = rows(9, n, 30)
    assert 0 <= frechet_distance(x, x[::-1].copy()) < 1e-12


def test_only_the_moments_count() -> None:
    q, _ = np.linalg.qr(rows(10, 5, 5))
    x, y = rows(11, 60, 5), 1.5 * rows(12, 70, 5)
    assert frechet_distance(x @ q, y @ q) == pytest.approx(frechet_distance(x, y), rel=1e-12)
    assert frechet_distance(3 * x, 3 * y) == pytest.approx(9 * frechet_distance(x, y), rel=1e-12)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-12)


def test_float32_features_are_computed_in_float64() -> None:
    x = torch.from_numpy(rows(13, 200, 8) + 3000).float()
    y = torch.from_numpy(rows(14, 200, 8) + 3000).float()
    assert frechet_distance(x, y) == frechet_distance(x.double(), y.double())


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (np.zeros(5), "no table"),
        (np.zeros((1, 3)), "too few"),
        (np.zeros((5, 2)), "3 columns and fake 2"),
        (np.array([[0.0, 1.0, np.nan], [0.0, 1.0, 2.0]]), "1 of 2 rows are NaN"),
        (np.zeros((5, 3), dtype=complex), "no table"),
    ],
)
def test_refusals(bad: np.ndarray, why: str) -> None:
    with pytest.raises(DataError, match=why) as caught:
        frechet_distance(rows(0, 9, 3), bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mean", "covariance", "why"),
    [
        (np.zeros(2), np.diag([1.0, -1.0]), "positive semi-definite"),
        (np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (np.zeros(3), np.eye(2), "do not fit"),
        (np.zeros(2), np.eye(3), "do not fit"),
        (np.array([0.0, np.inf]), np.eye(2), "NaN or infinite"),
    ],
)
def test_moments_that_are_none(mean: np.ndarray, covariance: np.ndarray, why: str) -> None:
    with pytest.raises(DataError, match=why):
        frechet_from_moments(np.zeros(2), np.eye(2), mean, covariance)


@pytest.mark.parametrize("size", [1.0, 2.0**40, 2.0**-40])
@pytest.mark.parametrize(("off", "sound"), [(0.99, True), (1.0, True), (1.01, False)])
@pytest.mark.parametrize("kind", ["not symmetric", "negative"])
def test_moments_are_sound_to_eight_digits(size: float, off: float, sound: bool, kind: str) -> None:
    """Of the largest eigenvalue, on either side of the bound and at it."""
    covariance = np.diag([1.0, 0.1, 0.1])
    if kind == "negative":
        covariance[1, 1] = -1e-8 * off
    else:
        covariance[1, 2] = 1e-8 * off
    zero, unit = np.zeros(3), np.eye(3)
    if sound:
        assert frechet_from_moments(zero, unit, zero, size * covariance) >= 0
    else:
        with pytest.raises(DataError, match=r"fake: .* not symmetric and positive semi-definite"):
            frechet_from_moments(zero, unit, zero, size * covariance)
        with pytest.raises(DataError, match=r"real: .* not symmetric and positive semi-definite"):
            frechet_from_moments(zero, size * covariance, zero, unit)
