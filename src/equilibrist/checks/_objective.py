"""One player's loss as a function of its own parameters, the others frozen: what searches for deviations minimise."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks.context import AuditContext, Tick, norm_of, rows_in, tensor_scales
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

    def __init__(self, context: AuditContext, player: str, tick: Tick) -> None:
        self.context, self.player, self._tick = context, player, tick
        self.start: Params = tree.clone(context.players[player])
        self.scales = tensor_scales(self.start)
        self.size = norm_of(context, player)
        self.field = VectorField(context.game)
        self.spent = 0.0

    def pay(self, gradients: float = 1.0) -> None:
        """Count what was spent."""
        self.spent += gradients
        self._tick(gradients)

    def at(self, params: Params, constants: Constants | None = None) -> tuple[Players, Constants]:
        """All players with these (projected) parameters, singular vectors exact."""
        context = self.context
        players = context.game.project({**context.players, self.player: params})
        if self.player == "critic":  # the generator's moves leave the critic's norms alone
            return players, context.exact(players, constants or context.constants)
        return players, context.constants

    def gradient(
        self, players: Players, constants: Constants, step: int, index: Batch = Batch.DESCENT
    ) -> Params:
        """The loss's gradient on minibatch `step` of the search split."""
        draw = self.context.minibatch(step, index=index)
        v, _ = self.field(players, constants, draw, only=self.player)
        self.pay(1.0)
        return v[self.player]

    @cached_property
    def _probe_draw(self) -> Draw:
        return self.context.minibatch(0, index=Batch.PROBE)

    def probe(self, params: Params) -> float:
        """The gain at `params` on one fixed minibatch of the search split: for ranking, never for a verdict."""
        return self._probe_before - self._probed(params)

    @cached_property
    def _probe_before(self) -> float:
        return self._probed(self.start)

    def _probed(self, params: Params) -> float:
        players, constants = self.at(params)
        self.pay(FORWARD)
        with torch.no_grad():
            losses = self.context.game.losses(players, constants, self._probe_draw)
        return float(losses[self.player])

    def selected(self, players: Players, constants: Constants, quick: bool = False) -> Tensor:
        """The gain on the batches of the selection split, float64 [batches]; on a few of them if `quick`."""
        before, after = self._before, self._losses(players, constants, quick)
        return before[: len(after)] - after

    @cached_property
    def _before(self) -> Tensor:
        return self._losses(self.context.players, self.context.constants, quick=False)

    def _losses(self, players: Players, constants: Constants, quick: bool) -> Tensor:
        context, bank = self.context, self.context.bank("select")
        self.pay(self.look_cost(quick))
        return context.losses_on(self.player, players, constants, bank[:QUICK] if quick else bank)

    def look_cost(self, quick: bool = False) -> float:
        """What one evaluation on the selection split costs, in minibatch gradients."""
        bank = self.context.bank("select")
        rows = sum(map(rows_in, bank[:QUICK] if quick else bank))
        return FORWARD * max(rows / self.context.settings.batch, 1.0)

    def distance(self, params: Params) -> float:
        """How far `params` lie from the pair, relative to the norm of the player's parameters."""
        return float(tree.norm(tree.axpy(-1.0, self.start, params))) / self.size

    def moved(self, direction: Params, size: float) -> Params:
        """The start moved along `direction` by `size` times the norm of the player's parameters."""
        length = float(tree.norm(direction))
        return tree.axpy(size * self.size / length, direction, self.start)
