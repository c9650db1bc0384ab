"""One-step maps on the bilinear game, lemma (5), consensus's spectrum and its corrected bounds."""

from __future__ import annotations

import cmath
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.core.draws import Draws
from equilibrist.core.field import VectorField
from equilibrist.formulations import WGAN
from equilibrist.games import (
    GAN,
    Quadratic,
    bilinear,
    curved_ridge,
    false_attractor,
    hidden_minimax,
    three_nash,
)
from equilibrist.optimizers import SGD
from equilibrist.solvers import (
    Alternating,
    Competitive,
    Consensus,
    Extragradient,
    FollowTheRidge,
    Implicit,
    Lookahead,
    Optimistic,
    PastExtragradient,
    Proximal,
    Simultaneous,
    SymplecticAdjustment,
    Unrolled,
    iterate,
)

F64 = torch.float64
ROLES: Any = {"leader": "x", "follower": "y"}


def radius(matrix: Any) -> float:
    return float(np.abs(np.linalg.eigvals(np.asarray(matrix))).max())


def play(solver: Any, game: Any, z: Any, steps: int) -> list[np.ndarray]:
    """Iterates from z, flat, the first included."""
    start = tree.unflatten(torch.as_tensor(z, dtype=F64), game.equilibrium())
    found = iterate(game, solver, start, steps).players
    return [tree.flatten(tree.member(found, k)).numpy() for k in range(steps + 1)]


def rate(solver: Any, steps: int = 60) -> float:
    """The factor a step of the bilinear game, from two late pairs of consecutive iterates: (z_k, z_k+1) -> next
    is a linear map, whose eigenvalues are those of the recurrence z_k+2 = a z_k+1 + b z_k."""
    z = play(solver, bilinear(), [1.0, 0.3], steps)[-4:]
    past = np.stack([np.concatenate(z[1:3]), np.concatenate(z[0:2])], 1)
    (a, b), *_ = np.linalg.lstsq(past, np.concatenate(z[2:4]), rcond=None)
    return max(abs(root) for root in np.roots([1, -a, -b]))


def optimistic(h: float) -> float:
    """The larger root of lambda^2 - (1 - 2 i h) lambda - i h in modulus."""
    return max(abs(r) for r in np.roots([1, -(1 - 2j * h), -1j * h]))


@pytest.mark.parametrize("h", [0.05, 0.3, 0.45])
def test_one_step_maps(h: float) -> None:
    gamma = 0.6
    root = math.sqrt(1 - 4 * h * h)
    expected: dict[Any, float] = {
        Simultaneous: math.sqrt(1 + h * h),
        Extragradient: math.sqrt(1 - h**2 + h**4),
        Optimistic: math.sqrt((1 + root) / 2),
        PastExtragradient: math.sqrt((1 + root) / 2),
        Implicit: 1 / math.sqrt(1 + h * h),
    }
    for kind, value in expected.items():
        assert rate(kind(SGD(h))) == pytest.approx(value, rel=1e-9), kind
    assert optimistic(h) == pytest.approx(expected[Optimistic], rel=1e-12)
    assert rate(Alternating(1, SGD(h), **ROLES)) == pytest.approx(1, rel=1e-9)
    value = math.sqrt((1 - h * gamma) ** 2 + h**2)
    assert rate(Consensus(SGD(h), gamma=gamma)) == pytest.approx(value, rel=1e-9)
    # Not in SCIENCE: v + s A^T v = J (I - s J) z, of eigenvalues s +- i on the bilinear game, as consensus.
    assert rate(SymplecticAdjustment(SGD(h), strength=gamma)) == pytest.approx(value, rel=1e-9)
    # (I + h O)^{-1} J = h/(1+h^2) I + ... : eigenvalues (h +- i) / (1 + h^2).
    value = abs(1 - h * (h + 1j) / (1 + h * h))
    assert rate(Competitive(SGD(h), iterations=2)) == pytest.approx(value, rel=1e-9)
    assert value == pytest.approx(1 / math.sqrt(1 + h * h)), "the implicit step's factor"
    # Unrolled: y_k = y + k r x, so x's direction is y + 2 k r x; y's is -x.
    k, r = 3, 0.2
    value = radius([[1 - 2 * h * k * r, -h], [h, 1]])
    assert rate(Unrolled(SGD(h), unroll=k, rate=r, **ROLES)) == pytest.approx(value, rel=1e-9)
    # Lookahead: every fifth iterate moves by (1 - alpha) I + alpha M^5.
    inner = cmath.rect(math.sqrt(1 + h * h), math.atan(h)) ** 5
    z = play(Lookahead(Simultaneous(SGD(h)), 5, 0.4), bilinear(), [1.0, 0.3], 25)[::5]
    for a, b in itertools.pairwise(z):
        assert np.linalg.norm(b) / np.linalg.norm(a) == pytest.approx(abs(0.6 + 0.4 * inner))


