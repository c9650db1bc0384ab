"""Formulations against closed forms, quadrature and identities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from equilibrist.errors import RecipeError
from equilibrist.formulations import WGAN, LeastSquares, Vanilla, formulation_of
from equilibrist.formulations.named import is_formulation

F64 = torch.float64
ALL = [Vanilla(), Vanilla(saturating=True), WGAN()]


@dataclass
class Scores:
    """A critic that counts its passes."""

    fn: Callable[[Tensor], Tensor]
    samplewise: bool = True
    passes: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.fn(x)


def rand(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


REAL, FAKE = rand(7, 2, seed=0), rand(5, 2, seed=1) + 1
CRITIC = lambda x: torch.tanh(x[:, 0]) - x[:, 1] ** 2 / 3  # noqa: E731


def identity(
    real: Tensor, fake: Tensor, formulation: Any, only: str | None = None
) -> dict[str, Tensor]:
    """The losses at given scores."""
    return formulation.losses(Scores(lambda x: x), real, fake, only)


def test_vanilla_at_zero_is_minus_log_four() -> None:
    zero = torch.zeros(3, dtype=F64)
    losses = identity(zero, zero, Vanilla(saturating=True))
    assert float(losses["generator"]) == pytest.approx(-math.log(4), abs=1e-15)
    assert float(losses["critic"]) == pytest.approx(math.log(4), abs=1e-15)
    assert float(identity(zero, zero, Vanilla())["generator"]) == pytest.approx(
        math.log(2), abs=1e-15
    )


@pytest.mark.parametrize(("shift", "scale"), [(1.5, 0.7), (0.0, 1.0), (4.0, 2.0)])
def test_vanilla_at_the_optimal_critic_is_two_js_minus_log_four(shift: float, scale: float) -> None:
    """Expectations by the midpoint rule in probability, JS by adaptive quadrature."""
    P, Q = stats.norm(0, 1), stats.norm(shift, scale)
    levels = (np.arange(200_000) + 0.5) / 200_000
    real, fake = (torch.from_numpy(law.ppf(levels)) for law in (P, Q))

    def optimal(x: Tensor) -> Tensor:
        return torch.from_numpy(P.logpdf(x.numpy()) - Q.logpdf(x.numpy()))

    def part(p: Any, q: Any) -> float:
        def term(x: float) -> float:
            m = (p.pdf(x) + q.pdf(x)) / 2
            return 0.0 if p.pdf(x) == 0 else p.pdf(x) * math.log(p.pdf(x) / m)

        return integrate.quad(term, -12, 20, points=[0, shift], limit=400, epsabs=1e-12)[0]

    js = (part(P, Q) + part(Q, P)) / 2
    best = float(Vanilla(True).losses(Scores(optimal), real, fake)["generator"])
    assert best == pytest.approx(2 * js - math.log(4), abs=2e-5)
    if shift:
        assert js > 0.05
    for worse in (
        lambda x: optimal(x) + 0.3,
        lambda x: 1.3 * optimal(x) - 0.2 * x,
        lambda x: 0 * x,
    ):
        value = -float(Vanilla().losses(Scores(worse), real, fake)["critic"])
        assert value <= best + 2e-5


def test_definitions_on_known_scores() -> None:
    real, fake = torch.tensor([1.0, -2.0, 0.5], dtype=F64), torch.tensor([0.0, 3.0], dtype=F64)

    def s(d: float) -> float:
        return 1 / (1 + math.exp(-d))

    value = (
        sum(math.log(s(d)) for d in (1, -2, 0.5)) / 3 + sum(math.log(1 - s(d)) for d in (0, 3)) / 2
    )
    own = -(math.log(s(0)) + math.log(s(3))) / 2
    for saturating, generator in ((True, value), (False, own)):
        losses = identity(real, fake, Vanilla(saturating))
        assert float(losses["critic"]) == pytest.approx(-value, abs=1e-14)
        assert float(losses["generator"]) == pytest.approx(generator, abs=1e-14)
    losses = identity(real, fake, WGAN())
    assert float(losses["generator"]) == pytest.approx(-0.5 / 3 - 1.5, abs=1e-14)
    assert float(losses["critic"]) == pytest.approx(0.5 / 3 + 1.5, abs=1e-14)


@pytest.mark.parametrize("formulation", ALL, ids=repr)
def test_zero_sum_claims_are_exact(formulation: Any) -> None:
    losses = formulation.losses(Scores(CRITIC), REAL, FAKE)
    assert set(losses) == {"generator", "critic"}
    total = float(losses["generator"] + losses["critic"])
    assert (total == 0) is formulation.zero_sum
    assert formulation.zero_sum is not (formulation == Vanilla())


@pytest.mark.parametrize("formulation", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_scores_have_finite_losses_and_gradients(
    formulation: Any, dtype: torch.dtype, size: float
) -> None:
    real, fake = (torch.full((3,), size, dtype=dtype, requires_grad=True) for _ in range(2))
    for player, loss in identity(real, fake, formulation).items():
        assert torch.isfinite(loss), player
        for g in torch.autograd.grad(loss, (real, fake), retain_graph=True, materialize_grads=True):
            assert torch.isfinite(g).all()
            assert g.abs().max() <= 1
    if isinstance(formulation, Vanilla):
        # A sure and wrong critic pays the logits themselves.
        assert float(identity(real, -real, formulation)["critic"].detach()) == pytest.approx(
            0.0 if size > 0 else 2e4, rel=1e-6
        )


def test_generators_gradient_by_score() -> None:
    """On fake scores d: -s(-d)/B non-saturating, -s(d)/B saturating, -1/B for WGAN."""
    fake = torch.tensor([-8.0, -1.0, 0.0, 2.0, 6.0], dtype=F64, requires_grad=True)
    real = torch.zeros(3, dtype=F64)
    expected = {
        Vanilla(): -torch.sigmoid(-fake) / 5,
        Vanilla(True): -torch.sigmoid(fake) / 5,
        WGAN(): -torch.ones(5, dtype=F64) / 5,
    }
    for formulation, gradient in expected.items():
        for only in (None, "generator"):
            (g,) = torch.autograd.grad(identity(real, fake, formulation, only)["generator"], fake)
            torch.testing.assert_close(g, gradient.detach(), rtol=1e-12, atol=1e-15)


def test_critics_gradient_by_score() -> None:
    real = torch.tensor([-8.0, 0.0, 3.0], dtype=F64, requires_grad=True)
    fake = torch.tensor([-1.0, 2.0], dtype=F64, requires_grad=True)
    for formulation, on_real, on_fake in (
        (Vanilla(), -torch.sigmoid(-real) / 3, torch.sigmoid(fake) / 2),
        (WGAN(), -torch.ones(3, dtype=F64) / 3, torch.ones(2, dtype=F64) / 2),
    ):
        gradients = torch.autograd.grad(
            identity(real, fake, formulation, "critic")["critic"], (real, fake)
        )
        for g, e in zip(gradients, (on_real, on_fake), strict=True):
            torch.testing.assert_close(g, e.detach(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("formulation", ALL, ids=repr)
@pytest.mark.parametrize("only", [None, "critic", "generator"])
def test_one_pass_equals_two(formulation: Any, only: str | None) -> None:
    joint, apart = Scores(CRITIC, True), Scores(CRITIC, False)
    a, b = (formulation.losses(c, REAL, FAKE, only) for c in (joint, apart))
    assert a.keys() == b.keys()
    for player in a:
        torch.testing.assert_close(a[player], b[player], rtol=1e-13, atol=1e-14)
        assert a[player].shape == ()
    assert (joint.passes, apart.passes) == ((1, 1) if only == "generator" else (1, 2))


def test_a_critic_that_mixes_samples_never_sees_real_and_fake_together() -> None:
    centred = Scores(lambda x: x - x.mean(), samplewise=False)
    losses = WGAN().losses(centred, REAL[:, 0] + 5, FAKE[:, 0])
    assert float(losses["critic"]) == pytest.approx(0.0, abs=1e-14)
    joint = WGAN().losses(Scores(centred.fn, True), REAL[:, 0] + 5, FAKE[:, 0])
    assert float(joint["critic"]) < -1


@pytest.mark.parametrize("formulation", ALL, ids=repr)
def test_only_differs_by_a_constant_of_that_player(formulation: Any) -> None:
    full = formulation.losses(Scores(CRITIC), REAL, FAKE)
    critic = formulation.losses(Scores(CRITIC), REAL, FAKE, "critic")
    assert list(critic) == ["critic"]
    torch.testing.assert_close(critic["critic"], full["critic"], rtol=1e-14, atol=0)
    gaps = [
        float(
            formulation.losses(Scores(CRITIC), REAL, f)["generator"]
            - formulation.losses(Scores(CRITIC), REAL, f, "generator")["generator"]
        )
        for f in (FAKE, FAKE * 2, FAKE - 3)
    ]
    assert max(gaps) - min(gaps) < 1e-13


def test_scales() -> None:
    assert float(Vanilla().scale(Scores(CRITIC), REAL, FAKE)) == 1
    scores = np.concatenate([CRITIC(REAL).numpy(), CRITIC(FAKE).numpy()])
    assert float(WGAN().scale(Scores(CRITIC), REAL, FAKE)) == pytest.approx(
        scores.std(ddof=1), rel=1e-12
    )


@pytest.mark.parametrize("formulation", ALL, ids=repr)
def test_words(formulation: Any) -> None:
    assert "V = " in formulation.formula
    assert "minimises V" in formulation.formula or "non-saturating" in formulation.formula
    assert ("non-saturating" in formulation.formula) is (not formulation.zero_sum)
    assert formulation.unit
    assert "\n" not in formulation.formula


@pytest.mark.parametrize("name", ["least-squares", "least_squares", "Least_Squares"])
def test_names_are_taken_as_they_are_written_elsewhere(name: str) -> None:
    assert is_formulation(name)
    assert formulation_of(name) == LeastSquares()
    with pytest.raises(RecipeError, match="there is no formulation 'leastsquare'"):
        formulation_of("leastsquare")
