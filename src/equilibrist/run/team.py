"""One training by several processes: rank 0 holds the record and leads, the others take the same steps."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch

from equilibrist import tree
from equilibrist.certificates import Json
from equilibrist.core.game import Constants, Players
from equilibrist.distributed import END, FAILED, STEP, Ranks
from equilibrist.errors import CompilationError, RankLostError
from equilibrist.run import environment
from equilibrist.run.guarded_field import GuardedField
from equilibrist.run.member import minibatches
from equilibrist.run.recipe import Recipe
from equilibrist.run.stepping import Compile
from equilibrist.run.stopping import StopRequest
from equilibrist.run.trained import Run
from equilibrist.solvers.base import State


@dataclass
class Lead:
    """What rank 0 tells the others; nothing where there are none.

    Attributes:
        ranks: the processes, or None.
    """

    ranks: Ranks | None = None
    over: bool = False  # the others have been told that it is

    def options(self, recipe: Recipe) -> dict[str, object]:
        """What a field is given so that all evaluate each minibatch together."""
        if self.ranks is None:
            return {"parts": recipe.accumulate, "per_part": recipe.per_part}
        # As many parts as processes leave nothing that would have to be added in their order.
        self.ranks.canonical = recipe.accumulate > 1
        parts = recipe.accumulate if self.ranks.canonical else self.ranks.size
        self.ranks.own(parts)  # can they be divided?
        if parts == 1:
            return {"parts": 1}
        return {"parts": parts, "ranks": self.ranks, "per_part": recipe.per_part}

    def entry(self) -> Json:
        """What the record says of a session: how many processes, and whether bits depend on that."""
        if self.ranks is None:
            return {}
        return {
            "processes": self.ranks.size,
            "sums": "in order" if self.ranks.canonical else "reduced",
        }

    def begin(self, step: int, players: Players, constants: Constants, state: State) -> None:
        """The others are to begin here."""
        if self.ranks is not None:
            self.ranks.tell(step + 1)
            for part in (players, constants, state):
                if tree.leaves(part):
                    self.ranks.share(part)

    def step(self) -> None:
        """All take a step."""
        if self.ranks is not None:
            self.ranks.tell(STEP)

    def end(self) -> None:
        """Training has ended, or was asked to."""
        if self.ranks is not None:
            self.ranks.tell(END)
            self.over = True

    def compile_mode(self, wanted: Compile) -> Compile:
        """Steps of several processes are eager. CompilationError where they have to be compiled."""
        if self.ranks is None:
            return wanted
        if wanted == "on":
            raise CompilationError("steps of several processes are not compiled: leave it out")
        return "off"

    def __enter__(self) -> Lead:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Where it ends with an error, the others are told."""
        if kind is not None and self.ranks is not None and not self.over:
            with contextlib.suppress(RankLostError):
                self.ranks.tell(FAILED)


def follow_lead(
    recipe: Recipe, directory: Path, seed: int, device: torch.device, ranks: Ranks
) -> Run:
    """Take rank 0's steps from where it begins until it ends. Nothing is read or written.

    Args:
        recipe, directory, seed: as rank 0 has them; every process needs the data.
        device: of this process.
        ranks: all processes.

    Returns:
        The trained pair, the same on every process. It names no checkpoint: rank 0 writes them.

    Raises:
        RankLostError: rank 0 has ended with an error, or a process is gone.
    """
    data = recipe.data.to(device, recipe.dtype)
    field = GuardedField(
        recipe.game,
        autocast=torch.bfloat16 if recipe.mixed_precision else None,
        **Lead(ranks).options(recipe),
    )
    start = recipe.game.init(seed, device=device, dtype=recipe.dtype)
    held = [start.players, start.constants, recipe.solver.init(start.players)]
    batches = minibatches(recipe, data, seed, device)
    # Who is asked to stop waits for rank 0, which is asked as well and says so.
    with StopRequest(), environment.deterministic(device):
        step = _heard(ranks) - 1
        players, constants, state = (
            ranks.share(part) if tree.leaves(part) else part for part in held
        )
        while _heard(ranks) == STEP:
            players, constants, state, _ = recipe.solver.step(
                field, players, constants, state, batches.at(step)
            )
            step += 1
    stopped = step < recipe.steps
    average: Players = state.get("average", {})
    return Run(directory, recipe, data, players, constants, step, seed, "", "", stopped, average)


def _heard(ranks: Ranks) -> int:
    word = ranks.tell()
    if word == FAILED:
        raise RankLostError("rank 0 has ended with an error: its message says which")
    return word
