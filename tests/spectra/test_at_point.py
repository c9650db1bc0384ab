"""Jacobians, Hessians, densities and convergence in one call, against matrices written out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator
from spectra_networks import made
from torch import nn

from equilibrist import GAN, SGD, Adam, Vanilla, tree
from equilibrist.errors import GameError
from equilibrist.games import Quadratic, bilinear
from equilibrist.solvers import (
    Alternating,
    Competitive,
    Consensus,
    Extragradient,
    Lookahead,
    Simultaneous,
)
from equilibrist.spectra import (
    exact_density,
    hessian,
    jacobian,
    lanczos_density,
    local_convergence,
)

F64 = torch.float64


def quadratic() -> Quadratic:
    g = torch.Generator().manual_seed(0)
    A, B, C = (torch.randn(*s, generator=g, dtype=F64) for s in ((3, 3), (3, 2), (2, 2)))
    return Quadratic(A @ A.mT, B, C @ C.mT)


def pair() -> dict[str, Any]:
    """A GAN of 3 + 2 numbers, its point and its rows: G(z) = A z + b in the line, D(x) = tanh(w x) v."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh(), nn.Linear(1, 1, bias=False))
    game = GAN(nn.Linear(2, 1), critic, Vanilla(saturating=True), latent=2)
    g = torch.Generator().manual_seed(1)
    draw = {"real": torch.randn(5, 1, generator=g), "latent": torch.randn(5, 2, generator=g)}
    return {"game": game, "players": game.init().players, "draw": draw}


def by_hand(at: dict[str, Any]) -> np.ndarray:
    """J of the same from the losses written out, twice through autograd in float64."""
    real, z = (at["draw"][k].double() for k in ("real", "latent"))

    def field(x: torch.Tensor) -> torch.Tensor:
        A, b, w, v = x[:2], x[2], x[3], x[4]

        def score(points: torch.Tensor) -> torch.Tensor:
            return v * torch.tanh(w * points)

        fake = z @ A + b
        value = (
            nn.functional.logsigmoid(score(real)).mean()
            + nn.functional.logsigmoid(-score(fake)).mean()
        )
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        return torch.cat([slope[:3], -slope[3:]])

    x = tree.flatten(at["players"]).double().requires_grad_()
    return torch.autograd.functional.jacobian(field, x).numpy()


