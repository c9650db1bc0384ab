"""The Jacobian J = dv/dx of a game's field as a linear operator: products, never the matrix, unless
it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist._draws import Draw
from equilibrist._field import Linearization, VectorField
from equilibrist._game import Constants, Players


class JacobianOperator:
    """J at one point, averaged over draws: `J @ u`, `J.T @ u` on flat vectors [n] (or columns [n, k]).

    Entries are ordered as `tree.flatten(players)`: players in turn, parameters in order. J is not
    symmetric; for a zero-sum game its off-diagonal blocks are opposite transposes.
    """

    def __init__(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        draws: Sequence[Draw],
        transposed: bool = False,
    ) -> None:
        if not draws:
            raise ValueError("a Jacobian needs at least one draw to be taken on")
        if field.stacked:
            raise ValueError(
                "a Jacobian is of one member: take it from a field that is not stacked"
            )
        self.field, self.players, self.constants, self.draws = (
            field,
            players,
            constants,
            tuple(draws),
        )
        self.transposed = transposed
        n = tree.count(players)
        self.shape = (n, n)
        self.dtype = tree.leaves(players)[0].dtype
        self._graphs: list[Linearization] = []

    @property
    def T(self) -> JacobianOperator:  # noqa: N802
        """The transpose: the same operator, products exchanged."""
        other = JacobianOperator(
            self.field, self.players, self.constants, self.draws, not self.transposed
        )
        other._graphs = self._graphs
        return other

    def __matmul__(self, u: Tensor) -> Tensor:
        if u.ndim == 2:
            return torch.stack([self @ column for column in u.T], dim=1)
        if u.shape != (self.shape[1],):
            raise ValueError(f"J has {self.shape[1]} columns, the vector has shape {list(u.shape)}")
        direction = tree.unflatten(u, self.players)
        product = self._transposed_product if self.transposed else self._product
        return torch.stack([tree.flatten(p) for p in product(direction)]).mean(0)

    def _product(self, u: Players) -> list[Players]:
        return [self.field.jvp(self.players, self.constants, u, draw) for draw in self.draws]

    def _transposed_product(self, u: Players) -> list[Players]:
        if not self._graphs:  # J^T u is the cheap product: one graph a draw serves all of them
            self._graphs += [
                self.field.linearize(self.players, self.constants, draw) for draw in self.draws
            ]
        return [graph.pullback(u) for graph in self._graphs]

    def block(self, row: str, column: str) -> tuple[slice, slice]:
        """Where the derivative of `row`'s gradient by `column`'s parameters stands in J."""
        spans, start = {}, 0
        for player, part in self.players.items():
            stop = start + tree.count(part)
            spans[player], start = slice(start, stop), stop
        return spans[row], spans[column]

    def dense(self) -> Tensor:
        """The whole matrix [n, n], a row for each product J^T e_i: for small n."""
        flipped = self if self.transposed else self.T
        columns = flipped @ torch.eye(self.shape[0], dtype=self.dtype, device=self._device)
        return columns if self.transposed else columns.T

    def to_scipy(self) -> Any:
        """A scipy.sparse.linalg.LinearOperator for Krylov methods (float64 copies on the CPU)."""
        from scipy.sparse.linalg import LinearOperator

        def of(operator: JacobianOperator) -> Any:
            return lambda u: (
                (operator @ torch.as_tensor(u.reshape(-1)).to(self._device, self.dtype))
                .double()
                .cpu()
                .numpy()
            )

        return LinearOperator(self.shape, matvec=of(self), rmatvec=of(self.T), dtype="float64")

    @property
    def _device(self) -> torch.device:
        return tree.leaves(self.players)[0].device
