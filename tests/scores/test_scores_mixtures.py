"""Modes, good samples and exact transport."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from equilibrist.data import ArraySource, DataError, Mixture2D, eight_gaussians
from equilibrist.scores import MixtureQuality, mode_figures, wasserstein2


def test_modes_by_hand() -> None:
    modes = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]
    points = np.array([[0.0, 2.9], [0.0, 3.1], [10.0, -3.0], [5.0, 5.0], [0.5, 0.5]])
    assert mode_figures(points, np.array(modes), 1.0) == (2, 3, 3 / 5)
    assert mode_figures(points, np.array(modes), 1.0, within=4.0) == (2, 3, 4 / 5)
    assert mode_figures(points, np.array(modes), 0.1) == (0, 3, 0.0)


def test_modes_that_overlap_are_each_covered() -> None:
    assert mode_figures(np.array([[0.5]]), np.array([[0.0], [1.0]]), 1.0) == (2, 2, 1.0)


def test_share_of_the_law_itself() -> None:
    law, n = eight_gaussians(balanced=False), 100_000
    found = mode_figures(law.sample(np.random.default_rng(0), n), law.modes, law.sigma)
    share = 1 - math.exp(-4.5)
    assert (found.covered, found.modes) == (8, 8)
    assert found.good == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / n))


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_no_sigma(bad: float) -> None:
    zero = np.zeros((1, 2))
    for sigma, within in ((bad, 3.0), (1.0, bad)):
        with pytest.raises(ValueError, match=f"above 0, not {sigma} and {within}"):
            mode_figures(zero, zero, sigma, within)
    assert mode_figures(zero, zero, 1e-300, 1e-300) == (1, 1, 1.0)


def test_transport_of_a_shift_and_a_scale() -> None:
    x = np.random.default_rng(1).normal(size=(200, 1))
    assert wasserstein2(x, x[::-1] + 0.7) == pytest.approx(0.7, rel=1e-12)
    assert wasserstein2(x, 3 * x) == pytest.approx(2 * math.sqrt((x**2).mean()), rel=1e-12)
    y = np.random.default_rng(2).normal(size=(200, 1)) ** 3
    want = math.sqrt(((np.sort(x, 0) - np.sort(y, 0)) ** 2).mean())
    assert wasserstein2(x, y) == pytest.approx(want, rel=1e-12)


def test_transport_against_all_pairings() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    best = min(((x - y[list(p)]) ** 2).sum(1).mean() for p in itertools.permutations(range(6)))
    assert wasserstein2(x, y) == pytest.approx(math.sqrt(best), rel=1e-12)


def test_transport_refuses() -> None:
    with pytest.raises(DataError, match="3 and 4 points cannot be paired"):
        wasserstein2(np.zeros((3, 2)), np.zeros((4, 2)))
    with pytest.raises(DataError, match="overflow"):
        wasserstein2(np.zeros((3, 2)), np.full((3, 2), 1e200))
    with pytest.raises(DataError, match="NaN"):
        wasserstein2(np.zeros((1, 2)), np.full((1, 2), np.nan))


def test_quality_of_a_mixture() -> None:
    law, score = eight_gaussians(), MixtureQuality(transport=300)
    good = score(law.sample(np.random.default_rng(0), 3000), law, np.random.default_rng(1))
    assert good.failed is None
    assert (good.samples, good.network) == (2500, None)
    assert good.values["modes"] == good.floor["modes"] == 8
    assert good.values["good"] == pytest.approx(good.floor["good"], abs=0.015)
    assert good.better == {"modes": "higher", "good": "higher", "w2": "lower"}

    dropped = Mixture2D(law.modes[:5], law.sigma, balanced=False)
    bad = score(dropped.sample(np.random.default_rng(0), 2500), law, np.random.default_rng(1))
    assert bad.values["modes"] == 5
    assert bad.values["w2"] > 2 * bad.floor["w2"]
    assert bad.floor == good.floor

    blurred = eight_gaussians(sigma=0.1).sample(np.random.default_rng(0), 2500)
    assert score(blurred, law, np.random.default_rng(1)).values["good"] < 0.1


def test_transport_takes_as_many_points_as_stated() -> None:
    law = eight_gaussians().to(dtype=torch.float64)
    fake = law.sample(np.random.default_rng(0), 50)
    first = MixtureQuality(samples=50, transport=20)(fake, law, np.random.default_rng(1))
    fake[20:] += 5  # beyond those that are paired
    second = MixtureQuality(samples=50, transport=20)(fake, law, np.random.default_rng(1))
    assert first.values["w2"] == second.values["w2"]
    assert first.values["good"] > second.values["good"]


def test_the_floor_is_in_reach_of_independent_samples() -> None:
    """Balanced draws have equal counts of each mode, which no generator's samples have."""
    law, score = eight_gaussians(), MixtureQuality(samples=400, transport=400)
    independent = eight_gaussians(balanced=False)
    results = [
        score(independent.sample(np.random.default_rng(s), 400), law, np.random.default_rng(50 + s))
        for s in range(30)
    ]
    floors = np.array([r.floor["w2"] for r in results])
    values = np.array([r.values["w2"] for r in results])
    spread = math.sqrt((floors.var() + values.var()) / 30)
    assert abs(floors.mean() - values.mean()) < 4 * spread
    balanced = wasserstein2(*(law.sample(np.random.default_rng(s), 400) for s in (1, 2)))
    assert floors.min() > 2 * balanced


def test_a_law_without_modes() -> None:
    source = ArraySource(np.random.default_rng(0).normal(size=(100, 3)), kind="points")
    fake = torch.from_numpy(np.random.default_rng(1).normal(size=(80, 3)))
    found = MixtureQuality()(fake, source, np.random.default_rng(2))
    assert list(found.values) == list(found.floor) == list(found.better) == ["w2"]
    assert found.samples == 50


def test_images_are_refused() -> None:
    source = ArraySource(torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(DataError, match="for points, not images"):
        MixtureQuality()(source.all(), source, np.random.default_rng(0))


@pytest.mark.parametrize("setting", [{"samples": 1}, {"transport": 0}])
def test_settings(setting: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"MixtureQuality.{next(iter(setting))} must be at least"):
        MixtureQuality(**setting)


def test_what_a_score_keeps_of_the_data_is_no_part_of_what_it_is() -> None:
    used, fresh = (MixtureQuality(samples=50, transport=20) for _ in range(2))
    used(torch.randn(60, 2).double(), eight_gaussians(), np.random.default_rng(1))
    assert used == fresh
    assert fresh != MixtureQuality(samples=51, transport=20)
