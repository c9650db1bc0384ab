"""W2GAN against the closed forms of the Gaussian game, by both paths, and its players' modules.

Means are taken over points whose first two moments are exact (the ends of scaled axes), and with
quadratic critics V depends on nothing else: the closed forms then hold to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.errors import GameError
from equilibrist.formulations import W2GAN
from equilibrist.games import GAN
from equilibrist.networks.affine import LinearGenerator, QuadraticCritic
from equilibrist.projections import EigenvalueCap, NormBall, SpectralBall

F64 = torch.float64
D = 3


def exact(sd: float, d: int = D) -> Tensor:
    """2 d points with mean 0 and covariance sd^2 I."""
    ends = sd * math.sqrt(d) * torch.eye(d, dtype=F64)
    return torch.cat([ends, -ends])


@dataclass
class Quadratic:
    """x^T A x + b^T x as formulations see a critic."""

    A: Tensor
    b: Tensor
    closed_transform: bool = True
    samplewise: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        return ((x @ self.A) * x).sum(1) + x @ self.b

    def transform(self, x: Tensor, eta: float) -> Tensor:
        module = QuadraticCritic(len(self.b), dtype=F64)
        return torch.func.functional_call(module, {"A": self.A, "b": self.b}, x, {"eta": eta})


def random(*shape: int, seed: int, size: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(*shape, generator=generator, dtype=F64)


def value(s: float, eta: float, A: Tensor, b: Tensor, W: Tensor, u: Tensor) -> float:
    """The closed form of V."""
    A, y = (A + A.T) / 2, b + 2 * eta * u
    gap = np.linalg.inv(eta * np.eye(D) - A.numpy())
    outer = 4 * eta**2 * W @ W.T + torch.outer(y, y)
    first = s**2 * float(A.trace()) - float(np.trace(gap @ outer.numpy())) / 4
    return first + eta * float(W.square().sum() + u.square().sum())


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("eta", [0.5, 1.7])
def test_value(closed: bool, eta: float) -> None:
    """The field's V at any critic below eta, by its transform and by search."""
    s = 1.4
    A, b = random(D, D, seed=0, size=0.2 * eta), random(D, seed=1)
    W, u = random(D, D, seed=2), random(D, seed=3)
    losses = W2GAN(eta, steps=300).losses(Quadratic(A, b, closed), exact(s), exact(1.0) @ W.T + u)
    assert float(losses["generator"]) == pytest.approx(value(s, eta, A, b, W, u), rel=1e-11)
    assert float(losses["generator"] + losses["critic"]) == 0
    A[0, 1] += 0.3
    A[1, 0] -= 0.3  # only the symmetric part matters
    again = W2GAN(eta, steps=300).losses(Quadratic(A, b, closed), exact(s), exact(1.0) @ W.T + u)
    assert float(again["generator"]) == pytest.approx(float(losses["generator"]), rel=1e-11)


@pytest.mark.parametrize("closed", [True, False])
def test_best_critic(closed: bool) -> None:
    """A = eta (I - (W W^T)^(1/2) / s), b = -2 eta u; there V = eta (|u|^2 + sum (s - sigma_i)^2)."""
    s, eta = 1.5, 0.7
    W, u = random(D, D, seed=4), random(D, seed=5)
    left, sigma, _ = torch.linalg.svd(W)
    A = eta * (torch.eye(D, dtype=F64) - (left * sigma) @ left.T / s)
    b = -2 * eta * u
    real, fake = exact(s), exact(1.0) @ W.T + u

    def played(A: Tensor, b: Tensor) -> Tensor:
        return W2GAN(eta, steps=400).losses(Quadratic(A, b, closed), real, fake)["generator"]

    best = eta * float(u.square().sum() + (s - sigma).square().sum())
    assert float(played(A, b)) == pytest.approx(best, rel=1e-10)
    A, b = A.requires_grad_(), b.requires_grad_()
    for gradient in torch.autograd.grad(played(A, b), (A, b)):
        assert float(gradient.abs().max()) < 1e-8
    for seed in range(4):
        dA = random(D, D, seed=10 + seed, size=0.05)
        with torch.no_grad():
            assert float(played(A + dA, b)) < best - 1e-5
            assert float(played(A, b + dA[0])) < best - 1e-5


