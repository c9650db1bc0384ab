"""One-step maps on the bilinear game f = xy (SCIENCE 8) and on quadratic games."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.games import Quadratic, bilinear
from equilibrist.optimizers import SGD
from equilibrist.solvers import Alternating, Simultaneous

F64 = torch.float64


class Nothing:
    """A deterministic game draws nothing."""

    def batch(self, index: int = 0) -> dict[str, Tensor]:
        return {}

    def noise(self, like: Any, index: int = 0) -> Any:
        raise AssertionError


def one_step(solver: Any, game: Quadratic, z: Tensor) -> Tensor:
    n = len(game.a)
    players = {"x": {"value": z[:n].clone()}, "y": {"value": z[n:].clone()}}
    return tree.flatten(
        solver.step(VectorField(game), players, {}, solver.init(players), Nothing()).players
    )


def matrix(solver: Any, game: Quadratic) -> Tensor:
    n = len(game.a) + len(game.c)
    return torch.stack([one_step(solver, game, e) for e in torch.eye(n, dtype=F64)], dim=1)


def alternating(h: float, k: int = 1) -> Alternating:
    return Alternating(k, SGD(h), leader="x", follower="y")


@pytest.mark.parametrize("h", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("n", [1, 3])
def test_simultaneous_grows_by_sqrt_one_plus_h_squared(h: float, n: int) -> None:
    z = torch.randn(2 * n, generator=torch.Generator().manual_seed(0), dtype=F64)
    for _ in range(5):
        new = one_step(Simultaneous(SGD(h)), bilinear(n), z)
        assert float(new.norm() / z.norm()) == pytest.approx(math.sqrt(1 + h * h), rel=1e-14)
        z = new
    moduli = torch.linalg.eigvals(matrix(Simultaneous(SGD(h)), bilinear(n))).abs()
    torch.testing.assert_close(
        moduli, torch.full_like(moduli, math.sqrt(1 + h * h)), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("h", [0.01, 0.5, 1.0, 1.9])
def test_alternating_neither_grows_nor_shrinks(h: float) -> None:
    M = matrix(alternating(h), bilinear(1))
    # The follower y moves first: y+ = y + h x, x+ = x - h y+.
    torch.testing.assert_close(
        M, torch.tensor([[1 - h * h, -h], [h, 1.0]], dtype=F64), rtol=1e-14, atol=1e-14
    )
    assert float(torch.linalg.det(M)) == pytest.approx(1.0, abs=1e-13)
    moduli = torch.linalg.eigvals(M).abs()
    torch.testing.assert_close(moduli, torch.ones(2, dtype=F64), rtol=1e-12, atol=0)
    z = torch.tensor([1.0, 0.5], dtype=F64)
    largest = 0.0
    for _ in range(300):
        z = one_step(alternating(h), bilinear(1), z)
        largest = max(largest, float(z.norm()))
    assert 0.1 < largest < 20, "orbits stay bounded"


def test_alternating_explodes_beyond_two() -> None:
    assert float(torch.linalg.eigvals(matrix(alternating(2.1), bilinear(1))).abs().max()) > 1.1


@pytest.mark.parametrize("k", [1, 3, 5])
def test_k_follower_steps(k: int) -> None:
    h = 0.2
    M = matrix(alternating(h, k), bilinear(1))
    torch.testing.assert_close(
        M, torch.tensor([[1 - k * h * h, -h], [k * h, 1.0]], dtype=F64), rtol=1e-13, atol=1e-14
    )


def test_negative_momentum_contracts_the_alternating_map() -> None:
    """Gidel et al. 2019: alternating steps with momentum -1/2 converge linearly on the bilinear game."""

    def after(momentum: float) -> float:
        solver = Alternating(1, SGD(0.5, momentum), leader="x", follower="y")
        players = {p: {"value": torch.ones(1, dtype=F64)} for p in "xy"}
        state, constants = solver.init(players), {}
        for _ in range(200):
            players, constants, state, _ = solver.step(
                VectorField(bilinear(1)), players, constants, state, Nothing()
            )
        return float(tree.norm(players))

    assert after(-0.5) < 1e-2
    assert after(0.5) > 1e3
    assert 0.1 < after(0.0) < 10


def test_simultaneous_is_i_minus_h_j_on_any_quadratic_game() -> None:
    g = torch.Generator().manual_seed(1)
    A, B, C = (torch.randn(s, generator=g, dtype=F64) for s in ((3, 3), (3, 2), (2, 2)))
    game = Quadratic(A, B, C)
    torch.testing.assert_close(
        matrix(Simultaneous(SGD(0.1)), game),
        torch.eye(5, dtype=F64) - 0.1 * game.jacobian(),
        rtol=1e-13,
        atol=1e-14,
    )


def test_two_time_scales() -> None:
    game = bilinear(1)
    M = matrix(Simultaneous(SGD(0.1), {"y": SGD(0.4)}), game)
    torch.testing.assert_close(
        M, torch.tensor([[1.0, -0.1], [0.4, 1.0]], dtype=F64), rtol=1e-14, atol=1e-15
    )


@pytest.mark.parametrize(
    "solver", [Simultaneous(SGD(0.3)), alternating(0.3, 2)], ids=["simultaneous", "alternating"]
)
def test_converges_to_a_strongly_monotone_equilibrium(solver: Any) -> None:
    g = torch.Generator().manual_seed(2)
    eye = torch.eye(2, dtype=F64)
    B = torch.randn(2, 2, generator=g, dtype=F64) / 3
    game = Quadratic(eye, B, eye, *(torch.randn(2, generator=g, dtype=F64) for _ in range(2)))
    players = {p: {"value": torch.full((2,), 3.0, dtype=F64)} for p in "xy"}
    state, constants, field = solver.init(players), {}, VectorField(game)
    for _ in range(150):
        players, constants, state, info = solver.step(field, players, constants, state, Nothing())
    torch.testing.assert_close(
        tree.flatten(players), tree.flatten(game.equilibrium()), rtol=1e-9, atol=1e-9
    )
    assert float(info["grad_norm"]["x"]) < 1e-8
