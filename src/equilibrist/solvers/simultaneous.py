"""Simultaneous gradient steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from equilibrist._field import VectorField
from equilibrist._game import Constants, Players
from equilibrist.optimizers import SGD, Optimizer
from equilibrist.schedules import update
from equilibrist.solvers._base import DrawSource, State, Step, check_names, check_rules


@dataclass(frozen=True)
class Simultaneous:
    """x_p <- x_p - rule_p(v_p(x)) for all players at once, on one minibatch.

    Args:
        optimizer: the update rule of every player that `optimizers` does not name.
        optimizers: rules by player's name (different step sizes: two time scales).

    Losses and gradients are taken at the iterate before the step, after the refresh of the power
    vectors. SimGA of Mescheder et al. 2017 with the sign of own losses.
    """

    optimizer: Optimizer = field(default_factory=SGD)
    optimizers: dict[str, Optimizer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_rules(self.optimizer, *self.optimizers.values())

    def __str__(self) -> str:
        named = "".join(f", {player}: {rule}" for player, rule in self.optimizers.items())
        return f"Simultaneous: {self.optimizer}{named}"

    def rule(self, player: str) -> Optimizer:
        return self.optimizers.get(player, self.optimizer)

    def init(self, players: Players) -> State:
        check_names(self.optimizers, players)
        return {player: self.rule(player).init(part) for player, part in players.items()}

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step:
        draw = draws.batch()
        constants = field.refresh(players, constants, draw)
        v, losses = field(players, constants, draw)
        with torch.no_grad():
            for player in players:
                update(self.rule(player), v[player], state[player], players[player], field.stacked)
            players = field.project(players)
        return Step(players, constants, state, {"loss": losses, "grad_norm": field.norms(v)})