@pytest.mark.parametrize("eta", [0.5, 1.2])
def test_optimum_and_the_profitable_shift(eta: float) -> None:
    """V* = eta d (s-1)^2 at orthogonal W and A* = eta (1 - 1/s) I; against it u gains eta (s-1) |u|^2."""
    s = 1.6
    W, u = torch.linalg.qr(random(D, D, seed=6)).Q, random(D, seed=7)
    critic = Quadratic(eta * (1 - 1 / s) * torch.eye(D, dtype=F64), torch.zeros(D, dtype=F64))

    def played(u: Tensor) -> float:
        return float(W2GAN(eta).losses(critic, exact(s), exact(1.0) @ W.T + u)["generator"])

    rest = played(0 * u)
    assert rest == pytest.approx(eta * D * (s - 1) ** 2, rel=1e-12)
    gain = eta * (s - 1) * float(u.square().sum())
    assert rest - played(u) == pytest.approx(gain, rel=1e-11)
    assert gain > 0.1


# -- the inner search -----------------------------------------------------------------------------


def solution(A: Tensor, b: Tensor, x: Tensor, eta: float) -> Tensor:
    """The x' at which grad D(x') = 2 eta (x' - x)."""
    return torch.linalg.solve(2 * eta * torch.eye(D, dtype=F64) - 2 * A, (b + 2 * eta * x).T).T


@pytest.mark.parametrize(
    ("h", "rate"), [(-2.5, None), (-0.5, None), (0.0, None), (0.8, None), (0.5, 0.7)]
)
def test_each_step_shrinks_the_error_by_the_stated_factor(h: float, rate: float | None) -> None:
    """|1 - step (2 eta - h)| for a Hessian h I of D: eta = 1/2, default step 1/2."""
    eta, x = 0.5, random(5, D, seed=8)
    A, b = h / 2 * torch.eye(D, dtype=F64), random(D, seed=9)
    end = solution(A, b, x, eta)
    factor = 1 - (1 / (4 * eta) if rate is None else rate) * (2 * eta - h)
    assert abs(factor) < 1
    for steps in (1, 2, 7):
        found = W2GAN(eta, steps, rate).argument(Quadratic(A, b), x)
        torch.testing.assert_close(found, end + factor**steps * (x - end), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("h", "rate"), [(-3.2, None), (1.1, None), (-0.5, 1.4)])
def test_outside_the_stated_range_the_search_diverges(h: float, rate: float | None) -> None:
    x, A = random(5, D, seed=8), h / 2 * torch.eye(D, dtype=F64)
    critic = Quadratic(A, random(D, seed=9), closed_transform=False)
    before, after = (W2GAN(0.5, n, rate).accuracy(critic, x, 0.0).residual for n in (50, 100))
    assert bool((after > 10 * before).all())


def test_accuracy() -> None:
    """The bound holds, is reached where D's curvature is the bound, and the residual is what it says."""
    eta, steps, x = 0.5, 3, random(6, D, seed=11)
    b = random(D, seed=12)
    for A, tight in (
        (0.2 * torch.eye(D, dtype=F64), True),
        (torch.diag(torch.tensor([0.2, -0.1, 0.05], dtype=F64)), False),
    ):
        plain, closed = Quadratic(A, b, False), Quadratic(A, b)
        formulation = W2GAN(eta, steps)
        found = formulation.accuracy(plain, x, curvature=0.4)
        at = formulation.argument(plain, x)
        slope = at @ (2 * A) + b - 2 * eta * (at - x)
        torch.testing.assert_close(found.residual, slope.norm(dim=1), rtol=1e-12, atol=0)
        short = formulation.transform(closed, x) - formulation.transform(plain, x)
        assert bool((short > 0).all())
        assert bool((short <= found.bound * (1 + 1e-12)).all())
        assert bool(torch.isclose(short, found.bound, rtol=1e-9).all()) is tight
        twice = W2GAN(eta, 2 * steps).transform(plain, x) - formulation.transform(plain, x)
        torch.testing.assert_close(found.doubling, twice, rtol=1e-9, atol=1e-14)
        assert not any(part.requires_grad for part in found)
        # No bound where the objective is not strongly concave; nothing to measure with a closed form.
        assert bool(torch.isinf(formulation.accuracy(plain, x, curvature=1.0).bound).all())
        assert all(float(part.abs().max()) == 0 for part in formulation.accuracy(closed, x))
    better = W2GAN(eta, 60).accuracy(Quadratic(A, b, False), x)
    assert float(better.residual.max()) < 1e-9


