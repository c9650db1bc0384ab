"""S(lambda), its roots and its pursuit by products, against matrices written out with numpy."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from equilibrist.checks import _lambda_star, _pursuit
from equilibrist.checks._pursuit import Pursuit, PursuitState, answered, turned
from equilibrist.checks._schur import ReducedSchur, restricted

F64 = torch.float64


def symmetric(n: int, seed: int) -> Tensor:
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, n)))
    return x + x.mT


def positive(n: int, seed: int) -> Tensor:
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, n)))
    return x @ x.mT / n + 0.1 * torch.eye(n, dtype=F64)


def coupling(m: int, k: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((m, k)))


def blocks(seed: int, k: int = 3, m: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        symmetric(k, seed),
        coupling(m, k, seed + 1),
        positive(m, seed + 2),
        positive(m, seed + 3),
    )


def whole(a: Tensor, g: Tensor, c: Tensor, M: Tensor, lam: float) -> np.ndarray:
    """S(lambda) by a dense solve."""
    A, G, K = a.numpy(), g.numpy(), (c + 2 * lam * M).numpy()
    return A + G.T @ np.linalg.solve(K, G)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lam", [1e-6, 0.03, 1.0, 40.0])
def test_the_smallest_eigenvalue_and_the_answer_at_a_lambda(seed: int, lam: float) -> None:
    a, g, c, M = blocks(seed)
    found = ReducedSchur(a, g, c, M).at(lam)
    values, vectors = np.linalg.eigh(whole(a, g, c, M, lam))
    assert found.value == pytest.approx(values[0], abs=1e-9)
    y = vectors[:, 0] * np.sign(vectors[:, 0] @ found.y.numpy())
    np.testing.assert_allclose(found.y, y, atol=1e-7)
    answer = np.linalg.solve((c + 2 * lam * M).numpy(), g.numpy() @ y)
    np.testing.assert_allclose(found.z, answer, atol=1e-7)


def test_the_limits_of_lambda() -> None:
    a, g, c, M = blocks(7)
    small = ReducedSchur(a, g, c, M)
    assert small.at(0.0).value == pytest.approx(np.linalg.eigvalsh(whole(a, g, c, M, 0.0))[0])
    assert small.at(math.inf).value == pytest.approx(float(torch.linalg.eigvalsh(a)[0]))
    # What the norm does not see answers at every lambda.
    M[0], M[:, 0] = 0.0, 0.0
    unseen = np.linalg.eigvalsh(whole(a, g, c, M, 1e9))[0]
    assert ReducedSchur(a, g, c, M).at(math.inf).value == pytest.approx(unseen, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_a_root_is_where_the_quadratic_form_is_minus_the_cut(seed: int) -> None:
    a, g, c, M = blocks(seed)
    small = ReducedSchur(a - 8.0 * torch.eye(3, dtype=F64), g, c, M)
    rng = np.random.default_rng(seed)
    y = torch.from_numpy(rng.standard_normal(3))
    y /= y.norm()

    def form(lam: float) -> float:
        return float(y.numpy() @ whole(small.a, g, c, M, lam) @ y.numpy())

    for cut in (0.0, 0.4):
        root = small.root(y, cut, 0.0)
        if form(1e-12) <= -cut:
            assert root == 0.0
        elif form(1e12) >= -cut:
            assert math.isinf(root)
        else:
            assert form(root) == pytest.approx(-cut, abs=1e-9)
            assert small.root(y, cut, 2 * root) == 2 * root  # below everywhere above that


def test_roots_that_are_none() -> None:
    one = torch.ones(1, 1, dtype=F64)
    y = torch.ones(1, dtype=F64)
    # Its own curvature is above -cut already.
    assert math.isinf(ReducedSchur(one, one, one, one).root(y, 0.0, 0.0))
    assert math.isinf(ReducedSchur(-0.3 * one, one, one, one).root(y, 0.4, 0.0))
    # a = -1: 1 / (1 + 2 lambda) = 1 nowhere above 0; with a = -1/2 at lambda = 1/2.
    assert ReducedSchur(-one, one, one, one).root(y, 0.0, 0.0) == 0.0
    assert ReducedSchur(-0.5 * one, one, one, one).root(y, 0.0, 0.0) == pytest.approx(0.5)
    # A direction that M does not see gives 1 / c = 1/2 at every lambda, which is enough for a = -0.4.
    g, c = torch.ones(2, 1, dtype=F64), torch.diag(torch.tensor([2.0, 1.0], dtype=F64))
    M = torch.diag(torch.tensor([0.0, 1.0], dtype=F64))
    assert math.isinf(ReducedSchur(-0.4 * one, g, c, M).root(y, 0.0, 0.0))
    exact = torch.diag(torch.tensor([4.0, 1.0], dtype=F64))
    assert math.isinf(ReducedSchur(-0.25 * one, g, exact, M).root(y, 0.0, 0.0))
    # For a = -1: 1/2 + 1 / (1 + 2 lambda) = 1 at lambda = 1/2.
    assert ReducedSchur(-one, g, c, M).root(y, 0.0, 0.0) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(6))
def test_the_threshold_is_the_largest_lambda_at_which_s_is_above_it(seed: int) -> None:
    a, g, c, M = blocks(seed)
    a = a - 3.0 * torch.eye(3, dtype=F64)
    star, critical = ReducedSchur(a, g, c, M).threshold(0.2, 0.0)
    low = lambda lam: np.linalg.eigvalsh(whole(a, g, c, M, lam))[0]  # noqa: E731
    if star == 0.0:
        assert low(1e-12) <= -0.2
    elif math.isinf(star):
        assert low(1e12) >= -0.2
    else:
        assert low(star) == pytest.approx(-0.2, abs=1e-8)
        assert critical.value == pytest.approx(low(star), abs=1e-8)


def test_where_the_follower_runs_away_no_lambda_is_admissible() -> None:
    one = torch.ones(1, 1, dtype=F64)
    # c = -1, M = 1: concave for lambda > 1/2 alone.
    assert ReducedSchur(one, one, -one, one).admissible == pytest.approx(0.5)
    assert ReducedSchur(one, one, one, one).admissible == 0.0
    # The norm sees it by a tenth of what it sees of another.
    c, M = (torch.diag(torch.tensor(t, dtype=F64)) for t in ([-1.0, 0.5], [0.1, 1.0]))
    small = ReducedSchur(one, torch.ones(2, 1, dtype=F64), c, M)
    assert small.admissible == pytest.approx(5.0)
    assert small.at(7.0).value == pytest.approx(1 + 1 / (1.4 - 1) + 1 / (0.5 + 14))
    # c = -1 that no norm holds.
    assert math.isinf(ReducedSchur(one, one, -one).admissible)
    assert ReducedSchur(-one, one, -one).threshold(0.0, 0.0)[0] == 0.0


def test_coordinates_that_cannot_answer_do_so_at_zero_only() -> None:
    a, g, c, M = blocks(11)
    blocked = M.clone()
    blocked[4, 4] = math.inf
    small = ReducedSchur(a, g, c, blocked)
    assert small.blocked == 1
    inner = whole(a, g[:4], c[:4, :4], M[:4, :4], 0.7)
    assert small.at(0.7).value == pytest.approx(np.linalg.eigvalsh(inner)[0], abs=1e-9)
    assert small.at(0.7).z[4] == 0
    every = np.linalg.eigvalsh(whole(a, g, c, M, 0.0))[0]
    assert small.stackelberg().value == pytest.approx(every, abs=1e-9)


def test_flat_directions_that_are_coupled_take_the_leader_s_out() -> None:
    """c = 0 in one coordinate, coupled to u_0: S is +infinite along it, and the rest is what remains."""
    a = torch.diag(torch.tensor([-5.0, -1.0], dtype=F64))
    g = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=F64)
    c = torch.diag(torch.tensor([0.0, 2.0], dtype=F64))
    found = restricted(a, g, c, 1e-8)
    assert found.value == pytest.approx(-1.0 + 1 / 2)
    assert found.room == 1
    assert found.null.shape == (2, 1)
    assert found.u is not None
    assert found.w is not None
    np.testing.assert_allclose(found.u.abs(), [0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(found.w.abs(), [0.0, 0.5], atol=1e-12)
    none = restricted(a, torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64), 1e-8)
    assert math.isinf(none.value)


# -- by products ---------------------------------------------------------------------------------------


class Dense:
    """Products with blocks that are written out."""

    def __init__(self, a: Tensor, g: Tensor, c: Tensor) -> None:
        self.a, self.g, self.c = a, g, c
        self.draws = [{}]
        self.leader, self.follower = (SimpleNamespace(n=len(t)) for t in (a, c))

    def of_leader(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.a @ u, self.g @ u

    def of_follower(self, w: Tensor) -> tuple[Tensor, Tensor]:
        return self.g.mT @ w, self.c @ w


def pursuit(
    parts: tuple[Tensor, Tensor, Tensor, Tensor], budget: int = 10_000, damping: float = 0.0
) -> Pursuit:
    a, g, c, M = parts
    least = float(torch.linalg.eigvalsh(c)[0]) + damping if bool(c.isfinite().all()) else 1.0
    value: Any = Dense(a, g, c)
    return Pursuit(value, lambda w: M @ w, damping, least, budget)


def begun(found: Pursuit, leaders: int = 1) -> Pursuit:
    rng = np.random.default_rng(5)
    for _ in range(leaders):
        assert found.add_leader(torch.from_numpy(rng.standard_normal(found.value.leader.n)))
    return found


def test_residuals_and_what_an_answer_misses_are_those_of_the_whole_spaces() -> None:
    a, g, c, M = parts = blocks(21, k=6, m=9)
    found = begun(pursuit(parts, damping=0.3), leaders=2)
    for k in range(3):
        found.add_follower(coupling(9, 1, 40 + k)[:, 0])
    lam = 0.8
    state = found.state(lam)
    K = c + 0.3 * torch.eye(9, dtype=F64) + 2 * lam * M
    turn = a @ state.u + g.mT @ state.w - state.value * state.u
    rest = g @ state.u - K @ state.w
    assert state.leader == pytest.approx(float(turn.norm()), abs=1e-10)
    assert state.follower == pytest.approx(float(rest.norm() / (g @ state.u).norm()), abs=1e-10)
    assert state.missed == pytest.approx(float(rest.norm()) ** 2 / found.least)
    np.testing.assert_allclose(state.residuals[0], turn, atol=1e-10)
    np.testing.assert_allclose(state.residuals[1], rest, atol=1e-10)
    # Along a fixed direction the whole answer adds no more than the bound.
    y = torch.tensor([1.0, 0.0], dtype=F64)
    value, missed = found.along(y, lam, found.small())
    u = found.U[0]
    true = float(u @ a @ u + (g @ u) @ torch.linalg.solve(K, g @ u))
    assert value <= true <= value + missed


def test_directions_of_a_large_pair_are_kept_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same state as in float64, to float32's rounding, from half the memory."""
    parts = blocks(21, k=6, m=9)

    def state() -> tuple[Pursuit, PursuitState]:
        found = begun(pursuit(parts, damping=0.3), leaders=2)
        for k in range(3):
            found.add_follower(coupling(9, 1, 40 + k)[:, 0])
        return found, found.state(0.8)

    (wide, want), _ = state(), monkeypatch.setattr(_pursuit, "LARGE", 0)
    small, got = state()
    assert wide.U[0].dtype == F64
    assert {x.dtype for x in (*small.U, *small.AU, *small.GU, *small.Q, *small.CQ)} == {
        torch.float32
    }
    assert small.most >= 4
    assert got.value == pytest.approx(want.value, rel=1e-5)
    assert got.u.dtype == F64
    np.testing.assert_allclose(got.u, want.u, atol=1e-5)
    np.testing.assert_allclose(got.residuals[1], want.residuals[1], atol=1e-5)


