"""Every stationary point that a game states: stationary, of the kind it says, with the Jacobian it says."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.games import (
    Analytic,
    Dirac,
    GaussianW2GAN,
    GaussianWGAN,
    Known,
    Planar,
    Point,
    Quadratic,
    bilinear,
    curved_ridge,
    false_attractor,
    hidden_minimax,
    three_nash,
)
from equilibrist.games.truth import KINDS, classify, spans

F64 = torch.float64


def rand(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def quadratic(seed: int, n: int = 3, m: int = 2) -> Quadratic:
    return Quadratic(
        rand(n, n, seed=seed),
        2 * rand(n, m, seed=seed + 100),
        rand(m, m, seed=seed + 200) + 0.7 * torch.eye(m, dtype=F64),
        rand(n, seed=seed + 300),
        rand(m, seed=seed + 400),
    )


GAMES: dict[str, Any] = {
    "bilinear": lambda: bilinear(2),
    **{f"quadratic {seed}": lambda s=seed: quadratic(s) for seed in range(12)},
    "quadratic 1x4": lambda: quadratic(40, 1, 4),
    "false attractor": false_attractor,
    "hidden minimax": hidden_minimax,
    **{
        f"dirac {loss} {gamma}": lambda loss=loss, gamma=gamma: Dirac(loss, gamma)
        for loss in ("vanilla", "non-saturating", "wgan")
        for gamma in (0.0, 0.3, 3.0)
    },
    "three nash": three_nash,
    "curved ridge": curved_ridge,
    **{
        f"w2gan s={s} d={d}": lambda s=s, d=d: GaussianW2GAN(s, d)
        for s in (2.0, 0.5)
        for d in (1, 3)
    },
    "w2gan, dear": lambda: GaussianW2GAN(3.0, 1, eta=2.0),
    "wgan s=2": lambda: GaussianWGAN(2.0),
    "wgan s=0.5": lambda: GaussianWGAN(0.5),
}


@cache
def made(name: str) -> Any:
    return GAMES[name]()


POINTS = [(name, i) for name in GAMES for i in range(len(made(name).points()))]


def own_loss(game: Any, player: str, like: Any) -> Any:
    """z -> the player's own loss, by nothing but `losses`."""
    return lambda z: game.losses(tree.unflatten(z, like), {}, {})[player]


def dense(game: Any, players: Any) -> Tensor:
    """J by torch.autograd.functional on each own loss: independent of the library's field."""
    z, start, rows = tree.flatten(players), 0, []
    for player in game.players:
        size = tree.count(players[player])
        hessian = torch.autograd.functional.hessian(own_loss(game, player, players), z)
        rows.append(hessian[start : start + size])
        start += size
    return torch.cat(rows)


def free(game: Any, point: Point) -> tuple[Tensor, dict[str, int]]:
    """J without the rows and columns that the feasible set holds, and each player's free size."""
    where = spans(point.players)
    kept = {key: s for key, s in where.items() if key not in point.held}
    index = torch.cat([torch.arange(s.start, s.stop) for s in kept.values()])
    sizes = {p: sum(s.stop - s.start for (q, _), s in kept.items() if q == p) for p in game.players}
    return dense(game, point.players)[index][:, index], sizes


@pytest.mark.parametrize(("name", "i"), POINTS)
def test_stationary(name: str, i: int) -> None:
    game = made(name)
    point = game.points()[i]
    assert isinstance(game, Known)
    assert game.why_none == ""
    feasible = game.project(point.players)
    assert float((tree.flatten(feasible) - tree.flatten(point.players)).abs().max()) < 1e-15
    v = VectorField(game)(point.players, {}, {}).v
    for h in (1e-3, 0.3):
        moved = game.project(tree.axpy(-h, v, point.players))
        residual = tree.flatten(moved) - tree.flatten(point.players)
        assert float(residual.norm()) / h < 5e-12
    if not point.held:
        assert float(tree.norm(v)) < 5e-12