def test_limits_of_stability_on_the_bilinear_game() -> None:
    """Alternating: h < 2. Optimistic: h < 1/sqrt(3). Extragradient: h < 1. Negative momentum: never at once."""
    J, sizes = bilinear().jacobian(), {"x": 1, "y": 1}
    for make, limit in (
        (lambda h: Alternating(1, SGD(h), **ROLES), 2.0),
        (lambda h: Optimistic(SGD(h)), 1 / math.sqrt(3)),
        (lambda h: PastExtragradient(SGD(h)), 1 / math.sqrt(3)),
        (lambda h: Extragradient(SGD(h)), 1.0),
    ):
        assert radius(make(limit * (1 - 1e-3)).linear_map(J, sizes)) < 1 + 1e-9
        assert radius(make(limit * (1 + 1e-3)).linear_map(J, sizes)) > 1 + 1e-5
        assert radius(make(limit).linear_map(J, sizes)) == pytest.approx(1, abs=1e-7)
    for h in (0.05, 0.3):
        for momentum in (-0.9, -0.5, -0.1, 0.5):
            assert radius(Simultaneous(SGD(h, momentum)).linear_map(J, sizes)) > 1


class _Shift(nn.Module):
    """G(z) = theta: the Dirac-GAN's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(1, dtype=F64))

    def forward(self, z: Tensor) -> Tensor:
        return self.theta + 0 * z


class _Slope(nn.Module):
    """D(x) = psi x."""

    def __init__(self) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.full((1,), 0.3, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.psi


@pytest.mark.parametrize("lam", [0.2, 1.0])
def test_proximal_training_with_exact_inner_steps(lam: float) -> None:
    """On V = -psi theta, which is bilinear, with data at 0: one inner step of size 1/(2 lambda) solves the
    critic's problem psi - theta/(2 lambda); the outer map has determinant 1 and modulus 1 for h < 8 lambda."""
    game = GAN(_Shift(), _Slope(), WGAN(), latent=1)
    draw = {"real": torch.zeros(3, 1, dtype=F64), "latent": torch.zeros(3, 1, dtype=F64)}
    field = VectorField(game)
    for h, steps in ((0.3, 1), (7.9 * lam, 2), (8.1 * lam, 1)):
        solver = Proximal(
            steps, lam, optimizers={"critic": SGD(1 / (2 * lam)), "generator": SGD(h)}
        )
        # x = theta, y = psi: psi' = psi - theta / (2 lam), theta' = theta + h psi'.
        M = np.array([[1 - h / (2 * lam), h], [-1 / (2 * lam), 1]])
        assert np.linalg.det(M) == pytest.approx(1, rel=1e-12)
        assert (radius(M) < 1 + 1e-9) == (h < 8 * lam)
        players, constants = game.init()
        z, state = np.array([1.0, 0.3]), solver.init(players)
        for k in range(6):
            draws = Draws(lambda rng: dict(draw), 0, k)
            players, constants, state, _ = solver.step(field, players, constants, state, draws)
            z = M @ z
            np.testing.assert_allclose(tree.flatten(players).numpy(), z, rtol=1e-11, atol=1e-11)


# -- lemma (5) and consensus ---------------------------------------------------------------------


