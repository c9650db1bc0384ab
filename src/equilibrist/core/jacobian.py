"""The Jacobian J = dv/dx of a game's field as a linear operator: products, never the matrix, unless
it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core._graph import Forward, Graph
from equilibrist.core.draws import Draw
from equilibrist.core.field import Linearization, VectorField
from equilibrist.core.game import Constants, Players


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
        self.field, self.constants, self.draws = field, constants, tuple(draws)
        self.players = {player: players[player] for player in field.game.players}
        self.transposed = transposed
        n = tree.count(players)
        self.shape = (n, n)
        self.dtype = tree.leaves(players)[0].dtype
        # One graph a draw serves all products; those of J itself need another where J has no structure.
        self._graphs: list[Linearization] = []
        self._forward: list[Forward] = []

    @property
    def T(self) -> JacobianOperator:  # noqa: N802
        """The transpose: the same operator, products exchanged."""
        other = JacobianOperator(
            self.field, self.players, self.constants, self.draws, not self.transposed
        )
        other._graphs, other._forward = self._graphs, self._forward
        return other

    def __matmul__(self, u: Tensor) -> Tensor:
        if u.ndim == 2:
            return torch.stack([self @ column for column in u.T], dim=1)
        if u.shape != (self.shape[1],):
            raise ValueError(f"J has {self.shape[1]} columns, the vector has shape {list(u.shape)}")
        direction = tree.unflatten(u, self.players)
        product = self._transposed_product if self.transposed else self._product
        found = [tree.flatten(p) for p in product(direction)]
        return found[0] if len(found) == 1 else torch.stack(found).mean(0)

    def _product(self, u: Players) -> list[Players]:
        if self.field.game.zero_sum and not self.field.follows(self.constants):
            # J = K J^T K, K = 1 on the first player and -1 on the second: one backward pass, not two.
            return [self._flipped(p) for p in self._transposed_product(self._flipped(u))]
        if self.field.parts > 1:
            return [self.field.jvp(self.players, self.constants, u, draw) for draw in self.draws]
        if not self._forward:
            self._forward += [
                Forward(self.field, self.players, self.constants, draw) for draw in self.draws
            ]
        return [graph(u) for graph in self._forward]

    def _transposed_product(self, u: Players) -> list[Players]:
        if not self._graphs:
            self._graphs += [
                self.field.linearize(self.players, self.constants, draw) for draw in self.draws
            ]
        return [graph.pullback(u) for graph in self._graphs]

    def _flipped(self, u: Players) -> Players:
        first, second = self.field.game.players
        return {first: u[first], second: tree.scale(-1.0, u[second])}

    def block(self, row: str, column: str) -> tuple[slice, slice]:
        """Where the derivative of `row`'s gradient by `column`'s parameters stands in J."""
        spans = tree.slices({player: tree.count(part) for player, part in self.players.items()})
        return spans[row], spans[column]

    def dense(self) -> Tensor:
        """The whole matrix [n, n], a row for each product J^T e_i: for small n."""
        flipped = self if self.transposed else self.T
        columns = flipped @ torch.eye(self.shape[0], dtype=self.dtype, device=self.device)
        return columns if self.transposed else columns.T

    def to_scipy(self) -> Any:
        """A scipy.sparse.linalg.LinearOperator for Krylov methods (float64 copies on the CPU)."""
        from scipy.sparse.linalg import LinearOperator

        def of(operator: JacobianOperator) -> Any:
            return lambda u: (
                (operator @ torch.as_tensor(u.reshape(-1)).to(self.device, self.dtype))
                .double()
                .cpu()
                .numpy()
            )

        return LinearOperator(self.shape, matvec=of(self), rmatvec=of(self.T), dtype="float64")

    @property
    def device(self) -> torch.device:
        """Where the players are."""
        return tree.leaves(self.players)[0].device


class HessianOperator:
    """The Hessian of one player's own loss in its own parameters, averaged over draws: H @ u on flat
    vectors [n of that player]. A diagonal block of J, at half the cost of J^T u (1.1 gradients)."""

    def __init__(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        draws: Sequence[Draw],
        player: str,
    ) -> None:
        self.field, self.player = field, player
        self.part = {player: players[player]}
        n = tree.count(self.part)
        self.shape = (n, n)
        anchor = tree.leaves(self.part)[0]
        self.dtype, self.device = anchor.dtype, anchor.device
        self._graphs: list[Graph] = [
            field._differentiate(players, constants, draw, player, create_graph=True)
            for draw in draws
        ]

    def __matmul__(self, u: Tensor) -> Tensor:
        directions = tree.leaves(tree.unflatten(u, self.part))
        total: list[Tensor] = []
        for graph in self._graphs:
            outputs = list(graph.v[self.player].values())
            kept = [i for i, leaf in enumerate(outputs) if leaf.requires_grad]
            if not kept:
                continue
            found = graph.back(
                [outputs[i] for i in kept],
                [directions[i] for i in kept],
                [self.player],
                retain_graph=True,
            )
            total = [a + b for a, b in zip(total, found, strict=True)] if total else list(found)
        if not total:
            return torch.zeros_like(u)
        mean = self.field._mean([leaf / len(self._graphs) for leaf in total])
        return torch.cat([leaf.reshape(-1) for leaf in mean])
