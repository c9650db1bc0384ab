"""A run of a solver, step by step."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.contract._arena import Arena
from equilibrist.core.field import VectorField
from equilibrist.core.game import Players
from equilibrist.solvers import Solver
from equilibrist.tree import Tree


class SolverRun:
    """Players, constants and state of one run.

    Args:
        solver: takes the steps.
        where: gives the game, its start and its draws.
        seed: of the start and the draws.
        at: where to start instead.
    """

    def __init__(
        self, solver: Solver, where: Arena, seed: int = 0, at: Players | None = None
    ) -> None:
        self.solver, self.where, self.seed, self.step = solver, where, seed, 0
        self.field = VectorField(where.game)
        players, constants = where.start(seed)
        self.players = tree.clone(players if at is None else at)
        self.constants = tree.clone(constants)
        self.state = solver.init(self.players)
        self.info: dict[str, dict[str, Tensor]] = {}

    def go(self, steps: int = 1) -> SolverRun:
        """Take steps; the run itself."""
        for _ in range(steps):
            draws = self.where.draws(self.seed, self.step)
            taken = self.solver.step(self.field, self.players, self.constants, self.state, draws)
            self.players, self.constants, self.state, self.info = taken
            self.step += 1
        return self

    def copy(self) -> SolverRun:
        """The same run with values of its own."""
        other = copy.copy(self)
        other.players, other.constants = tree.clone(self.players), tree.clone(self.constants)
        other.state = tree.clone(self.state)
        return other

    @property
    def everything(self) -> Tree:
        """Players, constants and state as one tree."""
        return {"players": self.players, "constants": self.constants, "state": self.state}

    @property
    def floating(self) -> list[Tensor]:
        """The numbers of `linear_map`: players, then the floating state."""
        return [
            *tree.leaves(self.players),
            *(leaf for leaf in tree.leaves(self.state) if leaf.is_floating_point()),
        ]

    @property
    def z(self) -> Tensor:
        """These numbers as one vector."""
        return torch.cat([leaf.reshape(-1) for leaf in self.floating]).clone()

    def put(self, z: Tensor) -> None:
        """Overwrite these numbers."""
        parts = z.split([leaf.numel() for leaf in self.floating])
        for leaf, part in zip(self.floating, parts, strict=True):
            leaf.copy_(part.reshape(leaf.shape))