@pytest.mark.parametrize(("name", "i"), POINTS)
def test_kind(name: str, i: int) -> None:
    """By eigenvalues in NumPy, and by trying the players' own small deviations."""
    game = made(name)
    point = game.points()[i]
    tensor, sizes = free(game, point)
    J, size = tensor.numpy(), list(sizes.values())
    zero = 1e-9 * np.abs(J).max()
    n = size[0]
    blocks = {"own": (J[:n, :n], J[n:, n:]), "cross": (J[:n, n:], J[n:, :n])}
    low = [np.linalg.eigvalsh(b).min() if b.size else np.inf for b in blocks["own"]]
    assert point.attracts == bool(np.linalg.eigvals(J).real.min() > zero)
    leaders = []
    if game.zero_sum:
        for k, player in enumerate(game.players):
            x, y = blocks["own"][k], blocks["own"][1 - k]
            if low[1 - k] > zero:
                schur = x - blocks["cross"][k] @ np.linalg.inv(y) @ blocks["cross"][1 - k]
                leaders += [player] if np.linalg.eigvalsh(schur).min() > zero else []
    assert set(point.leaders) == set(leaders)
    nash = all(value >= -zero for value in low)
    assert (point.kind == "local nash") == nash
    if point.kind == "local minimax" and name not in ("w2gan s=2.0 d=3",):
        assert game.leader in leaders  # of the other: test_truth_gaussian, by the best critic
    if point.kind == "non-nash attractor":
        assert point.attracts
        assert game.leader not in leaders
    if point.kind == "saddle of the dynamics":
        assert np.linalg.eigvals(J).real.min() < -zero
        assert game.leader not in leaders
    # Deviations themselves: no player of a Nash point gains; at other points one does.
    gains = []
    rng = np.random.default_rng(0)
    at = point.players
    before = game.losses(at, {}, {})
    for (player, name_), _ in itertools.product(spans(at), range(12)):
        value = at[player][name_]
        there = value + 1e-2 * torch.as_tensor(rng.standard_normal(value.shape))
        moved = game.project({**at, player: {**at[player], name_: there}})
        gains.append(float(before[player] - game.losses(moved, {}, {})[player]))
    assert (max(gains) < 1e-12) == (point.kind == "local nash")


@pytest.mark.parametrize("name", GAMES)
def test_jacobian(name: str) -> None:
    """At a point and beside it: against autograd's Hessians, and finite differences of the field."""
    game = made(name)
    at = game.points()[0].players
    z = tree.flatten(at)
    for shift in (0.0, 0.05):
        here = tree.unflatten(z + shift * rand(len(z), seed=3), at)
        J = game.jacobian(here)
        torch.testing.assert_close(J, dense(game, here), rtol=1e-11, atol=1e-11)
        field, size = VectorField(game), 1e-5
        for i, unit in enumerate(torch.eye(len(z), dtype=F64)):
            ends = [
                tree.flatten(field(tree.axpy(k * size, tree.unflatten(unit, at), here), {}, {}).v)
                for k in (-1, 1)
            ]
            column = (ends[1] - ends[0]) / (2 * size)
            torch.testing.assert_close(J[:, i], column, rtol=1e-6, atol=1e-6 * float(J.abs().max()))


def test_numbers_of_the_test_pair() -> None:
    game = three_nash()
    points = game.points()
    assert points[0].kind == "saddle of the dynamics"
    attractor = points[1]
    assert [round(float(v), 4) for v in tree.leaves(attractor.players)] == [-1.3165, -1.2243]
    assert attractor.kind == "non-nash attractor"
    assert attractor.leaders == ("x",), "minimax only where the maximiser leads"
    values = torch.linalg.eigvals(game.jacobian(attractor.players))
    assert [round(float(v), 3) for v in values.real] == [0.707, 0.707]
    assert sorted(round(float(v), 3) for v in values.imag) == [-2.472, 2.472]
    # x maximises f, so f_xx is the opposite of its own second derivative.
    assert round(-float(game.jacobian(attractor.players)[0, 0]), 2) == 2.31
    x, y = (float(v) for v in tree.leaves(points[2].players))
    assert abs(x + 12.47) < 0.01
    assert abs(y + 8.67) < 0.01
    assert points[2].kind == "local nash"