def stable(n: int, seed: int) -> np.ndarray:
    """A random matrix (papers' sign) whose eigenvalues have negative real part."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n))
    return A - (np.linalg.eigvals(A).real.max() + rng.uniform(0.05, 1)) * np.eye(n)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_lemma_5(n: int) -> None:
    """The largest stable step, from both sides of the open ball, and as the papers print it."""
    for seed in range(30):
        A = stable(n, seed)
        values = np.linalg.eigvals(A)
        limit = (2 * np.abs(values.real) / np.abs(values) ** 2).min()
        printed = (2 / np.abs(values.real) / (1 + (values.imag / values.real) ** 2)).min()
        assert limit == pytest.approx(printed, rel=1e-12)
        unit = np.eye(n)
        assert radius(unit + (1 - 1e-6) * limit * A) < 1
        assert radius(unit + (1 + 1e-6) * limit * A) > 1
        assert radius(unit + limit * A) == pytest.approx(1, abs=1e-9), "the ball is open"


def test_lemma_5_on_a_run() -> None:
    """Simultaneous steps of a quadratic game shrink just below the limit and grow just above it."""
    rng = np.random.default_rng(3)
    A, B, C = (torch.as_tensor(rng.standard_normal(s)) for s in ((2, 2), (2, 3), (3, 3)))
    game = Quadratic(A @ A.T + 0.3 * torch.eye(2), B, C @ C.T + 0.2 * torch.eye(3))
    values = np.linalg.eigvals(game.jacobian().numpy())
    limit = (2 * values.real / np.abs(values) ** 2).min()
    for factor in (0.97, 1.03):
        h = float(factor * limit)
        z = play(Simultaneous(SGD(h)), game, rng.standard_normal(5), 600)
        seen = (np.linalg.norm(z[-1]) / np.linalg.norm(z[300])) ** (1 / 300)
        assert seen == pytest.approx(radius(np.eye(5) - h * game.jacobian().numpy()), rel=3e-3)
        assert (seen < 1 - 1e-3) == (factor < 1)
        assert (seen > 1 + 1e-3) == (factor > 1)


def q_of(A: np.ndarray, gamma: float) -> float:
    values = np.linalg.eigvals(A - gamma * A.T @ A)
    return float(np.abs(values.imag / values.real).max())


def c_of(A: np.ndarray) -> float:
    """min over unit v of |v*(A + A^T)v| / |v*(A - A^T)v|, A + A^T negative semi-definite: with S = -(A + A^T) =
    R^2 the largest value of |v* i(A - A^T) v| / v* S v is the spectral radius of R^-1 i(A - A^T) R^-1."""
    values, vectors = np.linalg.eigh(-(A + A.T))
    if values.min() < 1e-12:
        return 0.0
    inverse = vectors / np.sqrt(values) @ vectors.T
    return 1 / float(np.abs(np.linalg.eigvalsh(inverse @ (1j * (A - A.T)) @ inverse)).max())


def semidefinite(n: int, seed: int) -> np.ndarray:
    """A with A + A^T negative semi-definite (zero, or of any rank), invertible."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((n, rng.integers(0, n + 1)))
    K = rng.standard_normal((n, n))
    return -rng.uniform(0.01, 1) * root @ root.T / n + rng.uniform(0.1, 3) * (K - K.T)


@pytest.mark.parametrize("n", [2, 4, 6])
def test_consensus_spectrum_and_the_corrected_bounds(n: int) -> None:
    tight = 0.0
    for seed in range(120):
        A = semidefinite(n, seed)
        rho = np.linalg.svd(A, compute_uv=False).min()
        c, twist = c_of(A), np.linalg.norm(A - A.T, 2)
        for gamma in (0.0, 0.01, 0.3, 2.0, 30.0):
            if gamma == 0 and c == 0:
                continue
            q = q_of(A, gamma)
            first = 1 / (c + rho * gamma)
            second = 1 / (c + 2 * rho**2 * gamma / twist)
            assert q <= first * (1 + 1e-9)
            assert q <= second * (1 + 1e-9)
            tight = max(tight, q / first)
    assert tight > 0.9, "the bound is not far off"


def test_the_printed_bound_fails() -> None:
    """Slide's lemma (10), q <= 1/(c + 2 rho^2 gamma), at A = [[0, 1], [-1, 0]], gamma = 1: q = 1, bound 1/2."""
    A = np.array([[0.0, 1.0], [-1.0, 0.0]])
    rho, c = np.linalg.svd(A, compute_uv=False).min(), c_of(A)
    assert (rho, c) == (1.0, 0.0)
    q = q_of(A, 1.0)
    assert q == pytest.approx(1.0, rel=1e-14)
    assert 1 / (c + 2 * rho**2) == pytest.approx(0.5)
    assert q > 1 / (c + 2 * rho**2), "the printed bound does not hold"
    assert q <= 1 / (c + rho) + 1e-14
    assert q <= 1 / (c + 2 * rho**2 / np.linalg.norm(A - A.T, 2)) + 1e-14
    # The same numbers from the solver on the bilinear game.
    M = Consensus(SGD(0.1), gamma=1.0).linear_map(bilinear().jacobian(), {"x": 1, "y": 1})
    values = (np.linalg.eigvals(M.numpy()) - 1) / 0.1
    assert float(np.abs(values.imag / values.real).max()) == pytest.approx(1.0)


