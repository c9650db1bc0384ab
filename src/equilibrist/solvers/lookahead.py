"""Lookahead around any solver (Chavdarova et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.solvers.base import DrawSource, Solver, State, Step
from equilibrist.validation import at_least, is_number


@dataclass(frozen=True)
class Lookahead:
    """Every `period` steps of the solver: slow <- P(slow + alpha (x - slow)), x <- slow, all players jointly.

    Lookahead-minimax (Chavdarova et al. 2021, Algorithm 1): interpolating jointly damps rotation. The
    solver's moments are kept over the jump. Losses and gradient norms are the solver's.

    Args:
        solver: the method of the fast iterates.
        period: k.
        alpha: share of the way towards the fast iterate.

    Raises:
        ValueError: period below 1, alpha outside of (0, 1].
    """

    solver: Solver
    period: int = 5
    alpha: float = 0.5

    def __post_init__(self) -> None:
        at_least(self, 1, period=self.period)
        if isinstance(self.solver, type) or not hasattr(self.solver, "step"):
            raise ValueError(
                f"Lookahead needs a solver, not {self.solver!r}: write Lookahead(Simultaneous(), 5)"
            )
        if not is_number(self.alpha) or not 0 < self.alpha <= 1:
            raise ValueError(f"Lookahead.alpha must lie in (0, 1], not {self.alpha!r}")

    def __str__(self) -> str:
        return f"{self.solver}; lookahead every {self.period} steps, alpha {self.alpha:g}"

    def init(self, players: Players) -> State:
        anchor = tree.leaves(players)[0]
        return {
            "solver": self.solver.init(players),
            "slow": tree.clone(players),
            "count": torch.zeros((), dtype=torch.int64, device=anchor.device),
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
            count = state["count"] + 1
            # No branch on a tensor: a GPU would have to wait for it.
            jump = count % self.period == 0
            slow = tree.map(lambda s, x: torch.lerp(s, x, self.alpha), state["slow"], taken.players)
            slow = field.project(slow)
            fast = tree.map(lambda s, x: torch.where(jump, s, x), slow, taken.players)
            kept = tree.map(lambda s, old: torch.where(jump, s, old), slow, state["slow"])
        # Players and slow weights must not share memory: the solver overwrites its players.
        fast = tree.map(lambda x: x.clone(), fast)
        state = {"solver": taken.state, "slow": kept, "count": count}
        return Step(fast, taken.constants, state, taken.info)
