"""Random numbers that modules draw for themselves: part of a draw, against closed forms."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equilibrist import GAN, LeastSquares, Mixture, VectorField, audit_pair, tree
from equilibrist.core.draws import Draws, StackedDraws
from equilibrist.data import ArraySource
from equilibrist.errors import GameError
from equilibrist.nn import noise
from equilibrist.penalties import GradientPenalty

DIM, KEEP = 3, 0.5
REAL = torch.randn(400, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SOURCE = ArraySource(REAL, kind="points", dtype=torch.float64)


def linear(dim: int, out: int) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(dim, out, bias=False).double()


def game(**options: Any) -> GAN:
    """x = z A^T + Gumbel-free noise of its own, D(x) = w . dropout(x)."""
    critic = nn.Sequential(nn.Dropout(1 - KEEP), linear(DIM, 1))
    return GAN(Noisy(), critic, LeastSquares(1, 0, 1), latent=2, **options)


class Noisy(nn.Module):
    """A generator that adds noise of its own, N(0, size^2)."""

    def __init__(self, size: float = 0.7, source: str = "torch") -> None:
        super().__init__()
        self.map, self.source = linear(2, DIM), source
        self.size = nn.Parameter(torch.tensor(size, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        x = self.map(z)
        if self.source == "numpy":
            return x + self.size * torch.from_numpy(np.random.standard_normal(x.shape))
        if self.source == "python":
            return x + self.size * random.gauss(0, 1)
        return x + self.size * torch.randn_like(x)


def draw_of(seed: int, batch: int = 64, built: GAN | None = None) -> dict[str, Tensor]:
    return (built or game()).draw(np.random.default_rng(seed), SOURCE, batch, torch.float64)


def exact(built: GAN, players: Any, real: Tensor) -> dict[str, Tensor]:
    """The expectation of the losses over latents, noise and masks: with x ~ (m, S) and dropout of rate 1 - p,
    E (w . d(x) - a)^2 = (w . m - a)^2 + w^T S w + (1 - p) / p sum_i w_i^2 (S_ii + m_i^2)."""
    w = players["critic"]["1.weight"][0]
    a, size = players["generator"]["map.weight"], players["generator"]["size"]
    cov = a @ a.mT + size**2 * torch.eye(DIM, dtype=torch.float64)

    def second(mean: Tensor, cov: Tensor, target: float) -> Tensor:
        masked = (w.square() * (cov.diagonal() + mean.square())).sum() * (1 - KEEP) / KEEP
        return (w @ mean - target) ** 2 + w @ cov @ w + masked

    of_real = second(real.mean(0), torch.cov(real.mT, correction=0), 1.0)
    zero = torch.zeros(DIM, dtype=torch.float64)
    return {
        "critic": (of_real + second(zero, cov, 0.0)) / 2,
        "generator": second(zero, cov, 1.0) / 2,
    }


def test_a_loss_is_a_function_of_weights_and_draw() -> None:
    built = game()
    start = built.init()
    assert built.noise == ("generator (Noisy)", "critic.0 (Dropout)")
    before = torch.get_rng_state()
    draw = draw_of(0)
    once, twice = (built.losses(*start, draw) for _ in range(2))
    other = built.losses(*start, {**draw, "noise": draw["noise"] + 1})
    assert torch.equal(before, torch.get_rng_state())
    for player in built.players:
        assert torch.equal(once[player], twice[player])
        assert not torch.equal(once[player], other[player])
        alone = built.losses(*start, draw, only=player)
        assert torch.equal(once[player], alone[player])
    held = {**draw, "fake": built.fakes(*start, draw)}
    assert torch.equal(once["critic"], built.losses(*start, held, only="critic")["critic"])


def test_means_over_draws_are_the_closed_form() -> None:
    built = game()
    start = built.init()
    seen = [built.losses(*start, draw_of(seed, 400)) for seed in range(120)]
    wanted = exact(built, start.players, REAL)
    for player in built.players:
        values = torch.stack([losses[player] for losses in seen])
        error = values.std() / len(values) ** 0.5
        assert abs(float(values.mean() - wanted[player])) < 4 * float(error)
        assert float(error) < 0.03 * float(wanted[player])


def test_gradients_over_draws_are_those_of_the_closed_form() -> None:
    built = game()
    start = built.init()
    field = VectorField(built)
    seen = [tree.flatten(field(*start, draw_of(seed, 400)).v) for seed in range(120)]
    leaves = tree.map(lambda t: t.clone().requires_grad_(), start.players)
    losses = exact(built, leaves, REAL)
    wanted = torch.cat(
        [
            g.flatten()
            for player in start.players
            for g in torch.autograd.grad(
                losses[player], tuple(leaves[player].values()), retain_graph=True
            )
        ]
    )
    error = torch.stack(seen).std(0) / len(seen) ** 0.5
    assert bool(((torch.stack(seen).mean(0) - wanted).abs() < 4.5 * error).all())


@pytest.mark.parametrize("source", noise.GLOBAL)
def test_numpys_and_pythons_noise_is_seeded_too(source: str) -> None:
    built = GAN(Noisy(source=source), nn.Linear(DIM, 1).double(), "hinge", latent=2)
    start, draw = built.init(), draw_of(2, 8, built)
    states = noise.random_states()
    assert torch.equal(built.fakes(*start, draw), built.fakes(*start, draw))
    assert not torch.equal(
        built.fakes(*start, draw), built.fakes(*start, {**draw, "noise": draw["noise"] + 1})
    )
    assert noise.drawn_since(states) == ()


def test_members_of_a_stack_see_their_own_noise() -> None:
    built = game()
    starts = [built.init(), built.init()]
    draws = [
        Draws(lambda rng: built.draw(rng, SOURCE, 16, torch.float64), seed, 0) for seed in (5, 6)
    ]
    together = StackedDraws(draws).batch()
    stacked = VectorField(built, stacked=2)(
        tree.stack([s.players for s in starts]), tree.stack([s.constants for s in starts]), together
    )
    for i, (start, draw) in enumerate(zip(starts, draws, strict=True)):
        alone = VectorField(built)(*start, draw.batch())
        for player in built.players:
            assert torch.equal(stacked.losses[player][i], alone.losses[player])
            assert torch.equal(
                tree.flatten(tree.member(stacked.v, i)[player]), tree.flatten(alone.v[player])
            )


def test_scores_are_still_of_single_samples() -> None:
    assert game().samplewise
    assert game(penalties=[GradientPenalty(1.0)]).samplewise
    mixing = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(DIM), linear(DIM, 1)).double()
    assert not GAN(Noisy(), mixing, "wgan", latent=2).samplewise


def test_no_parts_and_no_mixture() -> None:
    built = game()
    with pytest.raises(GameError, match=r"random numbers are drawn within generator \(Noisy\)"):
        VectorField(built, parts=2)
    with pytest.raises(GameError, match=r"random numbers drawn within them.*\.eval\(\)"):
        Mixture(
            GAN(linear(2, DIM), nn.Sequential(nn.Dropout(), linear(DIM, 1)), "wgan", latent=2), 4
        )


def test_seeds_differ_in_every_word() -> None:
    seeds = {
        noise.derived(s, a, b) % 2**32
        for s in (0, 1, 2**32, 2**40)
        for a in range(8)
        for b in range(8)
    }
    assert len(seeds) == 4 * 64
    assert all(0 <= noise.derived(s) < 2**63 for s in (0, 2**63 - 1))


def test_an_audit_says_that_losses_are_expectations_over_noise() -> None:
    critic = nn.Sequential(nn.Linear(DIM, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1)).double()
    found = audit_pair(Noisy(), critic, REAL, "vanilla", latent=2, gradients=800, progress="none")
    assert found["self-tests"].verdict == "VERIFIED"
    assert "critic.2 (Dropout)" in found["nash"].scope["noise"]
    assert any("critic.2 (Dropout)" in line for line in found["nash"].limits)
    again = audit_pair(Noisy(), critic, REAL, "vanilla", latent=2, gradients=800, progress="none")
    assert str(found) == str(again)


def test_the_jacobian_over_draws_is_that_of_the_closed_form() -> None:
    built = game()
    start = built.init()
    field = VectorField(built)
    n = tree.count(start.players)
    units = [tree.unflatten(row, start.players) for row in torch.eye(n, dtype=torch.float64)]
    seen = []
    for seed in range(100):
        draw = draw_of(seed, 400)
        seen.append(torch.stack([tree.flatten(field.jvp(*start, u, draw)) for u in units], 1))

    def v(x: Tensor) -> Tensor:
        players = tree.unflatten(x, start.players)
        losses = exact(built, players, REAL)
        parts = [
            torch.autograd.grad(losses[p], tuple(players[p].values()), create_graph=True)
            for p in start.players
        ]
        return torch.cat([g.flatten() for part in parts for g in part])

    with torch.enable_grad():
        wanted = torch.autograd.functional.jacobian(v, tree.flatten(start.players))
    error = torch.stack(seen).std(0) / len(seen) ** 0.5
    off = (torch.stack(seen).mean(0) - wanted).abs()
    assert bool((off <= 5 * error + 1e-12).all())
    assert float(error.max()) < 0.1 * float(wanted.abs().max())


class Gumbel(nn.Module):
    """Two classes by Gumbel-softmax at logits of its own, whatever the latent."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.3, -0.4], dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return nn.functional.gumbel_softmax(self.logits.expand(len(z), 2), tau=0.5)


def test_gumbel_noise_against_quadrature() -> None:
    """Of two classes the softmax of logits a, b with Gumbel noise is sigmoid((a - b + L) / tau), L logistic."""
    critic = nn.Sequential(nn.Dropout(0.5), linear(2, 1))
    built = GAN(Gumbel(), critic, "wgan", latent=1)
    start = built.init()
    field, source = VectorField(built), ArraySource(REAL[:, :2], kind="points", dtype=torch.float64)
    draws = [built.draw(np.random.default_rng(s), source, 200, torch.float64) for s in range(150)]
    seen = torch.stack([field(*start, draw).v["generator"]["logits"] for draw in draws])
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    logits = start.players["generator"]["logits"].clone().requires_grad_()
    first = torch.sigmoid((logits[0] - logits[1] + torch.logit(u)) / 0.5).mean()
    w = start.players["critic"]["1.weight"][0]
    loss = -(w[0] * first + w[1] * (1 - first))
    (wanted,) = torch.autograd.grad(loss, logits)
    error = seen.std(0) / len(seen) ** 0.5
    assert bool(((seen.mean(0) - wanted).abs() < 4.5 * error).all())
    assert float(error.max()) < 0.1 * float(wanted.abs().max())
