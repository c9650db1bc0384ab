"""The analytic games against their closed forms."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from equilibrist import VectorField
from equilibrist.formulations.divergences import divergence
from equilibrist.games import GaussianFGAN, GaussianW2GAN, GaussianWGAN
from equilibrist.games.truth import classify
from equilibrist.theory import FGaussian, W2Gaussian, WGaussian1d
from equilibrist.theory.fgan import NAMES

F64 = torch.float64


def t(x: float) -> torch.Tensor:
    return torch.tensor([x], dtype=F64)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("s", [1.3, 0.8])
def test_fgan_losses_by_quadrature_of_the_definition(name, s) -> None:
    game = GaussianFGAN(name, s, 0.8)
    a, b, c = game.project(
        {"generator": {"w": t(1), "u": t(0)}, "critic": {"a": t(0.05), "b": t(0.1), "c": t(-0.2)}}
    )["critic"].values()
    w, u = (0.9, 0.4) if s > 1 else (1.1, 0.4)
    f = divergence(name)

    def score(x: float) -> torch.Tensor:
        q = float(a) * x**2 + float(b) * x + float(c)
        return f.derivative(torch.tensor(math.exp(q), dtype=F64))

    earned, _ = quad(
        lambda x: float(score(x)) * norm.pdf(x, scale=s), -15, 15, epsabs=1e-12, limit=200
    )
    paid, _ = quad(
        lambda x: float(f.conjugate(score(x))) * norm.pdf(x, u, w), -13, 13, epsabs=1e-12, limit=200
    )
    there = {"generator": {"w": t(w), "u": t(u)}, "critic": {"a": a, "b": b, "c": c}}
    losses = game.losses(there, {}, {})
    assert float(losses["generator"]) == pytest.approx(earned - paid, abs=1e-9)
    assert float(losses["critic"]) == -float(losses["generator"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("s", [1.3, 0.8])
def test_fgan_truth(name, s) -> None:
    game = GaussianFGAN(name, s, 0.8)
    (point,) = game.points()
    here = point.players
    closed = game.closed_forms
    assert isinstance(closed, FGaussian)
    assert float(game.losses(here, {}, {})["generator"]) == pytest.approx(
        closed.optimal_value, abs=1e-10
    )
    assert game.value == closed.optimal_value
    for u in (0.2, -0.8):
        moved = {**here, "generator": {**here["generator"], "u": t(u)}}
        gain = game.value - float(game.losses(moved, {}, {})["generator"])
        assert gain == pytest.approx(closed.shift_gain(abs(u)), abs=1e-9)
        assert gain == pytest.approx(float(game.shift_gain(t(u))), abs=1e-9)
    # stationary: the projected gradient step leaves it where it is
    nothing = {"generator": {}, "critic": {}}
    v = VectorField(game)(here, nothing, {}).v
    step = {p: {k: here[p][k] - 1e-3 * v[p][k] for k in here[p]} for p in here}
    torch.testing.assert_close(game.project(step), here, rtol=0, atol=1e-11)
    J = game.jacobian(here)[1:, 1:]
    kind, attracts, leaders = classify(J, {"generator": 1, "critic": 3}, "generator")
    assert (kind, attracts, leaders) == (point.kind, point.attracts, point.leaders)
    best = game.best_critic(t(1.0), t(0.3))
    at = {"generator": {"w": t(1.0), "u": t(0.3)}, "critic": best}
    there = VectorField(game)(at, nothing, {})
    for slope in there.v["critic"].values():
        assert abs(float(slope)) < 1e-9
    assert float(game.losses(at, {}, {})["generator"]) > game.value


def test_fgan_projection_and_refusals() -> None:
    game = GaussianFGAN("jeffreys", 2.0, 0.5)
    wild = {
        "generator": {"w": t(3.0), "u": t(-9.0)},
        "critic": {"a": t(9.0), "b": t(9.0), "c": t(9.0)},
    }
    there = game.project(wild)
    assert float(there["generator"]["w"]) == 1
    assert float(there["generator"]["u"]) == -0.5
    assert 0.375 < float(there["critic"]["a"]) < 0.5
    low = game.project({**wild, "critic": {**wild["critic"], "a": t(-9.0)}})
    assert -0.125 < float(low["critic"]["a"]) < 0.375
    assert game.project(there) == there
    assert float(GaussianFGAN("kl", 0.8).project(wild)["critic"]["a"]) == 0
    for make, words in (
        ({"s": 1.0}, "s must not be 1"),
        ({"s": 0.0}, "s must be positive"),
        ({"t": -1.0}, "t must be positive"),
        ({"nodes": 2}, "nodes must be at least 8"),
        ({"divergence": "pearson", "s": 1.5}, "Pearson is infinite for every feasible generator"),
        ({"divergence": "neyman", "s": 0.6}, "Neyman is infinite"),
    ):
        with pytest.raises(ValueError, match=words):
            GaussianFGAN(**make)


def test_the_games_lead_to_their_closed_forms() -> None:
    assert GaussianW2GAN(2.0, 3, 0.7, 0.4).closed_forms == W2Gaussian(3, 2.0, 0.7, 0.4)
    assert GaussianWGAN(2.0, 0.4).closed_forms == WGaussian1d(2.0, 0.4)
    for s in (2.0, 0.6):
        for game in (GaussianW2GAN(s, 2), GaussianWGAN(s)):
            closed = game.closed_forms
            assert game.value == pytest.approx(closed.optimal_value)
            assert game.lambda_star == closed.lambda_star
        one = np.array([0.3, -0.4])
        assert float(GaussianW2GAN(s, 2).shift_gain(torch.tensor(one))) == pytest.approx(
            W2Gaussian(2, s).shift_gain(one)
        )
        assert float(GaussianWGAN(s).shift_gain(t(0.3))) == pytest.approx(
            WGaussian1d(s).shift_gain(0.3)
        )


def test_the_module_is_reached_from_the_package_lazily() -> None:
    code = (
        "import sys, equilibrist\n"
        "assert 'equilibrist.theory' not in sys.modules\n"
        "assert 'theory' not in equilibrist.__all__\n"
        "print(equilibrist.theory.W2Gaussian(2, 2.0, 0.5, 1.0).lambda_star)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1.0\n", "")