def test_a_gan_by_hand() -> None:
    at = pair()
    found = jacobian(**at)
    assert found.matrix.dtype == F64
    np.testing.assert_allclose(found.matrix.numpy(), by_hand(at), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(found.block("generator", "critic"), found.matrix[:3, 3:])
    values = np.linalg.eigvals(by_hand(at))
    order = np.lexsort((values.imag, values.real))
    np.testing.assert_allclose(found.eigenvalues.values, values[order], rtol=1e-9)
    assert found.eigenvalues.complete
    assert at["players"]["critic"]["0.weight"].dtype == torch.float32, "the point is left alone"


def test_several_draws_are_averaged() -> None:
    at = pair()
    other = {k: 2 * t for k, t in at["draw"].items()}
    mean = (by_hand(at) + by_hand({**at, "draw": other})) / 2
    found = jacobian(at["game"], at["players"], draw=[at["draw"], other])
    np.testing.assert_allclose(found.matrix.numpy(), mean, rtol=1e-11, atol=1e-14)


def test_a_plain_game_is_its_matrices() -> None:
    game = quadratic()
    at = {"x": {"value": torch.zeros(3)}, "y": {"value": torch.zeros(2)}}
    found = jacobian(game, at)
    for (row, column), block in {
        ("x", "x"): game.A,
        ("x", "y"): game.B,
        ("y", "x"): -game.B.mT,
        ("y", "y"): game.C,
    }.items():
        torch.testing.assert_close(found.block(row, column), block, rtol=1e-12, atol=1e-12)
    u = torch.tensor([1.0, -2.0], dtype=F64)
    torch.testing.assert_close(hessian(game, at, "y") @ u, game.C @ u, rtol=1e-12, atol=1e-12)


def test_spectral_norms_follow_the_weights() -> None:
    """Central differences of the gradient, singular vectors solved for at every point."""
    game, players, _, draws = made("spectral norm")
    found = jacobian(game, players, draw=draws[0]).matrix

    def v(x: torch.Tensor) -> torch.Tensor:
        at = tree.map(lambda t: t.detach().requires_grad_(), tree.unflatten(x, players))
        fixed = game.refresh(tree.detach(at), game.init().constants, {}, exact=True)
        losses = game.losses(at, fixed, draws[0])
        parts = [
            torch.autograd.grad(losses[p], list(part.values()), retain_graph=True)
            for p, part in at.items()
        ]
        return torch.cat([g.reshape(-1) for part in parts for g in part])

    flat, h = tree.flatten(players), 1e-5
    u = torch.sin(torch.arange(len(flat), dtype=F64))
    seen = (v(flat + h * u) - v(flat - h * u)) / (2 * h)
    torch.testing.assert_close(found @ u, seen, rtol=0, atol=1e-7 * float(seen.abs().max()))


def test_a_hessian_is_the_diagonal_block() -> None:
    at = pair()
    block = jacobian(**at).block("critic", "critic")
    own = hessian(at["game"], at["players"], "critic", draw=at["draw"])
    assert own.shape == (2, 2)
    torch.testing.assert_close(own @ torch.eye(2, dtype=F64)[0], block[:, 0], rtol=1e-12, atol=0)
    found = lanczos_density(own, steps=2, probes=1)
    lowest, highest = np.linalg.eigvalsh(block)
    assert found.lowest.value == pytest.approx(lowest)
    assert found.highest.value == pytest.approx(highest)


def test_densities_of_every_kind_of_operator() -> None:
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((80, 80)))[0]
    M = (Q * np.repeat([-1.0, 2.0], [20, 60])) @ Q.T
    M = (M + M.T) / 2
    found = [lanczos_density(op, probes=40) for op in (M, aslinearoperator(M), torch.tensor(M))]
    for one in found:
        assert one.below(0.0) == pytest.approx(exact_density(M).below(0.0), abs=0.03)
        assert one.lowest.value == pytest.approx(-1.0)
        assert one.below(0.0) == pytest.approx(found[0].below(0.0), abs=1e-9)
    other = lanczos_density(M, probes=40, seed=1)
    assert other.below(0.0) != found[0].below(0.0)


def test_convergence_is_what_the_formulas_say() -> None:
    """With h and J alone: 1 - h l, 1 - h l + (h l)^2, and those of I - h (J + gamma J^T J)."""
    J = quadratic().jacobian().numpy() / 4 - 0.05 * np.eye(5)
    sizes, values, h = {"x": 3, "y": 2}, np.linalg.eigvals(J), 0.2
    expected: list[tuple[Any, np.ndarray]] = [
        (Simultaneous(SGD(h)), 1 - h * values),
        (Extragradient(SGD(h)), 1 - h * values + (h * values) ** 2),
    ]
    for gamma in (0.01, 0.1, 1.0):
        pulled = np.linalg.eigvals(J + gamma * J.T @ J)
        expected.append((Consensus(SGD(h), gamma=gamma), 1 - h * pulled))
    verdicts = set()
    for solver, theirs in expected:
        found = local_convergence(solver, J, sizes)
        # The same multiset: the polynomial with these roots.
        np.testing.assert_allclose(np.poly(found.values), np.poly(theirs), rtol=1e-9, atol=1e-9)
        assert found.radius == pytest.approx(np.abs(theirs).max())
        assert found.converges == (np.abs(theirs).max() < 1)
        assert abs(found.values[0]) == pytest.approx(found.radius)
        verdicts.add(found.converges)
    assert verdicts == {True, False}