def test_no_coupling_needs_no_answer() -> None:
    a, g, c, M = blocks(22)
    found = begun(pursuit((a, torch.zeros_like(g), c, M)))
    state = found.state(1.0)
    assert (state.follower, state.missed) == (0.0, 0.0)
    assert answered(state, 0.1)


@pytest.mark.parametrize("least", [0.0, -1.0])
def test_where_the_follower_may_be_flat_what_is_missed_has_no_bound(least: float) -> None:
    found = begun(pursuit(blocks(23)))
    found.least = least
    assert math.isinf(found.state(1.0).missed)
    y, small = torch.ones(1, dtype=F64), found.small()
    assert math.isinf(found.along(y, 1.0, small)[1])
    a, g, c, M = blocks(23)
    alone = begun(pursuit((a, torch.zeros_like(g), c, M)))
    alone.least = least
    assert alone.along(y, 1.0, alone.small())[1] == 0.0


@pytest.mark.parametrize("least", [0.2, 1.0, 3.0])
def test_the_bound_is_the_residual_squared_over_the_least_eigenvalue(least: float) -> None:
    found = begun(pursuit(blocks(24)))
    found.least = least
    rest = found.GU[0]
    _, missed = found.along(torch.ones(1, dtype=F64), 1.0, found.small())
    assert missed == pytest.approx(float(rest @ rest) / least)


