"""Training as the experiments do it: seeds with scores on the way, and what a step costs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from equilibrist.certificates import Json
from equilibrist.core.draws import Batches
from equilibrist.core.field import VectorField
from equilibrist.errors import NonFiniteError, StoppedError
from equilibrist.papers.model import Measures, Workspace
from equilibrist.run import Run, ensemble, load, train
from equilibrist.run.recipe import Recipe
from equilibrist.run.record import Record
from equilibrist.scores import Score
from equilibrist.solvers import Alternating, Solver

QUIET = "none"


def train_seeds(
    place: Workspace,
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    scores: Sequence[Score] | None = None,
    looks: int = 10,
    stacked: bool = False,
) -> Measures:
    """Train `recipe` from each seed in the unit's folder, and say what was seen on the way.

    Args:
        place: where.
        recipe: its own scores are replaced by `scores`, which are looked at `looks` times.
        seeds: of the runs.
        stacked: all seeds as one computation (small networks).

    Returns:
        "seeds": by seed "scores" and "losses" (name to [step, value] pairs), "clock" ([step, seconds]),
        "diverged" (a step or None), "reached" (the last step); "picture" where the samples are images.

    Raises:
        StoppedError: training was asked to stop; the same call goes on.
    """
    made = dataclasses.replace(
        recipe,
        scores=recipe.scores if scores is None else tuple(scores),
        score_every=max(1, recipe.steps // looks),
        log_every=max(1, recipe.steps // 200),
        sample_every=recipe.steps,
        checkpoint_every=max(1, recipe.steps // 20),
        keep=1,
    )
    if stacked and len(seeds) > 1:
        found = ensemble(
            made, place.runs, seeds, device=place.device, progress=QUIET, compile="off"
        )
        stopped = found.interrupted
    else:
        stopped = False
        for seed in seeds:
            try:
                run = train(
                    made,
                    seed_folder(place.runs, seed),
                    seed=seed,
                    device=place.device,
                    progress=QUIET,
                    compile="off",  # rows are compared by seconds
                )
            except NonFiniteError:  # its record says so
                continue
            stopped = stopped or run.interrupted
            if stopped:
                break
    if stopped:
        raise StoppedError("interrupted: the same command goes on")
    return {"seeds": {str(seed): seen(seed_folder(place.runs, seed)) for seed in seeds}}


def seed_folder(runs: Path, seed: int) -> Path:
    """The run directory of a seed."""
    return runs / f"seed_{seed}"


def taken_up(runs: Path, recipe: Recipe, seed: int, device: str) -> Run:
    """The run of a seed that `trained` made with these scores, at its last checkpoint."""
    return load(seed_folder(runs, seed), recipe, device=device)


def seen(where: Path) -> Json:
    """What a run directory recorded, as short lists."""
    record = Record(where)
    scores: dict[str, list[list[float]]] = {}
    for row in record.scores():
        for name, value in (row.get("values") or {}).items():
            scores.setdefault(f"{row['name']} / {name}", []).append([row["step"], value])
    losses: dict[str, list[list[float]]] = {}
    rows = record.rows()
    for row in rows:
        for player, value in (row.get("loss") or {}).items():
            losses.setdefault(player, []).append([row["step"], value])
    status = record.status_values()
    return {
        "scores": scores,
        "losses": losses,
        "clock": [[row["step"], row["seconds"]] for row in rows],
        "diverged": status["step"] if status.get("state") == "diverged" else None,
        "reached": rows[-1]["step"] if rows else 0,
    }


def relative_cost(
    recipe: Recipe, solver: Solver | None = None, steps: int = 6, base: Recipe | None = None
) -> dict[str, float]:
    """What a step of `solver` costs, in steps of `base`: of alternating descent with one critic step if left out.

    Both are taken in turns, a block each, five times, and their CPU times compared block by block; the middle
    one of the five ratios counts. On a machine that does other things, too, times vary, but ratios hardly do.

    Returns: "ratio", and "seconds" of CPU that the reference step took.
    """
    solver = solver or recipe.solver
    if base is None:
        rule = getattr(solver, "optimizer", None) or getattr(recipe.solver, "optimizer", None)
        reference = Alternating(1, rule) if rule is not None else recipe.solver
        base = dataclasses.replace(recipe, solver=reference)
    games = [_Stepper(base, base.solver), _Stepper(recipe, solver)]
    for game in games:
        game.take(2)
    ratios, seconds = [], []
    for _ in range(5):
        spent = [game.take(steps) for game in games]
        ratios.append(spent[1] / max(spent[0], 1e-9))
        seconds.append(spent[0] / steps)
    return {"ratio": sorted(ratios)[2], "seconds": sorted(seconds)[2]}


class _Stepper:
    """A recipe stepped by hand, for its costs."""

    def __init__(self, recipe: Recipe, solver: Solver) -> None:
        self.solver, self.field = solver, VectorField(recipe.game)
        device = torch.device("cpu")
        self.players, self.constants = recipe.game.init(0, device=device, dtype=recipe.dtype)
        self.state = solver.init(self.players)
        self.batches = Batches(
            lambda rng, n: recipe.game.draw(rng, recipe.data, n, recipe.dtype, device),
            recipe.batch,
            seed=0,
        )
        self.step = 0

    def take(self, steps: int) -> float:
        """Take so many steps; returns their CPU seconds."""
        begun = time.process_time()
        for _ in range(steps):
            self.players, self.constants, self.state, _ = self.solver.step(
                self.field, self.players, self.constants, self.state, self.batches.at(self.step)
            )
            self.step += 1
        return time.process_time() - begun


def last(seen: Json, key: str, step: int | None = None) -> float | None:
    """The last value of a score, or that at the last look no later than `step`; None for a seed that diverged
    before, or where none was measured."""
    if seen["diverged"] is not None and (step is None or seen["diverged"] <= step):
        return None
    held = [value for at, value in seen["scores"].get(key, ()) if step is None or at <= step]
    return held[-1] if held else None
