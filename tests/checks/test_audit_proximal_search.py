"""lambda* by search, section 6.1's experiment, and the inner problem that both stand on."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from audit_games import F64, Gaussian
from proximal_games import EXACT, SMALL, at_optimum, exact, sampled, sampled_game
from torch import nn

from equilibrist import GAN, WGAN, RecipeError, Verdict
from equilibrist.checks import Settings
from equilibrist.checks.context import AuditContext
from equilibrist.checks.context_exact import ExactContext
from equilibrist.checks.proximal import inner
from equilibrist.checks.proximal.search import lambda_search
from equilibrist.checks.proximal.trial import trial
from equilibrist.games import Dirac, GaussianW2GAN, GaussianWGAN, bilinear
from equilibrist.theory import W2Gaussian


def silent(gradients: float = 1.0) -> None:
    pass


# -- the inner problem ----------------------------------------------------------------------------


@pytest.mark.parametrize("lam", [0.0, 0.05, 1.0, 30.0])
@pytest.mark.parametrize("dim", [1, 3])
def test_v_prox_equals_its_closed_form_with_a_bound_that_holds(lam: float, dim: int) -> None:
    rng = np.random.default_rng(dim)
    game = GaussianW2GAN(s=1.7, dim=dim, eta=0.8)
    truth = W2Gaussian(dim, 1.7, 0.8, 1.0)
    players = at_optimum(game)
    A = torch.tensor(0.1 * rng.standard_normal((dim, dim)), dtype=F64)
    players["critic"] = {"A": A, "b": torch.tensor(0.3 * rng.standard_normal(dim), dtype=F64)}
    prox = inner.prox_of(ExactContext(game, players, Settings(**EXACT)), silent)
    W = 0.8 * np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    generator = {"W": torch.tensor(W, dtype=F64), "u": torch.full((dim,), 0.4, dtype=F64)}
    answer = prox.solve(generator, lam)
    found = float(prox.measure(generator, answer.critic, lam, "score"))
    expected = truth.v_prox(W, np.full(dim, 0.4), *players["critic"].values(), lam)
    assert found == pytest.approx(expected, abs=1e-11)
    assert found <= expected + 1e-12, "from below"
    if lam > 0:
        assert answer.gap is not None
        assert 0 <= expected - found + 1e-12 <= answer.gap + 2e-12
        assert answer.residual < 1e-8
        # The bound is no tautology: it holds where the inner problem is far from solved as well.
        held = prox.trained["critic"]
        flat = torch.cat([held["A"].flatten(), held["b"]])
        slope = torch.autograd.functional.jacobian(prox._objective(generator, lam), flat)
        gap, _ = prox._bound(generator, held, slope, lam)
        lost = expected - float(prox.measure(generator, held, lam, "score"))
        assert 1e-4 < lost <= gap
    else:
        assert answer.gap is None  # nothing is known without the penalty's curvature


def test_the_distance_of_the_one_dimensional_critics_is_the_integral() -> None:
    game = GaussianWGAN(s=1.5)
    x = np.linspace(-14, 14, 2_000_001)
    density = np.exp(-((x / 1.5) ** 2) / 2) / (1.5 * math.sqrt(2 * math.pi))
    for (a, c), (a_, c_) in [((1.0, 0.0), (0.4, 0.7)), ((-0.5, 1.0), (0.9, -0.3))]:
        moved = (a * np.sign(x - c) - a_ * np.sign(x - c_)) ** 2 * density
        expected = float(moved.sum() * (x[1] - x[0]))
        one, other = (
            {k: torch.tensor([v], dtype=F64) for k, v in (("a", p), ("c", q))}
            for p, q in ((a, c), (a_, c_))
        )
        found = float(game.sobolev_distance(one, other))
        assert found == pytest.approx(expected, abs=1e-5)


def test_the_penalty_on_samples_has_a_gradient_and_is_the_semi_norm() -> None:
    game = sampled_game(2.0)
    context = AuditContext(game, *game.init(), Gaussian(1, 2.0), Settings(**SMALL), 0)
    prox: Any = inner.prox_of(context, silent)
    stay, trained = prox.trained["generator"], prox.trained["critic"]
    moved = {"A": trained["A"] + 0.05, "b": trained["b"] - 0.2}
    free, held = (prox.measure(stay, moved, lam, "score") for lam in (math.inf, 3.0))
    for draw, plain, paid in zip(context.bank("score"), free, held, strict=True):
        by_hand = 3.0 * (0.1 * draw["real"] - 0.2).square().mean()
        assert float(plain - paid) == pytest.approx(float(by_hand), rel=1e-12)
    draw = prox.draw(0)
    assert draw is prox.draw(0), "the anchor's slopes are computed once"
    loss, leaves = prox._loss(stay, moved, context.constants, draw, 3.0)
    plain_loss, plain_leaves = prox._loss(stay, moved, context.constants, draw, 0.0)
    slopes = [
        torch.autograd.grad(x, y["b"])[0] for x, y in ((loss, leaves), (plain_loss, plain_leaves))
    ]
    by_hand = 3.0 * 2 * (0.1 * draw["real"] - 0.2).mean()
    assert float(slopes[0] - slopes[1]) == pytest.approx(float(by_hand), rel=1e-10)
    # A large lambda holds the critic where it is, a small one does not.
    shifted = {"W": stay["W"], "u": stay["u"] + 1.0}
    far, near = (prox.solve(shifted, lam, effort=4).critic for lam in (0.05, 100.0))
    truth = W2Gaussian(1, 2.0).prox_critic(np.eye(1), np.ones(1), [[0.25]], [0.0], 0.05)
    assert float(far["b"]) == pytest.approx(float(truth[1][0]), abs=0.1)
    assert abs(float(near["b"])) < 0.05


# -- lambda* --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("s", "dim", "eta", "t"),
    [(1.3, 2, 1.0, 0.5), (5.0, 1, 0.3, 2.0)],
)
def test_the_interval_holds_lambda_star(s: float, dim: int, eta: float, t: float) -> None:
    game = GaussianW2GAN(s=s, dim=dim, eta=eta, t=t)
    found = exact(game, at_optimum(game), "lambda-search")["lambda-search"]
    low, high = found.evidence["interval"]
    assert low <= s / (4 * eta * (s - 1)) <= high, found.summary
    assert high <= 1.05 * low
    assert found.verdict is Verdict.NOT_REFUTED
    assert found.evidence["slack"] == pytest.approx(0.0, abs=1e-9)
    # The witness gains by the closed form, at the upper end and not below lambda*.
    truth, spot = W2Gaussian(dim, s, eta, t), truth_pair(game)
    u, W = (found.witness["generator"][k].numpy() for k in ("u", "W"))
    assert truth.optimal_value - truth.v_prox(W, u, *spot, high) > 1e-6
    assert truth.optimal_value - truth.v_prox(W, u, *spot, 0.99 * truth.lambda_star) <= 1e-9


def truth_pair(game: GaussianW2GAN) -> tuple[np.ndarray, np.ndarray]:
    unit = np.eye(game.dim)
    return game.eta * (1 - 1 / game.s) * unit, np.zeros(game.dim)


@pytest.mark.parametrize("game", [GaussianW2GAN(s=0.6, dim=2), GaussianWGAN(s=0.5)])
def test_a_nash_equilibrium_is_one_at_every_lambda(game: Any) -> None:
    found = exact(game, at_optimum(game), "lambda-search")["lambda-search"]
    assert found.evidence["interval"] == ["inf", "inf"]
    assert found.verdict is Verdict.NOT_REFUTED
    assert found.witness is None


def test_the_wgan_of_theorem_1_is_a_proximal_equilibrium_of_no_lambda() -> None:
    game = GaussianWGAN(s=2.0)
    found = exact(
        game, at_optimum(game), "lambda-search", prox_lambdas=(8e-3, 0.02), prox_starts=1
    )["lambda-search"]
    low, high = found.evidence["interval"]
    assert low == 0.0
    assert high <= 1e-2
    assert found.verdict is Verdict.REFUTED
    assert "a |x - c|" in found.scope["critic_class"]
    assert json.dumps(found.evidence)


def test_the_interval_on_samples_holds_lambda_star() -> None:
    found = sampled(
        sampled_game(2.0),
        2.0,
        "lambda-search",
        prox_trials=4,
        prox_lambdas=(0.2, 5.0),
        batches=40,
    )["lambda-search"]
    low, high = found.evidence["interval"]
    assert 0 < low < 1.0 < high < 2.5, found.summary
    assert found.verdict is Verdict.NOT_REFUTED
    assert any(row["flattered"] or row["verdict"] == "refuted" for row in found.evidence["trials"])
    assert json.dumps(found.evidence)


def test_a_gain_that_more_inner_steps_take_away_is_none() -> None:
    """With two inner steps almost every shift looks profitable at lambda = 0.2, where truth has none."""
    game = sampled_game(2.0)
    start = game.init()
    few = {**SMALL, "inner_steps": 2, "prox_steps": 20}
    context = AuditContext(game, *start, Gaussian(1, 2.0), Settings(**few), 0)
    prox = inner.prox_of(context, silent)
    stay = prox.trained["generator"]
    shifted = {"W": stay["W"], "u": stay["u"] + 1.0}
    quick = prox.measure(shifted, prox.follow(shifted, 0.2).critic, 0.2, "select").mean()
    base = prox.measure(stay, prox.trained["critic"], math.inf, "select").mean()
    assert float(base - quick) > 0.1
    good = Settings(**{**SMALL, "prox_steps": 10})
    context = AuditContext(game, *start, Gaussian(1, 2.0), good, 0)
    found = trial(context, inner.prox_of(context, silent), 0.2, 5e-3, [shifted])
    assert found.verdict is not Verdict.REFUTED
    assert found.gain.low <= 5e-3


@pytest.mark.parametrize(("game", "words"), [(bilinear(), "players are"), (Dirac(), "")])
def test_what_has_no_semi_norm_is_not_assessed(game: Any, words: str) -> None:
    audit = exact(game, at_optimum(game), "lambda-search", "profile", "gaps", "generator-vs-prox")
    for claim in (
        "lambda-search",
        "profile",
        "duality-gap",
        "proximal-duality-gap",
        "generator-vs-prox",
    ):
        assert audit[claim].verdict is Verdict.UNASSESSED
    assert words in audit["profile"].summary
    assert words or "sobolev_distance" in audit["profile"].summary


def test_a_critic_with_batch_norm_is_not_assessed() -> None:
    critic = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1)).double()
    game = GAN(nn.Linear(1, 1).double(), critic, WGAN(), latent=1)
    context = AuditContext(game, *game.init(), Gaussian(1, 2.0), Settings(batch=8), 0)
    (found,) = lambda_search(context)
    assert found.verdict is Verdict.UNASSESSED
    assert "whole batch" in found.summary


@pytest.mark.parametrize("grid", [(1.0,), (2.0, 1.0), (0.0, 1.0), (1.0, math.inf), 3, "ab"])
def test_a_grid_that_is_none_is_one_line(grid: Any) -> None:
    with pytest.raises(RecipeError, match="prox_lambdas"):
        Settings(prox_lambdas=grid)


# -- section 6.1 ----------------------------------------------------------------------------------

WALK = {"experiment_steps": 40, "looks": 4, "batches": 32, "look_batches": 8}


@pytest.mark.parametrize(("lam", "verdict"), [(0.1, Verdict.NOT_REFUTED), (10.0, Verdict.REFUTED)])
def test_section_6_1(lam: float, verdict: Verdict) -> None:
    """lambda* = 1: at 0.1 V_prox holds, at 10 it falls; with D frozen V falls by eta (s - 1) t^2 = 1/2."""
    audit = sampled(
        sampled_game(2.0), 2.0, "generator-vs-prox", prox_lambda=lam, absolute=0.03, **WALK
    )
    found = audit["generator-vs-prox"]
    assert found.verdict is verdict, found.summary
    low, high = found.evidence["frozen_interval"]
    assert low - 0.02 <= 0.5 <= high + 0.02
    assert high - low < 0.1
    curves = found.evidence["curves"]
    assert curves["frozen"]["value"][-1] < curves["frozen"]["value"][0] - 0.4
    assert curves["proximal"]["step"] == [0, 10, 20, 30, 40]
    sheets = {name for name in audit.sheets if name.startswith("generator-vs-prox:")}
    whens = ("before", "during", "after")
    assert sheets == {f"generator-vs-prox:{p}{w}" for p in ("", "frozen-") for w in whens}
    if verdict is Verdict.REFUTED:
        truth = W2Gaussian(1, 2.0)
        w, u = (found.witness["generator"][k].numpy() for k in ("W", "u"))
        fall = 0.5 - truth.v_prox(w, u, [[0.25]], [0.0], lam)
        assert found.evidence["fall"] == pytest.approx(fall, abs=0.05)
    else:
        assert found.witness is None


def test_the_experiment_leaves_the_pair_as_it_was_and_repeats_itself() -> None:
    game = sampled_game(2.0)
    before = {k: x.clone() for part in game.init().players.values() for k, x in part.items()}
    state = torch.get_rng_state()
    brief = WALK | {"experiment_steps": 4, "inner_steps": 5, "prox_lambda": 10.0}
    one, two = (
        sampled(game, 2.0, "generator-vs-prox", **brief)["generator-vs-prox"] for _ in range(2)
    )
    assert json.dumps(one.evidence) == json.dumps(two.evidence)
    after = {k: x for part in game.init().players.values() for k, x in part.items()}
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(state, torch.get_rng_state())
