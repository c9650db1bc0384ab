"""From what a user has to something that can be branched off."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equilibrist import tree
from equilibrist.data import Source
from equilibrist.data.loaders import source_of
from equilibrist.diagnosis import Loop
from equilibrist.errors import RecipeError
from equilibrist.interop import Play, TorchRule
from equilibrist.prescriptions.loop_fork import LoopFork
from equilibrist.prescriptions.run_fork import RunFork
from equilibrist.run import Recipe, Run
from equilibrist.solvers.base import State


def _run_of(play: Play, data: Source, batch: int) -> tuple[Run, State]:
    """A Play as a run at the step where it is, and its solver's state."""
    solver: Any = play.solver
    while hasattr(solver, "solver"):
        solver = solver.solver
    if hasattr(solver, "rule") and any(
        isinstance(solver.rule(p), TorchRule) for p in play.game.players
    ):
        raise RecipeError(
            "a Play over torch's optimisers cannot be branched off: give Loop(step, players, loss, save=..., load=...)"
        )
    here, held = play.here(), play.state_dict()
    recipe = Recipe(play.game, data, play.solver, steps=max(play.steps, 1), batch=batch)
    anchor = tree.leaves(here.players)[0]
    like = data.to(anchor.device, anchor.dtype)
    players, constants = tree.clone(here.players), tree.clone(here.constants)
    run = Run(Path(), recipe, like, players, constants, play.steps, play.seed, "", "")
    return run, held["state"]


def fork_of(
    of: object, changes: Mapping[str, Any] | None, options: dict[str, Any]
) -> RunFork | LoopFork:
    """What `prescribe` branches off."""
    made: dict[str, Any]
    fork: RunFork | LoopFork
    if isinstance(of, Run):
        made = {k: options.pop(k) for k in ("by", "seed") if k in options}
        if (out := options.pop("held_out", None)) is not None:
            made["held_out"] = source_of(out)
        fork = RunFork(of, changes, **made)
    elif isinstance(of, Play):
        made = {k: options.pop(k) for k in ("by", "seed") if k in options}
        if "data" not in options:
            raise RecipeError(
                "a Play has no data of its own: give data, the real samples that it is trained on"
            )
        if (out := options.pop("held_out", None)) is not None:
            made["held_out"] = source_of(out)
        run, state = _run_of(of, source_of(options.pop("data")), options.pop("batch", 64))
        fork = RunFork(run, changes, state=state, **made)
    elif isinstance(of, Loop):
        made = {k: options.pop(k) for k in ("measure", "start") if k in options}
        options.pop("seed", None)
        fork = LoopFork(of, changes, **made)
    else:
        raise RecipeError(
            f"prescribe needs a run of ours, a Play or a Loop with save and load, not {type(of).__name__}"
        )
    if options:
        raise RecipeError(f"prescribe has no option {next(iter(options))!r} here")
    return fork
