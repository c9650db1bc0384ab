"""Penalties against closed forms, and the input gradient's two paths against each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.core.jacobian import JacobianOperator
from equilibrist.errors import GameError
from equilibrist.formulations import WGAN
from equilibrist.games import GAN
from equilibrist.penalties import R1, R2, GradientPenalty, input_gradient

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


# -- one-sided, R1, R2 ----------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.0, 0.2, 0.5, 4.0])
def test_one_sided_pays_only_above_the_target(factor: float) -> None:
    w = torch.tensor([1.0, 2.0, -2.0], dtype=F64) * factor
    paid = GradientPenalty(one_sided=True)(lambda x: x @ w, REAL, FAKE, MIX)
    assert float(paid) == pytest.approx(10 * max(0.0, 3 * factor - 1) ** 2, abs=1e-13)
    both = GradientPenalty(3.0, 2.0, one_sided=True)(lambda x: x @ w, REAL, FAKE, MIX)
    assert float(both) == pytest.approx(3 * max(0.0, 3 * factor - 2) ** 2, abs=1e-13)


def test_one_sided_counts_sample_by_sample() -> None:
    """D = 1/2 |x|^2 at norms 0.5 and 1.5: only the second pays, 10 * 0.25 / 2."""
    real = torch.tensor([[0.5, 0.0], [0.0, 1.5]], dtype=F64)
    paid = GradientPenalty(one_sided=True)(
        lambda x: (x**2).sum(1) / 2, real, torch.zeros_like(real), torch.ones(2, dtype=F64)
    )
    assert float(paid) == pytest.approx(1.25, abs=1e-14)


@pytest.mark.parametrize("penalty", [R1, R2])
def test_r1_and_r2_on_known_critics(penalty: Any) -> None:
    """|w|^2 for a linear critic; |x|^2 for 1/2 |x|^2, at real samples (R1) or generated ones (R2)."""
    w = torch.tensor([1.0, 2.0, -2.0], dtype=F64)
    assert float(penalty(3.0)(lambda x: x @ w + 1, REAL, FAKE, None)) == pytest.approx(13.5)
    where = REAL if penalty is R1 else FAKE
    paid = penalty(3.0)(lambda x: (x**2).sum(1) / 2, REAL, FAKE, None)
    torch.testing.assert_close(paid, 1.5 * where.square().sum(1).mean(), rtol=1e-14, atol=0)
    assert paid.shape == ()
    images = [x.reshape(6, 1, 3, 1) for x in (REAL, FAKE)]
    paid = penalty(3.0)(lambda x: (x**2).sum((1, 2, 3)) / 2, *images, None)
    torch.testing.assert_close(paid, 1.5 * where.square().sum(1).mean(), rtol=1e-14, atol=0)


def test_r1_and_r2_need_no_mixing_weights() -> None:
    for penalty, needs in ((R1(), False), (R2(), False), (GradientPenalty(), True)):
        assert penalty.needs_mix is needs
        g = GAN(nn.Linear(2, 3), nn.Linear(3, 1), WGAN(), latent=2, penalties=[penalty])
        assert not g.zero_sum
        assert g.separable


@pytest.mark.parametrize("penalty", [R1, R2, GradientPenalty])
@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_bad_weights(penalty: Any, weight: float) -> None:
    with pytest.raises(ValueError, match=penalty.__name__ + r"\.weight") as caught:
        penalty(weight)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("penalty", [R1, R2])
def test_dirac_gan(penalty: Any, gamma: float) -> None:
    """Eigenvalues gamma/2 +- sqrt(gamma^2/4 - 1) at the equilibrium (Mescheder et al. 2018, WGAN)."""

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.zeros(1, dtype=F64))

        def forward(self, z: Tensor) -> Tensor:
            return self.theta + 0 * z

    critic = nn.Linear(1, 1, bias=False, dtype=F64)
    nn.init.zeros_(critic.weight)
    g = GAN(Point(), critic, WGAN(), latent=1, penalties=[penalty(gamma)])
    zero = torch.zeros(4, 1, dtype=F64)
    J = JacobianOperator(VectorField(g), *g.init(), [{"real": zero, "latent": zero}]).dense()
    found = torch.linalg.eigvals(J)
    root = torch.sqrt(torch.tensor(gamma**2 / 4 - 1, dtype=torch.complex128))
    for sign in (1, -1):
        assert float((found - (gamma / 2 + sign * root)).abs().min()) < 1e-7


# -- the two paths of the input gradient ----------------------------------------------------------

WEIGHTS = {
    "a": torch.randn(3, 5, generator=torch.Generator().manual_seed(3), dtype=F64),
    "b": torch.randn(5, 5, generator=torch.Generator().manual_seed(4), dtype=F64),
    "c": torch.randn(5, generator=torch.Generator().manual_seed(5), dtype=F64),
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "softplus": functional.softplus,
    "torch.relu": torch.relu,
    "Tensor.relu": lambda x: x.relu(),
    "F.relu": functional.relu,
    "F.relu in place": lambda x: functional.relu(x, True),
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.leaky_relu": functional.leaky_relu,
    "F.leaky_relu 0.3": lambda x: functional.leaky_relu(x, 0.3),
    "F.leaky_relu in place": lambda x: functional.leaky_relu(x, 0.3, True),
    "nn.LeakyReLU": nn.LeakyReLU(0.2),
    "nn.LeakyReLU in place": nn.LeakyReLU(0.2, inplace=True),
}
PENALTIES = [GradientPenalty(), GradientPenalty(one_sided=True), R1(3.0), R2(3.0)]


def net(weights: dict[str, Tensor], activation: Callable[[Tensor], Tensor]) -> Any:
    return lambda x: activation(activation(x @ weights["a"] + 0.1) @ weights["b"]) @ weights["c"]


def reference(penalty: Any, critic: Any, fake: Tensor) -> Tensor:
    """The penalty by plain torch.func.grad, written out."""
    x = {R1: REAL, R2: fake}.get(type(penalty), MIX[:, None] * REAL + (1 - MIX[:, None]) * fake)
    g = torch.func.grad(lambda points: critic(points).sum())(x)
    if isinstance(penalty, R1 | R2):
        return penalty.weight / 2 * g.square().sum(1).mean()
    excess = g.norm(dim=1) - 1
    return penalty.weight * (excess.clamp_min(0) if penalty.one_sided else excess).square().mean()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
def test_both_paths_equal_the_reference_and_its_derivatives(name: str, penalty: Any) -> None:
    """The value, its gradient by the critic's weights and by the generator's shift through the generated
    samples, and the derivative of that gradient along a direction: three orders of D in all."""
    activation, shift = ACTIVATIONS[name], torch.full((3,), 0.2, dtype=F64)

    def plain(critic: Any, fake: Tensor) -> Tensor:
        assert not torch._C._are_functorch_transforms_active()
        return penalty(critic, REAL, fake, MIX)

    def mapped(critic: Any, fake: Tensor) -> Tensor:
        def one(fake: Tensor) -> Tensor:
            assert torch._C._are_functorch_transforms_active()
            return penalty(critic, REAL, fake, MIX)

        return torch.func.vmap(one)(fake[None])[0]

    def derivatives(paid: Any) -> list[Tensor]:
        leaves = [w.clone().requires_grad_() for w in (*WEIGHTS.values(), shift)]
        critic = net(dict(zip(WEIGHTS, leaves[:3], strict=True)), activation)
        value = paid(critic, FAKE * 1.5 + leaves[3])
        first = torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True)
        along = sum((g * g.detach().cos()).sum() for g in first)
        second = torch.autograd.grad(along, leaves, materialize_grads=True)
        return [t.detach() for t in (value, *first, *second)]

    expected = derivatives(lambda critic, fake: reference(penalty, critic, fake))
    for paid in (plain, mapped):
        for found, known in zip(derivatives(paid), expected, strict=True):
            torch.testing.assert_close(found, known, rtol=1e-12, atol=1e-12)
    by_shift = float(expected[4].abs().max())
    smooth = name in ("tanh", "softplus")
    assert (by_shift > 1e-3) is (smooth and not isinstance(penalty, R1))
    assert float(expected[1].abs().max()) > 1e-3


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if "place" not in n])
def test_the_slope_at_zero_is_torchs(name: str) -> None:
    x = torch.tensor([[0.0], [-0.0], [1.0], [-1.0], [math.inf]], dtype=F64, requires_grad=True)
    activation = ACTIVATIONS[name]
    (expected,) = torch.autograd.grad(activation(x).sum(), x)
    found = input_gradient(lambda points: activation(points).sum(1), x.detach())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if "elu" in n])
def test_piecewise_linear_critics_leave_no_graph_through_their_slopes(name: str) -> None:
    """What the fast path is for: a bias moves only where the pieces meet, so the gradient by x has no
    graph to it, and the second pass carries nothing back through the forward one."""
    w, b = REAL[:2].clone().requires_grad_(), torch.zeros(2, dtype=F64, requires_grad=True)
    activation = ACTIVATIONS[name]
    gradient = input_gradient(lambda x: activation(x @ w.T + b + 0.1).sum(1), FAKE)
    by_w, by_b = torch.autograd.grad(gradient.square().sum(), (w, b), allow_unused=True)
    assert float(by_w.abs().sum()) > 0.1
    if "place" not in name:
        assert by_b is None


def test_undefined_scores_stay_undefined() -> None:
    """A piecewise rule that swallowed a NaN would hide a failing run."""
    w = torch.full((1, 1), math.nan, dtype=F64, requires_grad=True)
    x = torch.ones(2, 1, dtype=F64)
    for activation in (torch.relu, functional.leaky_relu):
        gradient = input_gradient(lambda p, f=activation: f(p @ w).sum(1), x)
        assert bool(gradient.isnan().all())


def test_no_graph_where_nothing_moves() -> None:
    w = torch.ones(3, dtype=F64)
    for penalty in PENALTIES:
        assert not penalty(lambda x: torch.tanh(x @ w), REAL, FAKE, MIX).requires_grad
        assert not penalty(lambda x: torch.zeros(len(x)), REAL, FAKE, MIX).requires_grad
        w.requires_grad_()
        assert penalty(lambda x: torch.tanh(x @ w), REAL, FAKE, MIX).requires_grad
        with torch.no_grad():
            paid = penalty(lambda x: torch.tanh(x @ w), REAL, FAKE, MIX)
        assert not paid.requires_grad
        assert float(paid) > 0
        w.requires_grad_(False)


def test_arguments_are_left_as_they_were() -> None:
    real = REAL.clone()
    input_gradient(lambda x: (x**2).sum(1), real)
    assert not real.requires_grad
    assert real.grad is None


@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
def test_jacobian_products_with_penalties(penalty: Any) -> None:
    """J u against differences of v, J^T w by its adjoint; the block of the critic's gradient by the
    generator's parameters included, which a penalty on detached samples would lose."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(3, 6, dtype=F64), nn.Tanh(), nn.Linear(6, 1, dtype=F64))
    with torch.no_grad():
        for p in critic.parameters():
            p.mul_(2.5)
    g = GAN(nn.Linear(2, 3, dtype=F64), critic, WGAN(), latent=2, penalties=[penalty])
    field, (players, constants) = VectorField(g), g.init()
    draw = {"real": REAL, "latent": FAKE[:, :2], "mix": MIX}
    generator = torch.Generator().manual_seed(8)
    u, w = (
        tree.map(lambda p: torch.randn(p.shape, generator=generator, dtype=F64), players)
        for _ in range(2)
    )
    u["critic"] = {k: 0 * p for k, p in u["critic"].items()}  # the generator moves alone
    forward = tree.flatten(field.jvp(players, constants, u, draw))
    v = [
        tree.flatten(field(tree.map(lambda p, d, h=h: p + h * d, players, u), constants, draw).v)
        for h in (1e-5, -1e-5)
    ]
    torch.testing.assert_close(forward, (v[0] - v[1]) / 2e-5, rtol=1e-6, atol=1e-7)
    back = tree.flatten(field.vjp(players, constants, w, draw))
    assert float(back @ tree.flatten(u)) == pytest.approx(
        float(tree.flatten(w) @ forward), rel=1e-10
    )
    without = VectorField(GAN(nn.Linear(2, 3, dtype=F64), critic, WGAN(), latent=2))
    bare = tree.flatten(without.jvp(players, constants, u, draw))
    felt = float((forward - bare).norm())
    assert (felt > 1e-3) is (not isinstance(penalty, R1))


def test_stacked_fields_with_penalties() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(3, 6, dtype=F64), nn.LeakyReLU(), nn.Linear(6, 1, dtype=F64))
    g = GAN(nn.Linear(2, 3, dtype=F64), critic, WGAN(), latent=2, penalties=PENALTIES)
    players, constants = g.init()
    draw = {"real": REAL, "latent": FAKE[:, :2], "mix": MIX}
    two = [tree.map(lambda leaf: torch.stack([leaf, leaf * 1.3]), t) for t in (players, draw)]
    stacked = VectorField(g, stacked=2)(two[0], constants, two[1])
    for index, factor in enumerate((1.0, 1.3)):
        point, drawn = (tree.map(lambda leaf, f=factor: leaf * f, t) for t in (players, draw))
        alone = VectorField(g)(point, constants, drawn)
        mine = tree.map(lambda leaf, i=index: leaf[i], stacked.v)
        torch.testing.assert_close(
            tree.flatten(mine), tree.flatten(alone.v), rtol=1e-11, atol=1e-12
        )
