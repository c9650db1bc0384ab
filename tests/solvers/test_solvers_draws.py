"""Steps where the minibatch or the constants differ between two gradients of one step, computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.core.game import Plain
from equilibrist.optimizers import SGD
from equilibrist.solvers import Consensus, Extragradient, PastExtragradient, SymplecticAdjustment

F64, H = torch.float64, 0.1
MATRICES = [
    torch.tensor([[0.5, 1.3], [-0.7, 0.2]], dtype=F64),
    torch.tensor([[-0.4, 0.6], [0.9, 1.1]], dtype=F64),
]


STALE = {p: {"at": torch.full((1,), torch.nan, dtype=F64)} for p in ("x", "y")}


class Drawn(Plain):
    """v = A z for z = (x, y), the matrix A that of the minibatch."""

    players, zero_sum, separable = ("x", "y"), False, True

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        x, y, A = players["x"]["v"], players["y"]["v"], draw["A"]
        return {
            "x": (A[0, 0] * x**2 / 2 + A[0, 1] * x * y).sum(),
            "y": (A[1, 1] * y**2 / 2 + A[1, 0] * x * y).sum(),
        }


class Minibatches:
    """Minibatch k has the k-th matrix."""

    def __init__(self, *matrices: torch.Tensor) -> None:
        self.matrices = matrices

    def batch(self, index: int = 0) -> dict[str, torch.Tensor]:
        return {"A": self.matrices[index]}

    def noise(self, like: Any, index: int = 0) -> Any:
        raise AssertionError("these solvers draw no noise")


def players_at(z: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    return {"x": {"v": z[:1].clone()}, "y": {"v": z[1:].clone()}}


def stepped(
    solver: Any, game: Any, z: torch.Tensor, *matrices: torch.Tensor
) -> tuple[torch.Tensor, Any]:
    players, draws = players_at(z), Minibatches(*matrices or MATRICES)
    found = solver.step(VectorField(game), players, STALE, solver.init(players), draws)
    return tree.flatten(found.players), found.constants


def test_consensus_on_two_minibatches_crosses_them() -> None:
    """J_1^T v_2 is unbiased for J^T v where the minibatches are independent; J_1^T v_1 is not."""
    z, gamma = torch.tensor([1.0, -2.0], dtype=F64), 0.7
    J, K = MATRICES
    v, w = J @ z, K @ z
    expected = z - H * ((v + w) / 2 + gamma * (J.T @ w + K.T @ v) / 2)
    found, _ = stepped(Consensus(SGD(H), gamma=gamma, batches=2), Drawn(), z)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)


def test_symplectic_alignment_divides_by_the_number_of_parameters() -> None:
    """Where <xi, J^T xi> <A^T xi, J^T xi> lies between -0.2 and -0.1, the sign of it / n + 0.1 is that of n = 2."""
    J = torch.tensor([[-0.5, 1.3], [-0.7, -0.2]], dtype=F64)
    A = (J - J.T) / 2
    z = torch.tensor([1.0, 1.0], dtype=F64)

    def product(z: torch.Tensor) -> torch.Tensor:
        xi = J @ z
        return (xi @ J.T @ xi) * ((A.T @ xi) @ (J.T @ xi))

    assert product(z) < 0
    z = z * (0.15 / -product(z)) ** 0.25
    assert product(z) / 2 + 0.1 > 0 > product(z) + 0.1
    found, _ = stepped(SymplecticAdjustment(SGD(H), strength=0.8, align=True), Drawn(), z, J)
    xi = J @ z
    torch.testing.assert_close(found, z - H * (xi + 0.8 * A.T @ xi), rtol=1e-13, atol=0)


class Followed(Drawn):
    """Constants that are right only at the point where they were refreshed, as power vectors are; each
    refresh also keeps the minibatch that it saw."""

    def refresh(self, players: Any, constants: Any, draw: Any, exact: bool = False) -> Any:
        return {p: {"at": x["v"].detach().clone(), "A": draw["A"]} for p, x in players.items()}

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        for player, part in players.items():
            assert torch.equal(constants[player]["at"], part["v"]), "constants of another point"
            assert torch.equal(constants[player]["A"], draw["A"]), "constants of another minibatch"
        return super().losses(players, constants, draw, only)


@pytest.mark.parametrize("fresh", [False, True])
def test_extragradient_refreshes_constants_where_it_looks_ahead(fresh: bool) -> None:
    z = torch.tensor([1.0, -2.0], dtype=F64)
    J, K = MATRICES[0], MATRICES[1] if fresh else MATRICES[0]
    ahead = z - H * J @ z
    found, constants = stepped(Extragradient(SGD(H), fresh=fresh), Followed(), z)
    torch.testing.assert_close(found, z - H * K @ ahead, rtol=1e-14, atol=0)
    assert torch.equal(constants["x"]["at"], ahead[:1])


def test_past_extragradient_refreshes_constants_where_it_looks_ahead() -> None:
    z, J = torch.tensor([1.0, -2.0], dtype=F64), MATRICES[0]
    solver, field = PastExtragradient(SGD(H)), VectorField(Followed())
    players, constants, draws = players_at(z), STALE, Minibatches(J)
    state, kept = solver.init(players), torch.zeros(2, dtype=F64)
    for _ in range(3):
        players, constants, state, _ = solver.step(field, players, constants, state, draws)
        ahead = z - H * kept
        kept = J @ ahead
        z = z - H * kept
        torch.testing.assert_close(tree.flatten(players), z, rtol=1e-13, atol=0)
        assert torch.equal(constants["y"]["at"], ahead[1:])