def test_kinds_of_the_two_quadratics() -> None:
    (false,), (hidden,) = false_attractor().points(), hidden_minimax().points()
    assert (false.kind, false.attracts, false.leaders) == ("non-nash attractor", True, ("y",))
    assert (hidden.kind, hidden.attracts, hidden.leaders) == ("local minimax", False, ("x",))
    for game, value in (
        (false_attractor(), lambda x, y: 3 * x**2 + y**2 + 4 * x * y),
        (hidden_minimax(), lambda x, y: -3 * x**2 - y**2 + 4 * x * y),
    ):
        x, y = torch.tensor([0.3], dtype=F64), torch.tensor([-0.7], dtype=F64)
        f = game.losses({"x": {"value": x}, "y": {"value": y}}, {}, {})["x"]
        assert float(f) == pytest.approx(value(0.3, -0.7), abs=1e-15)


def test_every_kind_occurs() -> None:
    seen = {made(name).points()[i].kind for name, i in POINTS}
    assert seen == set(KINDS) - {"neither"}
    kind, attracts, _ = classify(torch.zeros(2, 2, dtype=F64), {"x": 1, "y": 1}, "x")
    assert (kind, attracts) == ("local nash", False), "two constants: nobody gains"
    turning = torch.tensor([[-1.0, 2.0], [-2.0, 1.0]], dtype=F64)
    assert classify(turning, {"x": 1, "y": 1}, "y") == ("neither", False, ("x",))


@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.0, 2.0, 5.0])
@pytest.mark.parametrize(
    ("loss", "slope"), [("vanilla", 0.5), ("non-saturating", 0.5), ("wgan", 1.0)]
)
def test_dirac_eigenvalues(loss: Any, slope: float, gamma: float) -> None:
    game = Dirac(loss, gamma)
    found = np.linalg.eigvals(game.jacobian(game.points()[0].players).numpy())
    root = np.sqrt(complex(gamma**2 / 4 - slope**2))
    expected = np.array([gamma / 2 - root, gamma / 2 + root])
    np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(expected), atol=1e-7)


def test_dirac_losses_by_hand() -> None:
    theta, psi, gamma = 0.7, -1.3, 0.6
    players = {
        "generator": {"theta": torch.tensor([theta], dtype=F64)},
        "critic": {"psi": torch.tensor([psi], dtype=F64)},
    }
    f = {"vanilla": lambda t: -np.log1p(np.exp(-t)), "wgan": lambda t: t}
    f["non-saturating"] = f["vanilla"]
    for loss, g in f.items():
        losses = Dirac(loss, gamma).losses(players, {}, {})  # type: ignore[arg-type]
        value = g(theta * psi) + g(0.0)
        assert float(losses["critic"]) == pytest.approx(gamma / 2 * psi**2 - value, abs=1e-14)
        own = -g(-theta * psi) if loss == "non-saturating" else value
        assert float(losses["generator"]) == pytest.approx(own, abs=1e-14)
    assert Dirac("vanilla").zero_sum
    assert not Dirac("vanilla", 0.1).zero_sum
    assert not Dirac("non-saturating").zero_sum


def test_games_without_a_point_say_why() -> None:
    zero, one = torch.zeros(1, 1, dtype=F64), torch.ones(1, dtype=F64)
    slope = Quadratic(zero, zero, zero, one)
    assert slope.points() == ()
    assert "singular" in slope.why_none
    flat = Quadratic(zero, zero, zero)
    assert [p.kind for p in flat.points()] == ["local nash"]
    assert flat.why_none == ""
    assert Planar(lambda x, y: x + y).why_none
    with pytest.raises(NotImplementedError, match="does not give its points"):
        Analytic().points()


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"Dirac\.loss must be one of"):
        Dirac("lsgan")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Dirac\.gamma"):
        Dirac(gamma=-1.0)
    with pytest.raises(ValueError, match=r"Planar\.minimiser"):
        Planar(lambda x, y: x * y, "z")
    with pytest.raises(ValueError, match=r"no stationary point lies within 0\.1 of"):
        Planar(lambda x, y: x**2 - y**2, near=((1.0, 1.0),))
    with pytest.raises(ValueError, match=r"Point\.kind must be one of"):
        Point({}, "nash", True)  # type: ignore[arg-type]