@pytest.mark.parametrize("seed", range(4))
def test_growing_to_the_end_finds_the_whole_eigenvalue(seed: int) -> None:
    a, g, c, M = parts = blocks(30 + seed, k=12, m=10)
    found = begun(pursuit(parts))
    lam = 0.5
    state = found.state(lam)
    grown = 0
    while found.grow(state, 1e-3):
        state = found.state(lam)
        grown += 1
        assert grown < 60
    true = np.linalg.eigvalsh(whole(a, g, c, M, lam))[0]
    assert state.value == pytest.approx(true, abs=0.06 * max(abs(true), 1e-3))
    assert answered(state, 1e-3)
    assert turned(state, 1e-3)
    # An answer that is not known is sought before a direction is.
    fresh = begun(pursuit(parts))
    assert fresh.grow(fresh.state(lam), 1e-3)
    assert (len(fresh.U), len(fresh.Q)) == (1, 1)


def test_it_has_converged_where_both_the_answer_and_the_direction_are_known() -> None:
    """lambda* by products: settled with a large budget, not so while either is unknown."""
    a, g, c, M = blocks(30, k=12, m=10)
    parts = a - 3.0 * torch.eye(12, dtype=F64), g, c, M
    truth, _ = ReducedSchur(*parts).threshold(0.1, 0.0)
    low, high, _, done = _lambda_star._pursued(begun(pursuit(parts)), 0.1)
    assert done
    assert low <= truth * (1 + 1e-6)
    assert truth <= high * (1 + 1e-6)
    early = begun(pursuit(parts, budget=1), leaders=1)
    for k in range(10):  # every answer, and one direction only
        early.add_follower(torch.eye(10, dtype=F64)[k])
    *_, state, done = _lambda_star._pursued(early, 0.1)
    assert answered(state, 0.1)
    assert not turned(state, 0.1)
    assert not done