def test_a_jacobian_knows_its_players() -> None:
    game = bilinear()
    J = jacobian(game, game.equilibrium())
    solver = Alternating(1, SGD(0.5), leader="x", follower="y")
    assert local_convergence(solver, J).radius == pytest.approx(1.0)  # determinant 1, on the circle
    # Without interaction between the blocks it would be 1 + h^2.
    assert local_convergence(Competitive(SGD(0.5)), J).radius < 1


def test_wrong_points() -> None:
    at, game = pair(), bilinear()
    zero = game.equilibrium()
    with pytest.raises(GameError, match=r"means over samples: give draw=game\.draw"):
        jacobian(at["game"], at["players"])
    with pytest.raises(GameError, match="players holds no 'y': give the parameters of x, y"):
        jacobian(game, {"x": zero["x"]})
    with pytest.raises(GameError, match="draw is empty"):
        jacobian(game, zero, draw=[])
    with pytest.raises(GameError, match=r"no player 'critc' \(did you mean critic\?\)"):
        jacobian(**at).block("critc", "critic")
    with pytest.raises(GameError, match=r"Quadratic has no player 'z': its players are x, y"):
        hessian(game, zero, "z")
    nowhere = tree.map(lambda t: t / 0, at["players"])
    with pytest.raises(GameError, match="not finite"):
        _ = jacobian(at["game"], nowhere, draw=at["draw"]).eigenvalues
    with pytest.raises(
        GameError, match=r"critic's parameters are 0\.weight, 2\.weight, not w: take"
    ):
        jacobian(at["game"], {**at["players"], "critic": {"w": torch.zeros(1)}}, draw=at["draw"])
    huge = {p: {"value": torch.zeros(8000)} for p in "xy"}
    with pytest.raises(GameError, match=r"J of 16,000 parameters would take 2\.0 GB"):
        jacobian(game, huge)


def test_wrong_operators() -> None:
    with pytest.raises(GameError, match=r"an operator \[n, n\], not one of shape \[3, 2\]"):
        lanczos_density(np.zeros((3, 2)))
    with pytest.raises(GameError, match=r"an operator \[n, n\], not one of shape \[\]"):
        lanczos_density(lambda u: u)
    with pytest.raises(GameError, match=r"not symmetric .* take its symmetric part"):
        lanczos_density(np.triu(np.ones((9, 9))))
    with pytest.raises(GameError, match="are not finite"):
        lanczos_density(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match=r"lanczos_density\.steps must be a whole number"):
        lanczos_density(np.eye(2), steps=0)
    with pytest.raises(ValueError, match=r"lanczos_density\.seed must be a whole number"):
        lanczos_density(np.eye(2), seed=-1)


def test_wrong_iterations() -> None:
    J, sizes = np.array([[0.0, 1.0], [-1.0, 0.0]]), {"x": 1, "y": 1}
    cases: list[tuple[Any, Any, Any, str]] = [
        (Consensus, J, sizes, r"Consensus is a class: give a solver, Consensus\(SGD\(0\.1\)\)"),
        (Lookahead(Simultaneous(SGD(0.1))), J, sizes, "Lookahead has no linear map"),
        (
            Simultaneous(SGD(0.1)),
            J[:1],
            sizes,
            r"a finite matrix \[n, n\], not one of shape \[1, 2\]",
        ),
        (Simultaneous(SGD(0.1)), np.full((2, 2), np.inf), sizes, "a finite matrix"),
        (Simultaneous(SGD(0.1)), J, None, "which rows of J belong to which player"),
        (Simultaneous(SGD(0.1)), J, {"x": 1, "y": 2}, "2 in all"),
        (Simultaneous(Adam()), J, sizes, "linear_map is that of"),
        (Alternating(1, SGD(0.1)), J, sizes, "'generator', but the players are x, y"),
    ]
    for solver, matrix, given, words in cases:
        with pytest.raises(GameError, match=words):
            local_convergence(solver, matrix, given)
