"""Branches of a run of ours, stacked over seeds where the losses allow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from equilibrist import tree
from equilibrist.checkpoints import HeldOut
from equilibrist.compare.cost import cost
from equilibrist.core.draws import Batches, StackedDraws
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.data import Source
from equilibrist.errors import RecipeError
from equilibrist.prescriptions.fork import AS_IS, Measured
from equilibrist.prescriptions.menu import Change, changes_of
from equilibrist.run import Run, checkpoint
from equilibrist.solvers.base import State

SEARCH = 200  # minibatch gradients for the gap at the end of a branch


class RunFork:
    """Branches of a run of ours.

    Args:
        run: at the audited step; its solver's state is that of its checkpoint.
        changes: by name; those of `changes_of` where they are left out.
        by: "gap" or "score", as `choose_checkpoint` measures them.
        held_out: rows that training does not see.
        seed: of what is measured.
        state: of the solver; that of the run's checkpoint where it is left out.
    """

    def __init__(
        self,
        run: Run,
        changes: Mapping[str, Change] | None = None,
        by: str = "gap",
        held_out: Source | None = None,
        seed: int = 0,
        state: State | None = None,
    ) -> None:
        if by not in ("gap", "score"):
            raise RecipeError(f"by={by!r}: choose 'gap' or 'score'")
        self.run, recipe = run, run.recipe
        self._changes: dict[str, Change] = dict(changes_of(recipe) if changes is None else changes)
        self.recipes = {AS_IS: recipe} | {k: made(recipe) for k, made in self._changes.items()}
        self.names = tuple(self._changes)
        self.by, self.measuring = by, SEARCH if by == "gap" else 0
        self.held = HeldOut(
            run.data, held_out, gradients=self.measuring, batch=recipe.seen_together, seed=seed
        )
        self.quantity = "duality gap" if by == "gap" else self.held.score.name
        self.other = (
            self.held.score.name if by == "gap" and not recipe.game.lacks("samples") else ""
        )
        self.unit = recipe.game.formulation.unit if by == "gap" else ""
        self._costs: dict[str, float] = {}
        self._alone: set[str] = set()  # changes whose branches cannot be stacked
        self._state = _solver_state(run) if state is None else state

    def cost(self, name: str) -> float:
        if name not in self._costs:
            recipe = self.recipes[name]
            taken = cost(recipe, next(iter(tree.leaves(self.run.players))).device)
            samples = recipe.batch / self.run.recipe.batch
            self._costs[name] = samples * (sum(taken.gradients.values()) + taken.products)
        return self._costs[name]

    def values(self, name: str, seeds: Sequence[int], rounds: int) -> list[Measured]:
        """As `Fork` has it; the branches of several seeds are one stacked computation where the losses allow it."""
        if len(seeds) > 1 and name not in self._alone:
            try:
                return self._branches(name, seeds, rounds)
            except RuntimeError:  # what cannot be stacked
                self._alone.add(name)
        return [found for seed in seeds for found in self._branches(name, (seed,), rounds)]

    def _branches(self, name: str, seeds: Sequence[int], rounds: int) -> list[Measured]:
        recipe, run, count = self.recipes[name], self.run, len(seeds)
        stacked = count if count > 1 else None

        def repeated(one: tree.Tree) -> tree.Tree:
            return tree.stack([one] * count) if stacked else tree.clone(one)

        def member(whole: tree.Tree, i: int) -> tree.Tree:
            return tree.member(whole, i) if stacked else whole

        players, constants = repeated(run.players), repeated(run.constants)
        fresh, state = recipe.solver.init(tree.clone(run.players)), recipe.solver.init(players)
        alone = self._state if self._state is not None and _alike(fresh, self._state) else fresh
        # Counters in the solver's state are shared; all else has a row for each branch.
        state = tree.map(
            lambda t, one: one.clone() if t.ndim == one.ndim else torch.stack([one] * count),
            state,
            alone,
        )
        anchor = tree.leaves(run.players)[0]
        batches = [
            Batches(
                lambda rng, n: recipe.game.draw(rng, run.data, n, anchor.dtype, anchor.device),
                recipe.batch,
                seed,
            )
            for seed in seeds
        ]
        field = VectorField(
            recipe.game,
            stacked=stacked,
            parts=recipe.accumulate if recipe.per_part else 1,
            per_part=recipe.per_part,
        )
        for i in range(rounds):
            draws = [one.at(i) for one in batches]
            players, constants, state, _ = recipe.solver.step(
                field, players, constants, state, StackedDraws(draws) if stacked else draws[0]
            )
        ends = [{**players, **state.get("average", {})}, constants]
        return [self._sound(member(ends[0], i), member(ends[1], i)) for i in range(count)]

    def _sound(self, players: Players, constants: Constants) -> Measured:
        finite = all(bool(torch.isfinite(leaf).all()) for leaf in tree.leaves(players))
        return self.measured(players, constants) if finite else (None, None)

    def measured(self, players: Players, constants: Constants) -> Measured:
        """What is measured of a pair, in the game as it was declared."""
        game = self.run.recipe.game
        score, gap, _ = self.held.measure(game, players, constants, self.run.recipe.seen_together)
        score_, gap_ = (None if v is None else float(np.mean(v.values)) for v in (score, gap))
        return (gap_, score_) if self.by == "gap" else (score_, None)

    def now(self) -> Measured:
        """What is measured at the audited state."""
        return self.measured(self.run.pair(), self.run.constants)


def _solver_state(run: Run) -> State | None:
    """The solver's state in the run's checkpoint; None where there is none."""
    if not run.checkpoint:
        return None
    path = run.directory / "checkpoints" / run.checkpoint
    flat = checkpoint.read_checkpoint(path)[0]
    like = {"state": run.recipe.solver.init(run.players)}
    state: State = checkpoint.fit(flat, like, path)["state"]
    return state


def _alike(a: tree.Tree, b: tree.Tree) -> bool:
    """Whether two states hold tensors of the same names and shapes."""
    first, second = dict(tree.items(a)), dict(tree.items(b))
    return first.keys() == second.keys() and all(
        v.shape == second[k].shape for k, v in first.items()
    )
