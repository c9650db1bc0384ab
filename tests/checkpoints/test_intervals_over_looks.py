"""Intervals that hold however often one looks, held against their nominal error; scores against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm

from equilibrist.checkpoints import EnergyScore, Ledger, RowScore, bernstein, spent
from equilibrist.checkpoints.intervals import Values
from equilibrist.errors import DataError, RecipeError

ALPHA = 0.1


def at_most(misses: int, trials: int, alpha: float) -> bool:
    """Whether this many misses may come from an error probability of alpha."""
    return binomtest(misses, trials, alpha, alternative="greater").pvalue > 1e-3


@pytest.mark.parametrize("law", ["rare", "uniform", "ends"])
def test_the_bounded_sequence_holds_the_mean_after_every_value(law: str) -> None:
    rng = np.random.default_rng(0)
    draw = {
        "rare": lambda: (rng.random(400) < 0.03).astype(float),
        "uniform": lambda: rng.random(400),
        "ends": lambda: rng.choice([0.0, 1.0], 400),
    }[law]
    mean = {"rare": 0.03, "uniform": 0.5, "ends": 0.5}[law]
    misses = naive = 0
    for _ in range(400):
        x = draw()
        lows, highs = bernstein(x, 0.0, 1.0, ALPHA)
        misses += bool(((lows > mean) | (highs < mean)).any())
        n = np.arange(1, 401)
        m = np.cumsum(x) / n
        reach = norm.ppf(1 - ALPHA / 2) * np.sqrt(np.maximum(np.cumsum(x**2) / n - m**2, 0) / n)
        naive += bool((np.abs(m - mean) > reach)[20:].any())
    assert at_most(misses, 400, ALPHA)
    assert not at_most(naive, 400, ALPHA)  # what looking at usual intervals again and again does
    assert highs[-1] - lows[-1] < 0.35  # and the sequence says something


def test_the_bounded_sequence_is_that_of_other_bounds() -> None:
    x = np.random.default_rng(1).random(50)
    low, high = bernstein(x, 0.0, 1.0, 0.05)
    other = bernstein(3 * x - 1, -1.0, 2.0, 0.05)
    np.testing.assert_allclose(other, (3 * low - 1, 3 * high - 1))
    # By hand, after one value: rate 1/2, centre x, reach (log 40 + 4 (x - 1/2)^2 psi(1/2)) / (1/2) > 1.
    assert (low[0], high[0]) == (0.0, 1.0)
    with pytest.raises(ValueError, match="beyond the bounds"):
        bernstein(np.array([2.0]), 0.0, 1.0, 0.05)
    with pytest.raises(ValueError, match="finite"):
        bernstein(x, 0.0, math.inf, 0.05)


def test_all_looks_and_all_comparisons_hold_together() -> None:
    """Twelve checkpoints on the same 200 skewed rows: some interval misses in at most 10% of trials."""
    rng = np.random.default_rng(2)
    trials, looks = 300, 12
    missed, compared, naive = 0, 0, 0
    for _ in range(trials):
        rows = rng.gamma(4.0, 0.5, 200)
        ledger = Ledger("score", 1 - ALPHA)
        any_missed = any_naive = False
        for k in range(looks):
            x = rows + rng.gamma(4.0, 0.5, 200)
            look = ledger.add(k, Values(x))
            assert look.score is not None
            any_missed |= not look.score.low <= 4.0 <= look.score.high
            any_naive |= abs(x.mean() - 4.0) > norm.ppf(1 - ALPHA / 2) * x.std() / 200**0.5
        choice = ledger.choice()
        # All laws are alike: "go on" and "take" are errors of a comparison.
        compared += choice.advice != "stop"
        missed += any_missed
        naive += any_naive
    assert at_most(missed, trials, ALPHA)
    assert at_most(compared, trials, ALPHA)
    assert not at_most(naive, trials, ALPHA)
    assert math.isclose(sum(spent(ALPHA, k) for k in range(1, 10**5)), ALPHA, rel_tol=1e-4)


def course(*means: float, noise: float = 0.1, better: str = "lower") -> Ledger:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal(400)
    ledger = Ledger("auto", score=RowScore(torch.sum, better=better, name="figure"))
    for k, mean in enumerate(means):
        ledger.add(100 * (k + 1), Values(rows + mean + noise * rng.standard_normal(400)))
    return ledger


@pytest.mark.parametrize(
    ("means", "better", "advice", "step"),
    [
        ((5.0, 4.0, 3.0, 2.0), "lower", "go on", 400),
        ((5.0, 2.0, 3.0, 4.0), "lower", "take", 200),
        ((5.0, 4.0, 3.0, 2.0), "higher", "take", 100),
        ((1.0, 2.0, 3.0, 4.0), "higher", "go on", 400),
        ((5.0, 2.0, 2.0, 2.0), "lower", "stop", None),
        ((5.0, 2.0), "lower", "go on", 200),
    ],
)
def test_the_advice_is_that_of_the_course(
    means: tuple[float, ...], better: str, advice: str, step: int | None
) -> None:
    choice = course(*means, better=better).choice()
    assert choice.advice == advice
    assert step is None or choice.step == step
    first = str(choice).splitlines()[0]
    assert first == choice.sentence
    if step is not None:
        assert f"step {step}" in first
    if advice == "take":
        assert f"{'fell' if better == 'higher' else 'rose'} by" in choice.reason


def test_a_checkpoint_that_is_not_finite_is_never_taken() -> None:
    ledger = course(3.0, 2.0, 1.0)
    ledger.add(400, failed="the score is not finite")
    choice = ledger.choice()
    assert (choice.advice, choice.step) == ("take", 300)
    assert "step 400 are not finite" in choice.reason
    lost = Ledger()
    lost.add(1, failed="the score is not finite")
    assert lost.choice().step is None
    other = Ledger("gap")
    other.add(1, Values(np.arange(3.0)))
    with pytest.raises(RecipeError, match="no gap was measured"):
        other.choice()


def test_rounding_is_no_difference() -> None:
    rows = np.random.default_rng(4).random(300)
    ledger = Ledger("score")
    for k in range(4):
        ledger.add(k + 1, Values(rows + 1e-16 * k))
    assert ledger.choice().advice == "stop"


def test_the_energy_score_is_the_energy_distance_of_two_normals() -> None:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| in one dimension, from E|N(m, s^2)| = s sqrt(2/pi) e^(-m^2/2s^2) + m erf."""

    def folded(m: float, s: float) -> float:
        return s * math.sqrt(2 / math.pi) * math.exp(-(m**2) / (2 * s**2)) + m * math.erf(
            m / (s * math.sqrt(2))
        )

    torch.manual_seed(0)
    real = torch.randn(2000, 1, dtype=torch.float64)
    fake = 1.0 + 2.0 * torch.randn(2000 * 16, 1, dtype=torch.float64)
    truth = 2 * folded(1.0, math.sqrt(5)) - folded(0.0, math.sqrt(2)) - folded(0.0, math.sqrt(8))
    values = Values(EnergyScore().on(real, "arrays", None)(fake))
    found = values.interval(0.001)
    assert found.low < truth < found.high
    assert found.half_width < 0.25 * truth
    same = Values(EnergyScore().on(real, "arrays", None)(torch.randn_like(fake))).interval(0.001)
    assert same.low < 0 < same.high
    # In units of the rows' spread, coordinate by coordinate, for points.
    wide = torch.tensor([1.0, 1e3], dtype=torch.float64)
    both, made = torch.randn(300, 2).double(), torch.randn(4800, 2).double()
    a = EnergyScore().on(both, "points", None)(made)
    b = EnergyScore().on(both * wide, "points", None)(made * wide)
    np.testing.assert_allclose(a, b, atol=1e-8)


def test_scores_that_are_none_are_refused() -> None:
    with pytest.raises(RecipeError, match="per_row"):
        EnergyScore(per_row=1)
    with pytest.raises(RecipeError, match="better"):
        RowScore(torch.sum, better="up")
    with pytest.raises(DataError, match="one value a sample"):
        RowScore(lambda x: x.sum()).on(torch.zeros(3, 2), "points", None)(torch.zeros(3, 2))
