"""Exponential averages of players beside any solver."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from equilibrist import tree
from equilibrist._field import VectorField
from equilibrist._game import Constants, Players
from equilibrist.solvers._base import DrawSource, Solver, State, Step


@dataclass(frozen=True)
class Averaged:
    """The solver's own step, then a_p <- decay a_p + (1 - decay) x_p for the players named.

    The averages follow training and never act on it (Yazici et al. 2019). They begin at the initial
    weights and lie in the state, under "average": a run samples from them, and an audit looks at
    them, unless told to look at the last iterate.

    Args:
        solver: the method.
        decay: share of the old average; its memory is about 1 / (1 - decay) steps.
        players: whose averages are kept.
    """

    solver: Solver
    decay: float = 0.999
    players: tuple[str, ...] = ("generator",)

    def __post_init__(self) -> None:
        if isinstance(self.solver, type) or not hasattr(self.solver, "step"):
            raise ValueError(
                f"Averaged needs a solver, not {self.solver!r}: write Averaged(Alternating(), 0.999)"
            )
        if not isinstance(self.players, tuple) or not self.players:
            raise ValueError(
                f"Averaged.players must be a tuple of names such as ('generator',), not {self.players!r}"
            )
        if not isinstance(self.decay, float | int) or not 0 <= self.decay < 1:
            raise ValueError(f"Averaged.decay must lie in [0, 1), not {self.decay}")

    def __str__(self) -> str:
        who = " and ".join(self.players)
        return f"{self.solver}; exponential average of the {who}, decay {self.decay:g}"

    def init(self, players: Players) -> State:
        if unknown := [p for p in self.players if p not in players]:
            raise ValueError(
                f"Averaged.players names {unknown[0]!r}, but the players are {', '.join(players)}"
            )
        return {
            "solver": self.solver.init(players),
            "average": tree.clone({p: players[p] for p in self.players}),
        }

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step:
        taken = self.solver.step(field, players, constants, state["solver"], draws)
        with torch.no_grad():
            kept = tree.leaves(state["average"])
            fresh = tree.leaves({p: taken.players[p] for p in self.players})
            torch._foreach_lerp_(kept, fresh, 1 - self.decay)
        state = {"solver": taken.state, "average": state["average"]}
        return Step(taken.players, taken.constants, state, taken.info)
