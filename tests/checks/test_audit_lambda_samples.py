"""lambda* by search on samples: what its two ends stand on."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from audit_games import F64, Gaussian

from equilibrist import GAN, SGD, Adam, Verdict, tree
from equilibrist.checks import Settings, _lambda_star
from equilibrist.checks.context import AuditContext
from equilibrist.checks.proximal import _bracket, inner
from equilibrist.checks.proximal import trial as trials
from equilibrist.checks.proximal._bracket import bracket_sampled, losses, nearer
from equilibrist.checks.proximal._sampled import SampledProx
from equilibrist.checks.proximal.search import lambda_search
from equilibrist.checks.proximal.trial import Deviation, mirrored, on_ray, scored
from equilibrist.formulations import W2GAN
from equilibrist.games import GaussianW2GAN
from equilibrist.networks import LinearGenerator, QuadraticCritic
from equilibrist.optimizers import Optimizer
from equilibrist.projections import EigenvalueCap, NormBall, SpectralBall
from equilibrist.theory import W2Gaussian

BUDGET: dict[str, Any] = {
    "batch": 128,
    "batches": 16,
    "look_batches": 8,
    "absolute": 5e-3,
    "perturbation": 0.1,
    "prox_starts": 1,
    "prox_steps": 30,
    "inner_steps": 30,
    "prox_trials": 4,
    "prox_lambdas": (1e-2, 1e2),
}


def silent(gradients: float = 1.0) -> None:
    pass


def pair(s: float, dim: int, eta: float, t: float, rule: Optimizer | None = None) -> AuditContext:
    """The Gaussian W2GAN's optimum on samples."""
    generator, critic = LinearGenerator(dim, dim, dtype=F64), QuadraticCritic(dim, dtype=F64)
    truth = GaussianW2GAN(s=s, dim=dim, eta=eta, t=t)
    optimum = truth.points()[0].players
    generator.load_state_dict(optimum["generator"])
    critic.load_state_dict(optimum["critic"])
    sets = (
        SpectralBall("generator", "W", 1.0),
        NormBall("generator", "u", t),
        EigenvalueCap("critic", "A", truth.ceiling),
    )
    game = GAN(generator, critic, W2GAN(eta), latent=dim, projections=sets)
    rules = {} if rule is None else {"generator": rule, "critic": rule}
    settings = Settings(**BUDGET, optimizers=rules)
    return AuditContext(game, *game.init(), Gaussian(dim, s), settings, 0)


def searcher(context: AuditContext) -> SampledProx:
    return SampledProx(context, silent)


def shifted(prox: SampledProx, *u: float) -> dict[str, torch.Tensor]:
    stay = prox.trained["generator"]
    return {"W": stay["W"], "u": stay["u"] + torch.tensor(u, dtype=F64)}


def test_minibatches_of_the_inner_problem_return_in_turn() -> None:
    prox = searcher(pair(2.0, 1, 0.5, 1.0))
    drawn = [prox.draw(k) for k in range(65)]
    assert drawn[64] is drawn[0]
    assert len({id(draw) for draw in drawn}) == 64
    assert not torch.equal(drawn[0]["real"], drawn[63]["real"])


# -- the interval ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("s", "dim", "eta", "t", "rule"),
    [(1.6, 2, 0.7, 1.0, Adam(0.3)), (3.0, 1, 0.4, 1.5, SGD(1e-3)), (2.2, 3, 0.5, 0.9, SGD(3.0))],
)
def test_the_interval_holds_the_truth_whatever_the_rules(
    s: float, dim: int, eta: float, t: float, rule: Optimizer
) -> None:
    (found,) = lambda_search(pair(s, dim, eta, t, rule), silent)
    low, high = found.evidence["interval"]
    assert low <= s / (4 * eta * (s - 1)) <= high, found.summary
    assert high <= 1.5 * low
    assert found.verdict is Verdict.NOT_REFUTED


