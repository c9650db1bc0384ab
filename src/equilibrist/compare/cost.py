"""What one step of a solver evaluates, counted while it is taken."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from equilibrist.core.draws import Batches, Draw
from equilibrist.core.field import Linearization, VectorField
from equilibrist.core.game import Constants, Game, Players
from equilibrist.games import Mixture
from equilibrist.run.recipe import Recipe

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """Evaluations of one step.

    Attributes:
        gradients: gradients of each player's own loss, one minibatch each. The inner gradients of
            an unrolled loss count; those of a penalty belong to the loss that it is part of.
        pullbacks: products J^T u, J = dv/dx, on a graph that a gradient left; two products with an
            off-diagonal block alone are one.
        pushforwards: products J u; each builds a graph of its own and goes through it twice.
        passes: further passes through the networks without a parameter's gradient (an anchor's slopes).
    """

    gradients: dict[str, int]
    pullbacks: int = 0
    pushforwards: int = 0
    passes: int = 0

    @property
    def products(self) -> int:
        """Jacobian products of either kind."""
        return self.pullbacks + self.pushforwards


def cost(recipe: Recipe, device: str | torch.device = "cpu") -> Cost:
    """The evaluations of the first step of the recipe's solver, from seed 0, counted while it is taken.

    Parts of a minibatch (`accumulate`) are not counted apart.
    """
    place = torch.device(device)
    counts: Counter[str] = Counter()
    game = copy.copy(recipe.game)
    plain = game.losses

    def losses(
        players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        counts.update(game.players if only is None else (only,))
        return plain(players, constants, draw, only)

    game.losses = losses  # type: ignore[method-assign]
    if isinstance(game, Mixture):  # pairs play the lone game, each on its share of the minibatch
        game.base = copy.copy(game.base)
        alone = game.base.losses

        def shared(
            players: Players, constants: Constants, draw: Draw, only: str | None = None
        ) -> dict[str, Tensor]:
            counts.update(game.players if only is None else (only,))
            return alone(players, constants, draw, only)

        game.base.losses = shared  # type: ignore[method-assign]
    data = recipe.data.to(place, recipe.dtype)
    players, constants = game.init(0, device=place, dtype=recipe.dtype)
    state = recipe.solver.init(players)
    batches = Batches(
        lambda rng, n: game.draw(rng, data, n, recipe.dtype, place), recipe.batch, seed=0
    )
    recipe.solver.step(_Counting(game, counts), players, constants, state, batches.at(0))
    return Cost(
        {player: counts[player] for player in game.players},
        counts["J^T u"] + -(-counts["block"] // 2),
        counts["J u"],
        counts["passes"],
    )


class _Counting(VectorField):
    """A field that counts products; gradients are counted where losses are evaluated."""

    def __init__(self, game: Game, counts: Counter[str], **options: Any) -> None:
        super().__init__(game, **options)
        self.counts = counts

    def linearize(self, players: Players, constants: Constants, draw: Draw) -> Linearization:
        v, losses, pullback = super().linearize(players, constants, draw)

        def counted(u: Players, only: str | None = None) -> Players:
            self.counts["J^T u" if only is None else "block"] += 1
            return pullback(u, only)

        return Linearization(v, losses, counted)

    def jvp(self, players: Players, constants: Constants, u: Players, draw: Draw) -> Players:
        before = Counter(self.counts)
        product = super().jvp(players, constants, u, draw)
        self.counts.clear()  # its own graph is part of the product
        self.counts.update(before)
        self.counts["J u"] += 1
        return product

    def evaluate(
        self,
        fn: Callable[[Players, Constants, Draw], T],
        players: Players,
        constants: Constants,
        draw: Draw,
    ) -> T:
        self.counts["passes"] += 1
        value: T = super().evaluate(fn, players, constants, draw)
        return value

    def of(self, game: Game) -> VectorField:
        return _Counting(game, self.counts)
