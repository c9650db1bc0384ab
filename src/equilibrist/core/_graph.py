"""A game's gradients with the graph that they were computed by, and products along it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Players
from equilibrist.nn.functional import grad

if TYPE_CHECKING:
    from equilibrist.core.field import VectorField


class Graph(NamedTuple):
    """Gradients with their graph: the leaves `active`, losses, `v`, and second leaves of the weights that power
    vectors follow (`exact.followed_leaves`)."""

    active: Players
    losses: dict[str, Tensor]
    v: Players
    shadows: Players

    def back(
        self,
        outputs: list[Tensor],
        directions: list[Tensor],
        players: Iterable[str],
        **options: Any,
    ) -> list[Tensor]:
        """J^T along `directions` of these entries of v, by the players' leaves in order."""
        names = [(player, k) for player in players for k in self.active[player]]
        followed = [at for at in names if at[1] in self.shadows.get(at[0], {})]
        inputs = [self.active[p][k] for p, k in names] + [self.shadows[p][k] for p, k in followed]
        product = list(grad(outputs, inputs, directions, materialize_grads=True, **options))
        for at, extra in zip(followed, product[len(names) :], strict=True):
            where = names.index(at)
            product[where] = product[where] + extra
        return product[: len(names)]


class Forward:
    """J u on one draw, any number of them: w -> J^T w is linear, and its graph is kept to be pulled back
    along u (2.6 gradients a product, after 3.5 once)."""

    def __init__(
        self, field: VectorField, players: Players, constants: Constants, draw: Draw
    ) -> None:
        self.field, self.players = field, players
        graph = field._differentiate(players, constants, draw, None, create_graph=True)
        leaves = tree.leaves(graph.v)
        self.where = [i for i, leaf in enumerate(leaves) if leaf.requires_grad]
        outputs = [leaves[i] for i in self.where]
        # Zeros that are one number in memory: the place where it is differentiated, not what.
        self.probe = [leaf.new_zeros(()).expand(leaf.shape).requires_grad_() for leaf in outputs]
        self.product: list[Tensor] = []
        if outputs:
            self.product = graph.back(outputs, self.probe, players, create_graph=True)

    def __call__(self, u: Players, retain_graph: bool = True) -> Players:
        """J u; without `retain_graph` it is the last one."""
        directions = [u[player][name] for player, part in self.players.items() for name in part]
        pairs = (
            [(p, d) for p, d in zip(self.product, directions, strict=True) if p.requires_grad]
            if self.product
            else []
        )
        found: dict[int, Tensor] = {}
        if pairs:
            along = grad(
                [p for p, _ in pairs],
                self.probe,
                [d for _, d in pairs],
                retain_graph=retain_graph,
                materialize_grads=True,
            )
            found = {i: value.detach() for i, value in zip(self.where, along, strict=True)}
        like = tree.leaves(self.players)
        result = [found[i] if i in found else torch.zeros_like(x) for i, x in enumerate(like)]
        return tree.fill(self.players, self.field._mean(result))
