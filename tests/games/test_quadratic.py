"""Quadratic games against their own algebra."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.games import Quadratic, bilinear

F64 = torch.float64


def rand(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def convex(n: int, seed: int) -> Tensor:
    root = rand(n, n, seed=seed)
    return root @ root.T + 0.1 * torch.eye(n, dtype=F64)


def value(game: Quadratic, x: Tensor, y: Tensor) -> float:
    return float(game.losses({"x": {"value": x}, "y": {"value": y}}, {}, {})["x"])


def test_jacobian_equals_the_derivative_of_the_field() -> None:
    game = Quadratic(
        rand(3, 3, seed=1), rand(3, 2, seed=2), rand(2, 2, seed=3), rand(3, seed=4), rand(2, seed=5)
    )

    def field(z: Tensor) -> Tensor:
        x, y = z.split([3, 2])
        losses = game.losses({"x": {"value": x}, "y": {"value": y}}, {}, {})
        return torch.cat(
            [
                torch.autograd.grad(losses["x"], x, create_graph=True)[0],
                torch.autograd.grad(losses["y"], y, create_graph=True)[0],
            ]
        )

    J = torch.autograd.functional.jacobian(field, rand(5, seed=6))
    torch.testing.assert_close(game.jacobian(), J, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_equilibrium_is_nash_where_a_and_c_are_positive(seed: int) -> None:
    game = Quadratic(
        convex(3, seed), rand(3, 2, seed=9), convex(2, seed + 5), rand(3, seed=4), rand(2, seed=5)
    )
    point = game.equilibrium()
    x, y = point["x"]["value"], point["y"]["value"]
    assert x.shape == (3,)
    assert y.shape == (2,)
    assert float(tree.norm(VectorField(game)(point, {}, {}).v)) < 1e-11
    here = value(game, x, y)
    for k in range(20):
        assert value(game, x + rand(3, seed=k), y) >= here - 1e-12
        assert value(game, x, y + rand(2, seed=k)) <= here + 1e-12


def test_equilibrium_is_not_nash_where_c_is_negative() -> None:
    one = torch.ones(1, 1, dtype=F64)
    game = Quadratic(one, one, -0.5 * one, torch.ones(1, dtype=F64))
    point = game.equilibrium()
    x, y = point["x"]["value"], point["y"]["value"]
    assert float(tree.norm(VectorField(game)(point, {}, {}).v)) < 1e-14
    assert value(game, x, y + 0.1) > value(game, x, y)


def test_an_unsymmetric_matrix_means_its_symmetric_part() -> None:
    A, eye = rand(2, 2, seed=1), torch.eye(2, dtype=F64)
    game = Quadratic(A, eye, eye)
    x, y = rand(2, seed=2), rand(2, seed=3)
    assert value(game, x, y) == pytest.approx(float(x @ A @ x / 2 + x @ y - y @ y / 2), abs=1e-14)
    torch.testing.assert_close(game.jacobian()[:2, :2], (A + A.T) / 2)


def test_bilinear() -> None:
    game = bilinear(3)
    x, y = rand(3, seed=1), rand(3, seed=2)
    assert value(game, x, y) == pytest.approx(float(x @ y), abs=1e-15)
    assert float(tree.norm(game.equilibrium())) == 0
    J = game.jacobian()
    assert torch.equal(J, -J.T)
    assert bilinear(2, torch.float32).B.dtype == torch.float32


def test_singular_games_have_no_single_equilibrium() -> None:
    zero = torch.zeros(1, 1, dtype=F64)
    with pytest.raises(torch.linalg.LinAlgError):
        Quadratic(zero, zero, zero).equilibrium()


@pytest.mark.parametrize(
    "shapes", [((2, 2), (3, 2), (2, 2)), ((3, 3), (3, 2), (3, 3)), ((3, 2), (3, 2), (2, 2))]
)
def test_shapes_that_do_not_fit(shapes: Any) -> None:
    with pytest.raises(ValueError, match="Quadratic needs") as caught:
        Quadratic(*(torch.zeros(s) for s in shapes))
    assert "\n" not in str(caught.value)


def test_offsets_that_do_not_fit() -> None:
    eye = torch.eye(2, dtype=F64)
    with pytest.raises(ValueError):
        Quadratic(eye, eye, eye, torch.ones(1, dtype=F64), torch.ones(1, dtype=F64))