def test_consensus_allows_larger_steps() -> None:
    """Lemma (5) after regularisation: gamma brings the eigenvalues nearer to the real axis."""
    A = -(np.array([[0.1, 3.0], [-3.0, 0.1]]))
    limits = []
    for gamma in (0.0, 0.1, 0.3):
        values = np.linalg.eigvals(A - gamma * A.T @ A)
        limits.append((2 * np.abs(values.real) / np.abs(values) ** 2).min())
    assert limits[0] < limits[1] < limits[2]
    assert limits[2] / limits[0] > 8


# -- where each goes: the quadratics of SCIENCE 4 ------------------------------------------------

GENTLE: dict[str, Any] = {
    "simultaneous": lambda h: Simultaneous(SGD(h)),
    "alternating": lambda h: Alternating(1, SGD(h), **ROLES),
    "extragradient": lambda h: Extragradient(SGD(h)),
    "optimistic": lambda h: Optimistic(SGD(h)),
    "consensus": lambda h: Consensus(SGD(h), gamma=1.0),
    "symplectic": lambda h: SymplecticAdjustment(SGD(h), strength=1.0),
    "ridge": lambda h: FollowTheRidge(SGD(h), iterations=2, **ROLES),
    "implicit": lambda h: Implicit(SGD(h), iterations=1),
}
REACH_FALSE = {
    "simultaneous",
    "alternating",
    "extragradient",
    "optimistic",
    "consensus",
    "symplectic",
}
REACH_HIDDEN = {"consensus", "symplectic", "ridge"}


@pytest.mark.parametrize("name", GENTLE)
def test_what_attracts_on_the_two_quadratics(name: str) -> None:
    """f = 3x^2 + y^2 + 4xy: all but follow-the-ridge go to (0, 0), which is neither Nash nor minimax.
    f = -3x^2 - y^2 + 4xy: (0, 0) is a minimax point, and consensus, SGA and follow-the-ridge go there."""
    h = 0.01
    for game, reach in (
        (false_attractor(), REACH_FALSE | {"implicit"}),
        (hidden_minimax(), REACH_HIDDEN),
    ):
        M = GENTLE[name](h).linear_map(game.jacobian(), {"x": 1, "y": 1})
        assert (radius(M) < 1) == (name in reach), (name, radius(M))
        start = [1e-3, -2e-3]
        z = play(GENTLE[name](h), game, start, 150)
        growth = np.linalg.norm(z[-1]) / np.linalg.norm(z[75])
        assert (growth < 1) == (name in reach)


def test_follow_the_ridge_reaches_exactly_the_minimax_points() -> None:
    """And small simultaneous steps exactly the attractors, at every planar point and on random quadratics."""
    rng = np.random.default_rng(5)
    games: list[Any] = [three_nash(), curved_ridge(), false_attractor(), hidden_minimax()]
    for _ in range(60):
        A, B, C = (torch.as_tensor(rng.standard_normal(s)) for s in ((2, 2), (2, 2), (2, 2)))
        games.append(Quadratic(A, 2 * B, C + 0.5 * torch.eye(2)))
    seen = set()
    for game in games:
        follower = "y" if game.leader == "x" else "x"
        for point in game.points():
            J = game.jacobian(point.players)
            sizes = {p: tree.count(part) for p, part in point.players.items()}
            h = 1e-4 / float(J.abs().max())
            ridge = FollowTheRidge(SGD(h), leader=game.leader, follower=follower)
            minimax = game.leader in point.leaders
            assert (radius(ridge.linear_map(J, sizes)) < 1) == minimax
            values = np.linalg.eigvals(J.numpy())
            if point.attracts:
                h = float((values.real / np.abs(values) ** 2).min())
            assert (radius(Simultaneous(SGD(h)).linear_map(J, sizes)) < 1) == point.attracts
            seen.add((minimax, point.attracts))
    assert seen == {(a, b) for a in (True, False) for b in (True, False)}
