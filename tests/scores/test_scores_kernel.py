"""The kernel distance against a double loop, and its freedom from bias."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from equilibrist.data import DataError
from equilibrist.scores import kernel_distance, squared_mmd


def rows(seed: int, n: int, d: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def looped(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate, pair by pair."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    within = sum(
        np.mean([k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])
        for z in (x, y)
    )
    return float(within - 2 * np.mean([k(a, b) for a in x for b in y]))


def test_against_a_double_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows(0, 21), 1.3 * rows(1, 34) + 0.2
    assert squared_mmd(x, y) == pytest.approx(looped(x, y), rel=1e-12)
    monkeypatch.setattr("equilibrist.scores._arrays.BLOCK", 70)  # blocks of 3 and of 2 rows
    assert squared_mmd(x, y) == pytest.approx(looped(x, y), rel=1e-12)


@pytest.mark.parametrize("subsets", [1, 7])
@pytest.mark.parametrize("n", [30, 60])
def test_subsets(n: int, subsets: int) -> None:
    # 60 rows and few subsets take each subset by itself, 30 rows all subsets from one matrix.
    x, y, size = rows(2, n), rows(3, n + 1) - 0.3, 12
    rng = np.random.default_rng(5)
    picked = [
        (rng.choice(n, size, replace=False), rng.choice(n + 1, size, replace=False))
        for _ in range(subsets)
    ]
    want = [looped(x[p], y[q]) for p, q in picked]
    found = kernel_distance(x, y, np.random.default_rng(5), subsets, size)
    assert found.mean == pytest.approx(np.mean(want), rel=1e-11)
    assert found.std == pytest.approx(np.std(want), rel=1e-9, abs=1e-12)


def test_both_ways_to_sum_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    from equilibrist.scores import kernel

    x, y = (torch.from_numpy(rows(s, 40)) for s in (4, 5))
    pick = [torch.from_numpy(np.random.default_rng(s).permutation(40)[:15]) for s in range(6)]
    alone = [kernel._mmd(x[p], y[q]) for p, q in zip(pick[:3], pick[3:], strict=True)]
    monkeypatch.setattr("equilibrist.scores._arrays.BLOCK", 100)
    np.testing.assert_allclose(kernel._all_subsets(x, y, pick[:3], pick[3:]), alone, rtol=1e-11)


def test_a_subset_of_everything_is_the_full_estimate() -> None:
    x, y = rows(6, 25), rows(7, 25) + 0.5
    found = kernel_distance(x, y, np.random.default_rng(0), subsets=3, subset_size=25)
    assert found.mean == pytest.approx(squared_mmd(x, y), rel=1e-12)
    assert found.std < 1e-12


def test_no_bias() -> None:
    values = [squared_mmd(rows(10 + s, 12), rows(1000 + s, 12)) for s in range(400)]
    error = np.std(values) / 20
    assert abs(np.mean(values)) < 4 * error
    assert min(values) < 0 < max(values)
    # With the diagonal in it, the estimate would be off by (E k(x, x) - E k(x, y)) / 6, 1.5 here.
    assert error < 0.05


def test_only_the_generator_decides() -> None:
    x, y = rows(0, 50), rows(1, 50)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = kernel_distance(x, y, np.random.default_rng(3), 4, 20)
    assert torch.equal(before, torch.get_rng_state())
    assert first == kernel_distance(x, y, np.random.default_rng(3), 4, 20)
    assert first != kernel_distance(x, y, np.random.default_rng(4), 4, 20)


def test_refusals() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="subsets of 10 rows cannot be drawn from 12 real and 9"):
        kernel_distance(rows(0, 12), rows(1, 9), rng, 2, 10)
    with pytest.raises(DataError, match="too few"):
        squared_mmd(rows(0, 5), rows(1, 1))
    with pytest.raises(DataError, match="3 of 5 rows"):
        squared_mmd(rows(0, 5), np.where(np.arange(5)[:, None] < 3, np.inf, rows(1, 5)))
    for subsets, size in ((0, 5), (2, 1)):
        with pytest.raises(ValueError, match="kernel_distance needs"):
            kernel_distance(rows(0, 12), rows(1, 12), rng, subsets, size)
    kernel_distance(rows(0, 12), rows(1, 9), rng, 1, 9)  # as many as there are
    assert kernel_distance(rows(0, 12), rows(1, 12), rng, 1, 2)[1] == 0, "of one subset"
