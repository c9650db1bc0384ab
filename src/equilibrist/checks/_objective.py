"""One player's loss as a function of its own parameters, the others frozen: what searches for deviations minimise."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks._bench import Bench, norm_of, tensor_scales
from equilibrist.core.draws import Batch, Draw
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players

Params = dict[str, Tensor]
FORWARD = 1 / 3  # minibatch gradients that one evaluation of a loss on one minibatch costs
QUICK = 4  # batches of a look that only ranks descents


class Objective:
    """The loss of `player` with the other players frozen, and what evaluating it has cost.

    Directions and step sizes are relative: `scales` holds the root mean square of each tensor, `size` the
    norm of all of the player's parameters.

    Attributes:
        spent: minibatch gradients so far; a loss without gradient counts a third.
    """

    def __init__(self, bench: Bench, player: str, tick: Callable[[float], Any]) -> None:
        self.bench, self.player, self._tick = bench, player, tick
        self.start: Params = tree.clone(bench.players[player])
        self.scales = tensor_scales(self.start)
        self.size = norm_of(bench, player)
        self.field = VectorField(bench.game)
        self.spent = 0.0
        self._before: Tensor | None = None
        self._probe_before: float | None = None

    def pay(self, gradients: float) -> None:
        """Count what was spent."""
        self.spent += gradients
        self._tick(gradients)

    def at(self, params: Params, constants: Constants | None = None) -> tuple[Players, Constants]:
        """All players with these (projected) parameters, singular vectors exact."""
        bench = self.bench
        players = bench.game.project({**bench.players, self.player: params})
        if self.player == "critic":  # the generator's moves leave the critic's norms alone
            return players, bench.exact(players, constants or bench.constants)
        return players, bench.constants

    def gradient(
        self, players: Players, constants: Constants, step: int, index: Batch = Batch.DESCENT
    ) -> Params:
        """The loss's gradient on minibatch `step` of the search split."""
        draw = self.bench.minibatch(step, index=index)
        v, _ = self.field(players, constants, draw, only=self.player)
        self.pay(1.0)
        return v[self.player]

    @cached_property
    def _probe_draws(self) -> list[Draw]:
        return [self.bench.minibatch(0, index=Batch.PROBE)]

    def probe(self, params: Params) -> float:
        """The gain at `params` on one fixed minibatch of the search split: for ranking, never for a verdict."""
        if self._probe_before is None:
            self._probe_before = self._probed(self.start)
        return self._probe_before - self._probed(params)

    def _probed(self, params: Params) -> float:
        players, constants = self.at(params)
        with torch.no_grad():
            values = [
                float(self.bench.game.losses(players, constants, draw)[self.player])
                for draw in self._probe_draws
            ]
        self.pay(FORWARD * len(values))
        return sum(values) / len(values)

    def selected(self, players: Players, constants: Constants, quick: bool = False) -> Tensor:
        """The gain on the batches of the selection split, float64 [batches]; on a few of them if `quick`."""
        if self._before is None:
            self._before = self._losses(self.bench.players, self.bench.constants, quick=False)
        after = self._losses(players, constants, quick)
        return self._before[: len(after)] - after

    def _losses(self, players: Players, constants: Constants, quick: bool) -> Tensor:
        bench, bank = self.bench, self.bench.bank("select")
        self.pay(self.look_cost(quick))
        return bench.losses_on(self.player, players, constants, bank[:QUICK] if quick else bank)

    def look_cost(self, quick: bool = False) -> float:
        """Minibatch gradients that one look at the selection split costs."""
        bank = self.bench.bank("select")
        rows = [
            max((len(entry) for entry in draw.values() if entry.ndim), default=0)
            for draw in (bank[:QUICK] if quick else bank)
        ]
        return FORWARD * max(sum(rows) / self.bench.settings.batch, 1.0)

    def distance(self, params: Params) -> float:
        """How far `params` lie from the pair, relative to the norm of the player's parameters."""
        return float(tree.norm(tree.axpy(-1.0, self.start, params))) / self.size

    def moved(self, direction: Params, size: float) -> Params:
        """The start moved along `direction` by `size` times the norm of the player's parameters."""
        length = float(tree.norm(direction))
        return tree.axpy(size * self.size / length, direction, self.start)