def test_a_nash_equilibrium_on_samples_is_proximal_at_every_lambda() -> None:
    context = pair(3.0, 1, 0.4, 1e-6)
    (found,) = lambda_search(context, silent)
    assert found.evidence["interval"] == ["inf", "inf"]
    assert found.verdict is Verdict.NOT_REFUTED


# -- the inner problem -----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [SGD(1e-6), SGD(10.0), Adam(1e-6), Adam(3.0)])
@pytest.mark.parametrize("lam", [0.05, 1.0, 300.0])
def test_an_inner_answer_is_optimal_whatever_the_rule(rule: Optimizer, lam: float) -> None:
    """Steps of 10 reached -3056 where -0.4 is right, and were accepted."""
    context = pair(1.6, 2, 0.7, 1.0, rule)
    prox, truth = searcher(context), W2Gaussian(2, 1.6, 0.7, 1.0)
    G = shifted(prox, 1.0, 0.0)
    solved = inner.solve_well(prox, G, lam)
    assert solved.left <= prox.nothing
    critic = {k: x.numpy() for k, x in prox.trained["critic"].items()}
    expected = truth.v_prox(np.eye(2), np.array([1.0, 0.0]), critic["A"], critic["b"], lam)
    found = prox.measure(G, solved.answer.critic, lam, "score")
    held = prox.measure(prox.trained["generator"], prox.trained["critic"], math.inf, "score")
    # Paired with the value at rest, whose truth is known, the noise of the real samples cancels.
    assert float((found - held).mean()) + truth.optimal_value == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("rule", [SGD(3.0), SGD(1e4), Adam(30.0)])
def test_steps_of_the_rule_that_go_astray_are_taken_back(rule: Optimizer) -> None:
    context = pair(1.6, 2, 0.7, 1.0, rule)
    prox = searcher(context)
    G = shifted(prox, 0.6, -0.4)
    begun = float(prox.measure(G, prox.trained["critic"], 50.0, "select").mean())
    found = prox.follow(G, 50.0)
    assert tree.all_finite(found.critic)
    assert float(prox.measure(G, found.critic, 50.0, "select").mean()) >= begun - 5e-3


def test_what_the_solver_left_lowers_a_gain_and_keeps_it_from_refuting() -> None:
    """An inner maximum from below makes the gain too large, by what is left."""
    context = pair(3.0, 1, 0.4, 1.5)
    prox = searcher(context)
    deviation = mirrored(prox, Deviation(shifted(prox, 1.5)))
    sure = scored(context, prox, 3.0, deviation)
    rest = trials.resting(context, prox, 3.0)
    answers = [replace(inner.solve_well(prox, g, 3.0), left=10.0) for g in deviation.sides]
    doubtful = scored(context, prox, 3.0, deviation, (rest, answers))
    assert trials.verdict_of(sure, 5e-3) is Verdict.REFUTED
    assert doubtful.gain.low == pytest.approx(sure.gain.low - 10.0, abs=1e-3)
    assert trials.verdict_of(doubtful, 5e-3) is Verdict.UNASSESSED


def test_an_answer_that_is_not_settled_is_held_to_four_times_its_steps() -> None:
    context = pair(3.0, 1, 0.4, 1.5)
    prox: Any = searcher(context)
    G, solve = shifted(prox, 1.5), prox.solve

    def hasty(generator: Any, lam: float, effort: int = 1, *rest: Any, **more: Any) -> Any:
        answer = solve(generator, lam, effort, *rest, **more)
        if effort == 1:  # it never moved, and does not know
            return replace(answer, critic=prox.trained["critic"], settled=False, residual=math.inf)
        return replace(answer, settled=False, residual=math.inf)

    prox.solve = hasty
    found = inner.solve_well(prox, G, 0.2)
    assert found.left == pytest.approx(found.reached[inner.MORE] - found.reached[inner.USUAL])
    assert found.left > 0.1


# -- the ends --------------------------------------------------------------------------------------


