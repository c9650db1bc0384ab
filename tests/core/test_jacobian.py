"""J as an operator against matrices: a quadratic game's own, and central differences of v."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from equilibrist import tree
from equilibrist._draws import Stream, generator, normal
from equilibrist._field import VectorField
from equilibrist._jacobian import JacobianOperator
from equilibrist.formulations import Vanilla
from equilibrist.games import GAN, Quadratic

F64 = torch.float64


def _quadratic() -> tuple[Quadratic, dict]:
    g = torch.Generator().manual_seed(1)
    A, B, C = (torch.randn(*s, dtype=F64, generator=g) for s in ((3, 3), (3, 2), (2, 2)))
    point = {
        "x": {"value": torch.randn(3, dtype=F64, generator=g)},
        "y": {"value": torch.randn(2, dtype=F64, generator=g)},
    }
    return Quadratic(A, B, C), point


def test_quadratic_game() -> None:
    game, point = _quadratic()
    operator = JacobianOperator(VectorField(game), point, {"x": {}, "y": {}}, [{}])
    matrix = game.jacobian()
    torch.testing.assert_close(operator.dense(), matrix, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(operator.T.dense(), matrix.T, rtol=1e-12, atol=1e-12)
    u = torch.arange(5.0, dtype=F64)
    torch.testing.assert_close(operator @ u, matrix @ u, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(operator.T @ u, matrix.T @ u, rtol=1e-12, atol=1e-12)
    assert torch.equal(matrix[operator.block("x", "y")], game.B)
    scipy = operator.to_scipy()
    np.testing.assert_allclose(scipy @ u.numpy(), (matrix @ u).numpy(), rtol=1e-12)
    np.testing.assert_allclose(scipy.rmatvec(u.numpy()), (matrix.T @ u).numpy(), rtol=1e-12)


class _Normal2:
    def sample(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        return normal(rng, (n, 2), F64, None)


@pytest.mark.parametrize("saturating", [True, False])
def test_gan_against_central_differences(saturating: bool) -> None:
    game = GAN(
        lambda: nn.Sequential(nn.Linear(2, 3, dtype=F64), nn.Tanh(), nn.Linear(3, 2, dtype=F64)),
        lambda: nn.Sequential(
            nn.Linear(2, 3, dtype=F64), nn.Softplus(), nn.Linear(3, 1, dtype=F64)
        ),
        Vanilla(saturating),
        latent=2,
        spectral_norm=True,
    )
    players, constants = game.init(0)
    draws = [game.draw(generator(0, Stream.DATA, k), _Normal2(), 5, F64) for k in range(2)]
    field = VectorField(game)
    operator = JacobianOperator(field, players, constants, draws)
    flat, h = tree.flatten(players), 1e-5

    def v(x: torch.Tensor) -> torch.Tensor:
        at = tree.unflatten(x, players)
        return torch.stack([tree.flatten(field(at, constants, d).v) for d in draws]).mean(0)

    steps = h * torch.eye(len(flat), dtype=F64)
    reference = torch.stack([(v(flat + e) - v(flat - e)) / (2 * h) for e in steps], dim=1)
    torch.testing.assert_close(operator.dense(), reference, rtol=1e-6, atol=1e-8)
    u = torch.sin(torch.arange(len(flat), dtype=F64))
    torch.testing.assert_close(operator @ u, operator.dense() @ u, rtol=1e-11, atol=1e-12)
    assert reference[operator.block("critic", "generator")].abs().max() > 1e-3


def test_refusals() -> None:
    game, point = _quadratic()
    with pytest.raises(ValueError, match="at least one draw"):
        JacobianOperator(VectorField(game), point, {}, [])
    with pytest.raises(ValueError, match="5 columns"):
        JacobianOperator(VectorField(game), point, {"x": {}, "y": {}}, [{}]) @ torch.zeros(4)
