"""The equilibrium profile against its closed form."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from audit_games import F64
from proximal_games import at_optimum, exact, sampled, sampled_game

from equilibrist import Verdict
from equilibrist.checks._decide import Interval
from equilibrist.checks.proximal.inner import STAYING, Answer, Solved
from equilibrist.checks.proximal.profile import isotonic, monotone_lower
from equilibrist.checks.proximal.trial import Trial
from equilibrist.games import GaussianW2GAN
from equilibrist.theory import W2Gaussian

GRID = (0.1, 0.8, 4.0, 100.0)


@pytest.mark.parametrize(("s", "dim", "eta", "t"), [(2.0, 1, 0.5, 1.0), (1.5, 2, 1.0, 0.7)])
def test_the_profile_is_the_proximal_gap_in_closed_form(
    s: float, dim: int, eta: float, t: float
) -> None:
    game = GaussianW2GAN(s=s, dim=dim, eta=eta, t=t)
    truth = W2Gaussian(dim, s, eta, t)
    found = exact(game, at_optimum(game), "profile", prox_lambdas=GRID)["profile"]
    evidence = found.evidence
    lams = [float(lam) for lam in evidence["lambda"]]
    assert lams == [0.0, *GRID, float("inf")]
    assert evidence["r"] == pytest.approx([truth.profile(lam) for lam in lams], abs=1e-8)
    o = truth.optimum()
    gap = truth.proximal_gap(*o, 4.0)
    assert gap.exact
    assert evidence["r"][3] == pytest.approx(gap.lower, abs=1e-8)
    assert evidence["r"] == sorted(evidence["r"])
    low, high = (float(lam) for lam in evidence["lambda_star"])
    assert low <= truth.lambda_star <= high
    assert (low, high) in list(itertools.pairwise(lams))
    assert evidence["nash_gain"] == pytest.approx(eta * (s - 1) * t**2)
    assert found.verdict is Verdict.NOT_REFUTED
    assert json.dumps(evidence)


def test_r_is_negative_where_the_critic_has_slack() -> None:
    """r(0) = Stackelberg regret less the critic's slack, both in closed form; Definition 1's side adds it back."""
    game, truth = GaussianW2GAN(s=2.0, dim=1), W2Gaussian(1, 2.0)
    W, u, A, b = [[0.7]], [0.3], [[0.1]], [0.2]
    players = {
        "generator": {"W": torch.tensor(W, dtype=F64), "u": torch.tensor(u, dtype=F64)},
        "critic": {"A": torch.tensor(A, dtype=F64), "b": torch.tensor(b, dtype=F64)},
    }
    found = exact(game, players, "profile", prox_lambdas=(0.1, 0.8))["profile"]
    value, best = truth.value(W, u, A, b), truth.max_value(W, u)
    slack, regret = best - value, best - truth.optimal_value
    assert found.evidence["slack"] == pytest.approx(slack, abs=1e-8)
    assert found.evidence["r"][0] == pytest.approx(regret - slack, abs=1e-8)
    assert found.evidence["r"][0] < 0
    assert found.evidence["definition_1"][0] == pytest.approx(regret, abs=1e-8)
    for k, lam in enumerate((0.1, 0.8), start=1):
        least = truth.least_v_prox(A, b, lam).upper
        assert found.evidence["raw"][k] == pytest.approx(value - least, abs=1e-7)
    assert found.verdict is Verdict.REFUTED
    assert found.witness is not None


def test_a_nash_equilibrium_has_a_flat_profile() -> None:
    game = GaussianW2GAN(s=0.6, dim=1)
    found = exact(game, at_optimum(game), "profile", prox_lambdas=(0.1, 10.0))["profile"]
    assert max(map(abs, found.evidence["r"])) < 1e-9
    assert found.evidence["lambda_star"] == ["inf", "inf"]
    assert found.verdict is Verdict.NOT_REFUTED


def test_the_profile_on_samples() -> None:
    found = sampled(
        sampled_game(2.0), 2.0, "profile", prox_lambdas=(0.2, 5.0), batches=48, absolute=0.02
    )["profile"]
    truth = W2Gaussian(1, 2.0)
    evidence = found.evidence
    assert evidence["r"] == sorted(evidence["r"])
    for lam, r, low, high in zip(
        *(evidence[k] for k in ("lambda", "r", "low", "high")), strict=True
    ):
        expected = truth.profile(float(lam))
        assert low - 0.02 <= expected <= high + 0.02, (lam, r, low, high)
    assert evidence["lambda_star"] == [0.2, 5.0]
    assert found.verdict is Verdict.NOT_REFUTED


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_isotonic_against_quadratic_programming(seed: int) -> None:
    from scipy.optimize import isotonic_regression

    rng = np.random.default_rng(seed)
    values, weights = rng.standard_normal(30), rng.uniform(0.1, 5, 30)
    ours: Any = isotonic(list(values), list(weights))
    assert ours == pytest.approx(list(isotonic_regression(values, weights=weights).x), abs=1e-12)
    assert isotonic([3.0, 1.0], [1.0, 3.0]) == [1.5, 1.5]


def tried(lam: float, mean: float, half: float, failed: str = "") -> Trial:
    span = Interval(mean, mean - half, mean + half)
    return Trial(lam, span, Interval(0.0, 0.0, 0.0), span, None, {}, None, failed=failed)


def test_what_is_surely_reached_at_one_lambda_is_reached_at_every_greater_one() -> None:
    trials = [
        tried(0.0, -0.1, 0.01),
        tried(1.0, 0.5, 0.05, failed="it diverged"),
        tried(2.0, 6.0, 0.2),
        tried(3.0, 0.05, 0.01),  # a search that missed what another found
        tried(4.0, 5.9, 0.1),
    ]
    assert monotone_lower(trials) == pytest.approx([-0.1, -0.11, 6.0, 5.8, 5.9])
    assert monotone_lower([tried(0.0, 1.0, 0.1, failed="x"), tried(1.0, 2.0, 0.1)]) == [2.0, 2.0]
    # A failed search has no weight: it does not pull its neighbours down.
    assert isotonic([1.0, -5.0, 2.0], [1.0, 0.0, 1.0]) == [1.0, 1.0, 2.0]


def test_answers_that_all_ended_below_their_start_are_no_answers() -> None:
    astray = Solved(Answer({}), {"usual": -3.0, "fresh start 1": -2.5, STAYING: 1.0})
    assert astray.shortfall == pytest.approx(3.5)
    assert Solved(Answer({}), {"usual": float("nan"), STAYING: 1.0}).shortfall == float("inf")
    assert Solved(Answer({}), {"usual": 1.2, STAYING: 1.0}).shortfall < 0
    assert Solved(Answer({}), {"usual": 1.2}).shortfall == 0.0
