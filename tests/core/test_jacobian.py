"""J as an operator against matrices: a quadratic game's own, and central differences of v."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from equilibrist import tree
from equilibrist.core.draws import Stream, generator, normal
from equilibrist.core.field import VectorField
from equilibrist.core.game import Plain
from equilibrist.core.jacobian import HessianOperator, JacobianOperator
from equilibrist.formulations import Vanilla
from equilibrist.games import GAN, Quadratic
from equilibrist.games.mixture import Mixture
from equilibrist.optimizers import SGD
from equilibrist.solvers import Consensus

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


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("saturating", [True, False])
def test_gan_against_central_differences(saturating: bool, frozen: bool) -> None:
    """With power vectors that follow their weights, and with such as are held, by name."""
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
    field = VectorField(game, frozen=frozen)
    operator = JacobianOperator(field, players, constants, draws)
    flat, h = tree.flatten(players), 1e-5

    def v(x: torch.Tensor) -> torch.Tensor:
        at = tree.unflatten(x, players)
        fixed = constants if frozen else game.refresh(at, constants, {}, exact=True)
        return torch.stack([tree.flatten(field(at, fixed, d).v) for d in draws]).mean(0)

    steps = h * torch.eye(len(flat), dtype=F64)
    reference = torch.stack([(v(flat + e) - v(flat - e)) / (2 * h) for e in steps], dim=1)
    torch.testing.assert_close(operator.dense(), reference, rtol=1e-6, atol=1e-8)
    u = torch.sin(torch.arange(len(flat), dtype=F64))
    torch.testing.assert_close(operator @ u, operator.dense() @ u, rtol=1e-11, atol=1e-12)
    assert reference[operator.block("critic", "generator")].abs().max() > 1e-3


class _Sometimes(Plain):
    """A loss that is linear on some draws, where its gradient depends on nothing."""

    players, zero_sum, separable = ("x", "y"), False, True

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        x, y = players["x"]["v"], players["y"]["v"]
        bend = x.square().sum() * draw["bend"] / 2 if "bend" in draw else 0.0
        return {"x": bend + 3 * x.sum(), "y": y.sum()}


@pytest.mark.parametrize("bends", [(0, 5), (5, 0), (0, 0, 3), (1, 0, 2), (0, 0)])
def test_a_hessian_of_draws_on_some_of_which_there_is_nothing(bends: tuple[int, ...]) -> None:
    """Their share of the mean is zero, whichever draws they are."""
    point = {p: {"v": torch.ones(2, dtype=F64)} for p in ("x", "y")}
    draws = [{"bend": torch.tensor(float(bend), dtype=F64)} if bend else {} for bend in bends]
    field, u = VectorField(_Sometimes()), torch.tensor([1.0, -2.0], dtype=F64)
    found = HessianOperator(field, point, {"x": {}, "y": {}}, draws, "x") @ u
    torch.testing.assert_close(found, u * sum(bends) / len(bends), rtol=1e-15, atol=0)
    operator = JacobianOperator(field, point, {"x": {}, "y": {}}, draws)
    whole = torch.diag(torch.tensor([1.0, 1, 0, 0], dtype=F64)) * sum(bends) / len(bends)
    torch.testing.assert_close(operator.dense(), whole, rtol=1e-15, atol=0)
    torch.testing.assert_close(operator @ whole[0], whole @ whole[0], rtol=1e-15, atol=0)


def test_refusals() -> None:
    game, point = _quadratic()
    with pytest.raises(ValueError, match="at least one draw"):
        JacobianOperator(VectorField(game), point, {}, [])
    with pytest.raises(ValueError, match="5 columns"):
        JacobianOperator(VectorField(game), point, {"x": {}, "y": {}}, [{}]) @ torch.zeros(4)


# -- spectral norms -------------------------------------------------------------------------------


def _normalised(saturating: bool = False) -> GAN:
    return GAN(
        lambda: nn.Sequential(nn.Linear(2, 3, dtype=F64), nn.Tanh(), nn.Linear(3, 2, dtype=F64)),
        lambda: nn.Sequential(
            nn.Linear(2, 4, dtype=F64), nn.Softplus(), nn.Linear(4, 1, dtype=F64)
        ),
        Vanilla(saturating),
        latent=2,
        spectral_norm=True,
    )


def _at(game: GAN, seed: int) -> tuple[Any, Any, Any]:
    players, constants = game.init(seed)
    return players, constants, game.draw(generator(seed, Stream.DATA, 0), _Normal2(), 5, F64)


def test_every_product_is_that_of_the_field() -> None:
    game = _normalised()
    players, constants, draw = _at(game, 0)
    field = VectorField(game)
    dense = JacobianOperator(field, players, constants, [draw]).dense()
    rng = torch.Generator().manual_seed(0)
    u = tree.map(lambda x: torch.randn(x.shape, generator=rng, dtype=F64), players)
    flat = tree.flatten(u)
    line = field.linearize(players, constants, draw)
    torch.testing.assert_close(tree.flatten(line.pullback(u)), dense.T @ flat)
    torch.testing.assert_close(tree.flatten(field.vjp(players, constants, u, draw)), dense.T @ flat)
    torch.testing.assert_close(tree.flatten(field.jvp(players, constants, u, draw)), dense @ flat)
    operator = JacobianOperator(field, players, constants, [draw])
    torch.testing.assert_close(operator @ flat, dense @ flat)
    rows, columns = operator.block("critic", "critic")
    own = HessianOperator(field, players, constants, [draw], "critic")
    part = tree.flatten({"critic": u["critic"]})
    torch.testing.assert_close(own @ part, dense[rows, columns] @ part)
    held = VectorField(game, frozen=True)
    away = JacobianOperator(held, players, constants, [draw]).dense()
    assert float((dense - away).norm() / dense.norm()) > 0.05
    assert VectorField(game, frozen=True).of(game).frozen


@pytest.mark.parametrize("saturating", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_products_where_power_vectors_have_not_converged(saturating: bool, frozen: bool) -> None:
    """J then is the derivative of no zero-sum game's field, unless power vectors are held: J and J^T are two products,
    each with graphs of its own."""
    game = _normalised(saturating)
    players, constants, draw = _at(game, 1)
    players = tree.map(lambda x: x + 0.3 * torch.sin(7 * x), players)
    field = VectorField(game, frozen=frozen)
    operator = JacobianOperator(field, players, constants, [draw])
    dense = operator.dense()
    u = torch.sin(torch.arange(len(dense), dtype=F64))
    torch.testing.assert_close(operator @ u, dense @ u, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(operator.T @ u, dense.T @ u, rtol=1e-11, atol=1e-12)
    along = field.jvp(players, constants, tree.unflatten(u, players), draw)
    torch.testing.assert_close(tree.flatten(along), dense @ u, rtol=1e-11, atol=1e-12)
    sign = torch.ones(len(dense), dtype=F64)
    sign[operator.block("critic", "critic")[0]] = -1
    twisted = sign[:, None] * dense.T * sign
    close = bool((twisted - dense).abs().max() < 1e-12)
    assert close == (saturating and frozen), "the structure of a zero-sum game"


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("saturating", [True, False])
def test_graphs_are_built_once_and_never_of_more_than_a_part(parts: int, saturating: bool) -> None:
    """Of what J is multiplied with, any number: but for products with J in parts, which keep none."""
    game, sizes = _normalised(saturating), []
    players, constants, _ = _at(game, 0)
    draws = [game.draw(generator(0, Stream.DATA, k), _Normal2(), 10, F64) for k in range(2)]
    dense = JacobianOperator(VectorField(game), players, constants, draws).dense()
    real = game.losses

    def losses(players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        sizes.append(len(draw["real"]))
        return real(players, constants, draw, only)

    game.losses = losses  # type: ignore[method-assign]
    operator = JacobianOperator(VectorField(game, parts=parts), players, constants, draws)
    u = torch.sin(torch.arange(len(dense), dtype=F64))
    for way, matrix, kept in ((operator.T, dense.T, True), (operator, dense, parts == 1)):
        for k in range(3):
            sizes.clear()
            torch.testing.assert_close(way @ u, matrix @ u, rtol=1e-10, atol=1e-12)
            assert sizes == ([] if kept and k else [10 // parts] * (2 * parts))


def test_the_gradient_stays_that_of_training() -> None:
    """Power vectors that have not converged: their values and v are what training uses, bit for bit."""
    game = _normalised()
    players, constants, draw = _at(game, 1)
    players = tree.map(lambda x: x + 0.3 * torch.sin(7 * x), players)
    field = VectorField(game)
    plain = field(players, constants, draw)
    graphed = field.linearize(players, constants, draw)
    frozen = VectorField(game, frozen=True).linearize(players, constants, draw)
    for p, part in plain.v.items():
        for k, g in part.items():
            assert torch.equal(graphed.v[p][k], frozen.v[p][k])
            torch.testing.assert_close(graphed.v[p][k], g, rtol=1e-12, atol=1e-14)


def test_members_and_particles_have_their_own() -> None:
    game = _normalised()
    each = [_at(game, seed) for seed in range(3)]
    players, constants, draw = (tree.stack([one[k] for one in each]) for k in range(3))
    rng = torch.Generator().manual_seed(0)
    u = tree.map(lambda x: torch.randn(x.shape, generator=rng, dtype=F64), players)
    together = VectorField(game, stacked=3).vjp(players, constants, u, draw)
    for i, (p, c, d) in enumerate(each):
        alone = VectorField(game).vjp(p, c, tree.map(lambda x, i=i: x[i], u), d)
        for name, part in alone.items():
            for k, x in part.items():
                torch.testing.assert_close(together[name][k][i], x)
    many = Mixture(game, 2)
    p, c = many.init(0)
    d = many.draw(generator(0, Stream.DATA, 0), _Normal2(), 6, F64)
    field, flat, h = VectorField(many), tree.flatten(p), 1e-6
    w = torch.sin(torch.arange(len(flat), dtype=F64))

    def v(x: torch.Tensor) -> torch.Tensor:
        at = tree.unflatten(x, p)
        return tree.flatten(field(at, many.refresh(at, c, d, exact=True), d).v)

    seen = (v(flat + h * w) - v(flat - h * w)) / (2 * h)
    found = tree.flatten(field.jvp(p, c, tree.unflatten(w, p), d))
    torch.testing.assert_close(found, seen, rtol=0, atol=1e-7 * float(seen.abs().max()))


def test_consensus_adds_the_gradient_of_half_the_squared_field() -> None:
    game = _normalised()
    players, constants, draw = _at(game, 2)
    field, gamma, rate, h = VectorField(game), 3.0, 1e-3, 1e-6

    class One:
        def batch(self, index: int = 0) -> Any:
            return draw

    def half(x: torch.Tensor) -> float:
        at = tree.unflatten(x, players)
        fixed = game.refresh(at, constants, {}, exact=True)
        return float(tree.flatten(field(at, fixed, draw).v).square().sum() / 2)

    flat = tree.flatten(players)
    unit = torch.eye(len(flat), dtype=F64)
    slope = torch.tensor([(half(flat + h * e) - half(flat - h * e)) / (2 * h) for e in unit])
    v = tree.flatten(field(players, constants, draw).v)
    solver = Consensus(SGD(rate), gamma=gamma)
    step = solver.step(field, tree.clone(players), constants, solver.init(players), One())
    taken = (flat - tree.flatten(step.players)) / rate
    torch.testing.assert_close(taken, v + gamma * slope.to(F64), rtol=0, atol=1e-6)


def test_equal_singular_values_stop_nothing() -> None:
    """Without a largest one there is no derivative, and no error either."""
    game = _normalised()
    players, constants, draw = _at(game, 0)
    players["critic"]["0.weight"] = torch.eye(4, 2, dtype=F64)
    constants = game.refresh(players, constants, {}, exact=True)
    VectorField(game).vjp(players, constants, players, draw)