def turned(prox: SampledProx, degrees: float, *u: float) -> dict[str, torch.Tensor]:
    """A shift together with a rotation of W, a symmetry of the game."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    W = torch.tensor([[c, -s], [s, c]], dtype=F64) @ prox.trained["generator"]["W"]
    return {"W": W, "u": torch.tensor(u, dtype=F64)}


def test_a_symmetry_of_the_game_does_not_hide_a_gain_below_the_upper_end() -> None:
    """On the straight line to a rotated generator W shrinks, and loses at lambdas at which the shift gains."""
    context = pair(1.6, 2, 0.7, 1.0)
    prox = searcher(context)
    lam = 1.5 * 1.6 / (4 * 0.7 * 0.6)
    deviation = Deviation(turned(prox, 100.0, 1.0, 0.0))
    straight = [
        mirrored(prox, Deviation(on_ray(prox, deviation.generator, share)))
        for share in _bracket.SHARES
    ]
    assert all(gain.high < 0 for gain in losses(context, prox, straight, lam))
    searched = losses(context, prox, nearer(prox, deviation, lam), lam)
    assert all(gain.high > 0 for gain in searched)
    assert any(gain.low > 0 for gain in searched)


def test_a_failed_answer_at_a_large_lambda_does_not_end_the_bracket() -> None:
    context = pair(3.0, 1, 0.4, 1.5)
    prox: Any = searcher(context)
    solve = prox.solve

    def failing(generator: Any, lam: float, *rest: Any, **more: Any) -> Any:
        answer = solve(generator, lam, *rest, **more)
        if 5.0 < lam < math.inf:
            broken = {k: torch.full_like(x, math.nan) for k, x in answer.critic.items()}
            return replace(answer, critic=broken, settled=False, residual=math.inf)
        return answer

    prox.solve = failing
    found = bracket_sampled(context, prox, 5e-3)
    assert 0 < found.low <= 3.0 / (4 * 0.4 * 2.0) <= found.high < 1.5 * found.low


def test_both_residuals_enter_the_lower_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the answer to the trained generator missed, and what the deviation's search might still have gained."""
    context = pair(3.0, 1, 0.4, 1.5)
    prox = searcher(context)
    lam = 0.8 * 3.0 / (4 * 0.4 * 2.0)
    known = mirrored(prox, Deviation(shifted(prox, 1.5)))
    (sure,) = losses(context, prox, [known], lam)
    assert sure.high < 0
    (unfinished,) = losses(context, prox, [replace(known, promise=0.5)], lam)
    assert unfinished.high == pytest.approx(sure.high + 0.5, abs=1e-3)
    monkeypatch.setattr(
        _bracket, "resting", lambda *args: replace(trials.resting(*args), left=0.25)
    )
    (missed,) = losses(context, prox, [known], lam)
    assert missed.high == pytest.approx(sure.high + 0.25, abs=1e-3)


def test_the_residual_enters_the_lower_end_of_the_local_lambda() -> None:
    """The smallest eigenvalue is 2 - lam, found with a residual of 0.5: certain up to 1.5."""

    class Known:
        def state(self, lam: float, small: Any = None) -> Any:
            return SimpleNamespace(value=2.0 - lam, leader=0.5)

    small: Any = SimpleNamespace(tau=1.0)
    pursuit: Any = Known()
    found = _lambda_star._certain(pursuit, small, 2.0, 0.0)
    assert found == pytest.approx(1.5, rel=0.02)
    assert found <= 1.5


def test_a_mirror_image_takes_odd_noise_away_and_the_witness_is_the_better_side() -> None:
    context = pair(1.6, 2, 0.7, 1.0)
    prox = searcher(context)
    one = Deviation(shifted(prox, 0.8, 0.3))
    both = mirrored(prox, one)
    assert torch.equal(both.sides[1]["u"], -one.generator["u"])
    alone, paired = (scored(context, prox, 3.0, d).gain for d in (one, both))
    assert paired.half_width < 0.3 * alone.half_width
    found = trials.trial(context, prox, 3.0, 5e-3, [one.generator])
    assert found.deviation is not None
    gains = [
        -float(prox.measure(g, prox.solve(g, 3.0).critic, 3.0, "select").mean())
        for g in found.deviation.sides
    ]
    assert gains[0] == max(gains)
