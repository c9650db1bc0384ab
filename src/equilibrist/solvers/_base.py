"""What a solver is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from equilibrist._draws import Draw
from equilibrist._field import VectorField
from equilibrist._game import Constants, Players
from equilibrist.tree import Tree

State = Tree


class DrawSource(Protocol):
    """What a step may draw (`equilibrist.Draws`, or a stack of them)."""

    def batch(self, index: int = 0) -> Draw: ...

    def noise(self, like: Mapping[str, Any], index: int = 0) -> Tree: ...


class Step(NamedTuple):
    """The result of one step. `info` holds measurements, `{"loss": {player: ...}, "grad_norm":
    {player: ...}}`, each a tensor, never a number: reading one would wait for the device."""

    players: Players
    constants: Constants
    state: State
    info: dict[str, dict[str, Tensor]]


class Solver(Protocol):
    """A method: frozen hyperparameters, state in and out.

    `step` may overwrite the players and the state that it is given; clone them to keep them.
    """

    def init(self, players: Players) -> State: ...

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step: ...


def check_rules(*rules: Any) -> None:
    """ValueError for what is no update rule: a class instead of a value, or an optimiser of torch's."""
    for rule in rules:
        if isinstance(rule, type) or not (hasattr(rule, "init") and hasattr(rule, "update")):
            name = rule.__name__ if isinstance(rule, type) else type(rule).__name__
            raise ValueError(
                f"{name} is no update rule: write equilibrist.Adam(1e-3), SGD(...), RMSProp(...)"
            )


def check_names(named: Mapping[str, Any], players: Players) -> None:
    """ValueError where a rule is given for a player that does not exist."""
    if unknown := [name for name in named if name not in players]:
        raise ValueError(
            f"optimizers names {unknown[0]!r}, but the players are {', '.join(players)}"
        )
