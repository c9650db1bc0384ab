"""GradientPenalty against closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist._errors import GameError
from equilibrist._field import VectorField
from equilibrist.formulations import WGAN
from equilibrist.games import GAN
from equilibrist.penalties import GradientPenalty, input_gradient

F64 = torch.float64
G = torch.Generator().manual_seed(0)
REAL, FAKE = (
    torch.randn(6, 3, generator=G, dtype=F64),
    torch.randn(6, 3, generator=G, dtype=F64) - 1,
)
MIX = torch.rand(6, generator=G, dtype=F64)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 4.0])
def test_linear_critic(factor: float) -> None:
    w = torch.tensor([1.0, 2.0, -2.0], dtype=F64) * factor
    paid = GradientPenalty()(lambda x: x @ w + 3, REAL, FAKE, MIX)
    assert float(paid) == pytest.approx(10 * (3 * factor - 1) ** 2, abs=1e-13)
    assert paid.shape == ()


def test_weight_and_target() -> None:
    w = torch.tensor([3.0, 0.0, 4.0], dtype=F64)
    assert float(GradientPenalty(0.5, 2.0)(lambda x: x @ w, REAL, FAKE, MIX)) == pytest.approx(
        4.5, abs=1e-13
    )


def test_norm_critic_pays_nothing() -> None:
    """|grad |x|| = 1 wherever x is not zero."""
    paid = GradientPenalty()(lambda x: x.norm(dim=1), REAL, FAKE, MIX)
    assert float(paid) < 1e-28


def test_quadratic_critic_at_the_mixed_points() -> None:
    """grad 1/2 |x|^2 = x: the penalty shows where it was taken, real first in the mix."""
    points = torch.stack([m * r + (1 - m) * f for m, r, f in zip(MIX, REAL, FAKE, strict=True)])
    expected = 10 * ((points**2).sum(1).sqrt() - 1).square().mean()
    paid = GradientPenalty()(lambda x: (x**2).sum(1) / 2, REAL, FAKE, MIX)
    torch.testing.assert_close(paid, expected, rtol=1e-13, atol=0)
    for mix, end in ((torch.ones(6, dtype=F64), REAL), (torch.zeros(6, dtype=F64), FAKE)):
        paid = GradientPenalty()(lambda x: (x**2).sum(1) / 2, REAL, FAKE, mix)
        torch.testing.assert_close(
            paid, 10 * (end.norm(dim=1) - 1).square().mean(), rtol=1e-13, atol=0
        )


def test_one_norm_and_one_mixing_weight_per_sample() -> None:
    """D = 1/2 |x|^2 at points of norm 0.5 and 1.5: 10 * mean(0.25, 0.25) = 2.5.

    One norm over the batch would give 10 (sqrt(2.5) - 1)^2 = 3.377; the mean norm, 0.
    """
    real = torch.zeros(2, 1, 2, 2, dtype=F64)
    real[0, 0, 0, 1], real[1, 0, 1, 1] = 0.5, 1.5
    paid = GradientPenalty()(
        lambda x: (x**2).sum((1, 2, 3)) / 2, real, torch.zeros_like(real), torch.ones(2, dtype=F64)
    )
    assert float(paid) == pytest.approx(2.5, abs=1e-14)
    paid = GradientPenalty()(
        lambda x: (x**2).sum((1, 2, 3)) / 2,
        real,
        torch.zeros_like(real),
        torch.tensor([1.0, 0.5], dtype=F64),
    )
    assert float(paid) == pytest.approx(10 * (0.25 + 0.0625) / 2, abs=1e-14)


def test_gradient_reaches_the_critic_and_the_fake_samples() -> None:
    """d/dw of 10 (|w| - 1)^2 = 20 (|w| - 1) w / |w|: a penalty whose gradients lost their graph gives 0."""
    w = torch.tensor([1.0, 2.0, -2.0], dtype=F64, requires_grad=True)
    GradientPenalty()(lambda x: x @ w, REAL, FAKE, MIX).backward()
    torch.testing.assert_close(w.grad, 20 * 2 * w.detach() / 3, rtol=1e-13, atol=0)
    fake = FAKE.clone().requires_grad_()
    GradientPenalty()(lambda x: (x**2).sum(1) / 2, REAL, fake, MIX).backward()
    assert fake.grad is not None
    assert fake.grad.abs().sum() > 0.1


def test_finite_where_the_critics_gradient_is_zero() -> None:
    w = torch.zeros(3, dtype=F64, requires_grad=True)
    paid = GradientPenalty()(lambda x: x @ w, REAL, FAKE, MIX)
    paid.backward()
    assert float(paid.detach()) == 10
    assert torch.isfinite(w.grad).all()


def test_under_vmap_equals_a_loop() -> None:
    weights = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    real, fake = (
        torch.stack([REAL * k for k in range(1, 5)]),
        torch.stack([FAKE + k for k in range(4)]),
    )
    mix = torch.stack([MIX, 1 - MIX, MIX**2, MIX / 2])

    def paid(w: Tensor, r: Tensor, f: Tensor, m: Tensor) -> Tensor:
        return GradientPenalty()(lambda x: torch.tanh(x @ w), r, f, m)

    together = torch.func.vmap(paid)(weights, real, fake, mix)
    alone = torch.stack([paid(*args) for args in zip(weights, real, fake, mix, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


def test_input_gradient() -> None:
    A = torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=F64)
    gradient = input_gradient(lambda x: ((x @ A) * x).sum(1), REAL)
    torch.testing.assert_close(gradient, REAL @ (A + A.T), rtol=1e-12, atol=1e-12)


def game(critic: nn.Module) -> GAN:
    return GAN(nn.Linear(2, 3, dtype=F64), critic, WGAN(), latent=2, penalties=[GradientPenalty()])


def test_batch_norm_critic_is_refused_in_train_mode_and_taken_in_eval_mode() -> None:
    critic = nn.Sequential(
        nn.Linear(3, 4, dtype=F64),
        nn.BatchNorm1d(4, dtype=F64),
        nn.Tanh(),
        nn.Linear(4, 1, dtype=F64),
    )
    with pytest.raises(GameError, match=r"GradientPenalty.*batch norm") as caught:
        game(critic)
    assert "\n" not in str(caught.value)
    assert not game(critic.eval()).zero_sum


class Dead(nn.Module):
    """A ReLU critic all of whose units rest on the samples at hand: its input gradient is exactly zero."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4, dtype=F64), nn.Linear(4, 1, dtype=F64)
        nn.init.constant_(self.a.bias, -100.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


def dead_start() -> tuple[VectorField, Any, Any, Any]:
    g = game(Dead())
    draw = {"real": REAL, "latent": FAKE[:, :2], "mix": MIX}
    return VectorField(g), *g.init(), draw


def test_a_dead_critic_has_a_finite_field() -> None:
    field, players, constants, draw = dead_start()
    v = field(players, constants, draw)
    assert float(v.losses["critic"]) == pytest.approx(10.0)
    assert float(tree.norm(v.v)) == 0.0


def test_a_dead_critic_has_finite_second_order_products() -> None:
    field, players, constants, draw = dead_start()
    u = tree.map(torch.ones_like, players)
    assert torch.isfinite(tree.norm(field.jvp(players, constants, u, draw)))
    assert torch.isfinite(tree.norm(field.vjp(players, constants, u, draw)))