def test_a_budget_ends_it() -> None:
    found = begun(pursuit(blocks(35, k=12, m=10), budget=6))
    while found.grow(found.state(0.5), 1e-3):
        pass
    assert found.spent
    assert found.products <= 6
    assert not found.grow(found.state(0.5), 1e-3)


def test_what_is_not_finite_fails_it() -> None:
    a, g, c, M = blocks(36)
    found = pursuit((a * math.nan, g, c, M))
    assert found.sound()
    assert not found.add_leader(torch.ones(3, dtype=F64))
    assert not found.sound()
    other = begun(pursuit((a, g, c * math.nan, M)))
    assert not other.add_follower(torch.ones(5, dtype=F64))
    assert not other.sound()


def stands(**given: Any) -> PursuitState:
    nothing = torch.zeros(1)
    plain = {"lam": 1.0, "value": -1.0, "leader": 1.0, "follower": 1.0, "missed": 1.0}
    return PursuitState(**(plain | given), u=nothing, w=nothing, residuals=(nothing, nothing))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ({}, False),
        ({"follower": 1e-3}, True),
        ({"follower": 1.1e-3}, False),
        ({"missed": 0.05}, True),
        ({"missed": 0.051}, False),
        ({"value": -2.0, "missed": 0.1}, True),
        # At both limits an eigenvalue above the cut stays there, whatever the answer.
        ({"lam": math.inf, "value": -0.5}, True),
        ({"lam": 0.0, "value": -0.5}, True),
        ({"lam": 1.0, "value": -0.5}, False),
        ({"lam": math.inf, "value": -0.6}, False),
    ],
)
def test_when_an_answer_is_known(given: dict[str, float], known: bool) -> None:
    assert answered(stands(**given), 0.5) is known


@pytest.mark.parametrize(
    ("given", "known"),
    [({}, False), ({"leader": 0.05}, True), ({"leader": 0.051}, False), ({"value": -0.1}, False)],
)
def test_when_a_direction_is_known(given: dict[str, float], known: bool) -> None:
    assert turned(stands(**given), 0.5) is known
    assert turned(stands(value=0.1, leader=0.025), 0.5)
    assert not turned(stands(value=0.1, leader=0.026), 0.5)