def test_affine_critic_by_search() -> None:
    """D^c(x) = b^T x + |b|^2 / (4 eta): the default halves the distance to x + b / (2 eta) each step."""
    b, x = random(D, seed=13), random(4, D, seed=14)
    critic = Quadratic(torch.zeros(D, D, dtype=F64), b, False)
    found = W2GAN(0.8, 45).transform(critic, x)
    torch.testing.assert_close(found, x @ b + b @ b / 3.2, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("by", ["parameters", "samples"])
def test_gradients_by_the_envelope(by: str) -> None:
    A, b, x = random(D, D, seed=15, size=0.1), random(D, seed=16), random(7, D, seed=17)
    gradients = []
    for closed in (True, False):
        leaves = [t.clone().requires_grad_() for t in (A, b, x)]
        loss = W2GAN(0.5, 200).transform(Quadratic(leaves[0], leaves[1], closed), leaves[2])
        wanted = leaves[:2] if by == "parameters" else leaves[2:]
        gradients.append(torch.autograd.grad(loss.square().sum(), wanted))
    for a, c in zip(*gradients, strict=True):
        torch.testing.assert_close(a, c, rtol=1e-10, atol=1e-11)


def test_second_order_is_claimed_only_where_it_is_exact() -> None:
    A, b, x = random(D, D, seed=15, size=0.1), random(D, seed=16), random(7, D, seed=17)
    hessians = {}
    for closed in (True, False):
        critic = Quadratic(A, b, closed)
        assert W2GAN().exact_second_order(critic) is closed

        def total(p: Tensor, critic_closed: bool = closed) -> Tensor:
            return W2GAN(0.5, 200).transform(Quadratic(A, p, critic_closed), x).sum()

        hessians[closed] = torch.func.jacrev(torch.func.jacrev(total))(b)
    assert W2GAN().second_order is False
    assert float((hessians[True] - hessians[False]).abs().max()) > 0.1


# -- as a game ------------------------------------------------------------------------------------


class PlainQuadratic(nn.Module):
    """The same critic without its transform."""

    def __init__(self) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.zeros(D, D, dtype=F64))
        self.b = nn.Parameter(torch.zeros(D, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return ((x @ self.A) * x).sum(1) + x @ self.b


def game(critic: nn.Module, **arguments: Any) -> GAN:
    torch.manual_seed(0)
    return GAN(LinearGenerator(D, D, dtype=F64), critic, W2GAN(0.5, 200), latent=D, **arguments)


def placed(g: GAN, seed: int = 20) -> tuple[Any, Any, Any]:
    players, constants = g.init()
    players["critic"] = {
        "A": random(D, D, seed=seed, size=0.1),
        "b": random(D, seed=seed + 1),
    }
    players["generator"] = {"W": random(D, D, seed=seed + 2), "u": random(D, seed=seed + 3)}
    return players, constants, {"real": exact(1.5), "latent": exact(1.0)}


@pytest.mark.parametrize("only", [None, "generator", "critic"])
def test_search_and_closed_form_have_one_field(only: str | None) -> None:
    fields = []
    for critic in (QuadraticCritic(D, dtype=F64), PlainQuadratic()):
        g = game(critic)
        assert g.zero_sum
        found = VectorField(g)(*placed(g), only=only)
        fields.append((tree.flatten(found.v), found.losses))
    torch.testing.assert_close(fields[0][0], fields[1][0], rtol=1e-9, atol=1e-10)
    assert fields[0][0].norm() > 1
    for player, loss in fields[0][1].items():
        assert float(loss) == pytest.approx(float(fields[1][1][player]), rel=1e-10)


def test_hessian_in_the_shift_at_the_optimum() -> None:
    """-2 eta (s-1) I for V, by the field's exact products: the pair is no local Nash equilibrium."""
    g, s, eta = game(QuadraticCritic(D, dtype=F64)), 1.5, 0.5
    players, constants, draw = placed(g)
    players["generator"] = {"W": torch.eye(D, dtype=F64), "u": torch.zeros(D, dtype=F64)}
    players["critic"] = {
        "A": eta * (1 - 1 / s) * torch.eye(D, dtype=F64),
        "b": torch.zeros(D, dtype=F64),
    }
    u = tree.zeros_like(players)
    u["generator"]["u"] = random(D, seed=30)
    product = VectorField(g).jvp(players, constants, u, draw)["generator"]["u"]
    torch.testing.assert_close(
        product, -2 * eta * (s - 1) * u["generator"]["u"], rtol=1e-11, atol=0
    )


def test_projected_ascent_finds_the_best_critic() -> None:
    """Gradient play of the critic alone, kept below eta, arrives at the closed form."""
    s, eta = 1.5, 0.5
    g = game(
        QuadraticCritic(D, dtype=F64),
        projections=[
            EigenvalueCap("critic", "A", 0.9 * eta),
            SpectralBall("generator", "W"),
            NormBall("generator", "u", 2.0),
        ],
    )
    players, constants, draw = placed(g)
    players = g.project(players)
    field = VectorField(g)
    for _ in range(600):
        v = field(players, constants, draw, only="critic").v["critic"]
        players = g.project(
            {**players, "critic": {k: p - 0.08 * v[k] for k, p in players["critic"].items()}}
        )
    W, u = players["generator"]["W"], players["generator"]["u"]
    sigma = torch.linalg.svdvals(W)
    assert float(sigma.max()) == pytest.approx(1, abs=1e-12)
    best = eta * float(u.square().sum() + (s - sigma).square().sum())
    assert float(g.losses(players, constants, draw)["generator"]) == pytest.approx(best, rel=1e-6)
    torch.testing.assert_close(players["critic"]["b"], -2 * eta * u, rtol=1e-4, atol=1e-5)


def test_batch_norm_critic_is_refused() -> None:
    critic = nn.Sequential(nn.Linear(D, 4, dtype=F64), nn.BatchNorm1d(4, dtype=F64), nn.Tanh())
    with pytest.raises(GameError, match=r"W2GAN needs .*batch norm") as caught:
        game(nn.Sequential(critic, nn.Linear(4, 1, dtype=F64)))
    assert "\n" not in str(caught.value)
    game(nn.Sequential(critic.eval(), nn.Linear(4, 1, dtype=F64)))


# -- modules --------------------------------------------------------------------------------------


def test_transform_is_the_supremum_or_infinite() -> None:
    critic = QuadraticCritic(2, dtype=F64)
    with torch.no_grad():
        critic.A.copy_(torch.tensor([[0.2, 0.5], [-0.1, -0.3]]))
        critic.b.copy_(torch.tensor([0.4, -1.0]))
    x = random(3, 2, seed=40)
    axis = torch.linspace(-6, 6, 1201, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    for row, found in zip(x, critic(x, eta=0.9).tolist(), strict=True):
        best = float((critic(grid) - 0.9 * (grid - row).square().sum(1)).max().detach())
        assert best <= found + 1e-12
        assert best == pytest.approx(found, abs=2e-4)
    assert bool(torch.isinf(critic(x, eta=0.1)).all()), "sym(A) is not below eta I"
    assert QuadraticCritic.closed_transform


def test_linear_generator() -> None:
    torch.manual_seed(0)
    module = LinearGenerator(2, 3, dtype=F64)
    assert {k: list(p.shape) for k, p in module.named_parameters()} == {"W": [3, 2], "u": [3]}
    assert float(module.W.detach().abs().max()) <= 2**-0.5
    with torch.no_grad():
        module.u.copy_(torch.tensor([1.0, 2.0, 3.0]))
        z = random(5, 2, seed=41)
        torch.testing.assert_close(module(z), torch.stack([module.W @ r + module.u for r in z]))


@pytest.mark.parametrize(
    "module", [LinearGenerator(2, 3), QuadraticCritic(2)], ids=lambda m: type(m).__name__
)
def test_modules_refuse_other_shapes(module: nn.Module) -> None:
    for shape in ((4, 3), (2,), (4, 2, 1)):
        with pytest.raises(ValueError, match=type(module).__name__):
            module(torch.zeros(shape))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LinearGenerator(0, 2), r"LinearGenerator\.dim_in"),
        (lambda: QuadraticCritic(0), r"QuadraticCritic\.dim"),
        (lambda: W2GAN(0.0), r"W2GAN\.eta"),
        (lambda: W2GAN(math.nan), r"W2GAN\.eta"),
        (lambda: W2GAN(steps=0), r"W2GAN\.steps"),
        (lambda: W2GAN(step_size=-1.0), r"W2GAN\.step_size"),
    ],
)
def test_bad_arguments(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_scale_is_the_cost_of_moving_the_data_to_their_mean() -> None:
    critic = Quadratic(torch.zeros(D, D, dtype=F64), torch.zeros(D, dtype=F64))
    scale = W2GAN(0.7).scale(critic, exact(1.5) + 9, exact(1.0))
    assert float(scale) == pytest.approx(0.7 * D * 1.5**2, rel=1e-12)
    assert W2GAN().unit == "cost units"
    assert "0.7 |x - x'|^2" in W2GAN(0.7).formula
