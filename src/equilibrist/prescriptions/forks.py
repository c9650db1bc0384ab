"""Training that can be branched off: a run of ours, or somebody's loop with save and load."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from equilibrist import tree
from equilibrist.checkpoints import EnergyScore, HeldOut
from equilibrist.compare.cost import cost
from equilibrist.core.draws import Batches
from equilibrist.core.field import VectorField
from equilibrist.data import Source
from equilibrist.data.loaders import source_of
from equilibrist.diagnosis import Loop
from equilibrist.errors import RecipeError
from equilibrist.nn.noise import GLOBAL, seeded
from equilibrist.prescriptions.menu import Change, changes_of
from equilibrist.run import Run, checkpoint

Measured = tuple[float | None, float | None]  # None for what is not finite, or not measured
AS_IS = ""  # the branch without a change
SEARCH = 200  # minibatch gradients for the gap at the end of a branch
FACTORS = {"a quarter of": 0.25, "four times": 4.0}


class Fork(Protocol):
    """A state of training from which branches go.

    Attributes:
        names: of the changes that can be tried.
        quantity, unit: what is to fall.
        other: what is measured beside it; empty where nothing is.
        measuring: minibatch gradients that measuring it once costs.
    """

    names: tuple[str, ...]
    quantity: str
    other: str
    unit: str
    measuring: int

    def cost(self, name: str) -> float:
        """Minibatch gradients of a round with this change (`AS_IS`: without)."""
        ...

    def value(self, name: str, seed: int, rounds: int) -> Measured:
        """The quantity, and the other, after so many rounds with this change from the audited state.

        Branches of one seed see the same random numbers.
        """
        ...

    def now(self) -> Measured:
        """The same at the audited state."""
        ...


class RunFork:
    """Branches of a run of ours.

    Args:
        run: at the audited step; its solver's state is that of its checkpoint.
        changes: by name; those of `changes_of` where they are left out.
        by: "gap" or "score", as `choose_checkpoint` measures them.
        held_out: rows that training does not see.
    """

    def __init__(
        self,
        run: Run,
        changes: Mapping[str, Change] | None = None,
        by: str = "gap",
        held_out: Source | None = None,
        seed: int = 0,
    ) -> None:
        if by not in ("gap", "score"):
            raise RecipeError(f"by={by!r}: choose 'gap' or 'score'")
        self.run, recipe = run, run.recipe
        self._changes: dict[str, Change] = dict(changes_of(recipe) if changes is None else changes)
        self.recipes = {AS_IS: recipe} | {k: made(recipe) for k, made in self._changes.items()}
        self.names = tuple(self._changes)
        self.by, self.measuring = by, SEARCH if by == "gap" else 0
        self.held = HeldOut(
            run.data, held_out, gradients=self.measuring, batch=recipe.batch, seed=seed
        )
        self.quantity = "duality gap" if by == "gap" else self.held.score.name
        self.other = (
            self.held.score.name if by == "gap" and not recipe.game.lacks("samples") else ""
        )
        self.unit = recipe.game.formulation.unit if by == "gap" else ""
        self._costs: dict[str, float] = {}
        self._state = _solver_state(run)

    def cost(self, name: str) -> float:
        if name not in self._costs:
            recipe = self.recipes[name]
            taken = cost(recipe, next(iter(tree.leaves(self.run.players))).device)
            samples = recipe.batch / self.run.recipe.batch
            self._costs[name] = samples * (sum(taken.gradients.values()) + taken.products)
        return self._costs[name]

    def value(self, name: str, seed: int, rounds: int) -> Measured:
        recipe, run = self.recipes[name], self.run
        players, constants = tree.clone(run.players), tree.clone(run.constants)
        state = recipe.solver.init(players)
        if self._state is not None and _alike(state, self._state):
            state = tree.clone(self._state)
        anchor = tree.leaves(players)[0]
        batches = Batches(
            lambda rng, n: recipe.game.draw(rng, run.data, n, anchor.dtype, anchor.device),
            recipe.batch,
            seed,
        )
        field = VectorField(recipe.game)
        for i in range(rounds):
            players, constants, state, _ = recipe.solver.step(
                field, players, constants, state, batches.at(i)
            )
        if not all(bool(torch.isfinite(leaf).all()) for leaf in tree.leaves(players)):
            return None, None
        return self.measured({**players, **state.get("average", {})}, constants)

    def measured(self, players: Any, constants: Any) -> Measured:
        """What is measured of a pair, in the game as it was declared."""
        game = self.run.recipe.game
        score, gap, _ = self.held.measure(game, players, constants, self.run.recipe.batch)
        score_, gap_ = (None if v is None else float(np.mean(v.values)) for v in (score, gap))
        return (gap_, score_) if self.by == "gap" else (score_, None)

    def now(self) -> Measured:
        """What is measured at the audited state."""
        return self.measured(self.run.pair(), self.run.constants)


def _solver_state(run: Run) -> Any:
    """The solver's state in the run's checkpoint; None where there is none."""
    if not run.checkpoint:
        return None
    path = run.directory / "checkpoints" / run.checkpoint
    flat = checkpoint.read(path)[0]
    like = {"state": run.recipe.solver.init(run.players)}
    return checkpoint.fit(flat, like, path)["state"]


def _alike(a: Any, b: Any) -> bool:
    """Whether two states hold tensors of the same names and shapes."""
    first, second = dict(tree.items(a)), dict(tree.items(b))
    return first.keys() == second.keys() and all(
        v.shape == second[k].shape for k, v in first.items()
    )


class LoopFork:
    """Branches of somebody's loop.

    Args:
        loop: with `save` and `load`.
        changes: {name: change(loop)}, called after `load`; what a change returns, if it can be called, undoes it. The
            rates of the optimisers that the loop steps come on top.
        measure: measure(loop), the quantity that is to fall: a number, or held-out values whose mean counts. Without it
            the energy distance of `loop.sample` to `loop.real`.
        start: the number of the first round of every branch.

    Raises:
        RecipeError: a loop that cannot be forked, or measured.
    """

    def __init__(
        self,
        loop: Loop,
        changes: Mapping[str, Callable[[Loop], Any]] | None = None,
        measure: Callable[[Loop], Any] | None = None,
        start: int = 0,
    ) -> None:
        if loop.save is None or loop.load is None:
            raise RecipeError("the loop cannot be forked: give Loop its save and its load")
        self.loop, self.start = loop, start
        self._save, self._load = loop.save, loop.load
        self._measure = measure or _energy(loop)
        self.quantity = "quantity" if measure else EnergyScore.name
        self.unit, self.other, self.measuring = "", "", 0
        self._saved = copy.deepcopy(self._save())
        self._costs: dict[str, float] = {}
        self._optimizers = self._found()
        own = {
            f"{words} {name}": self._faster(optimizers, factor)
            for name, optimizers in self._players().items()
            for words, factor in FACTORS.items()
        }
        self._changes: dict[str, Callable[[Loop], Any]] = {**own, **(changes or {})}
        self.names = tuple(self._changes)

    def cost(self, name: str) -> float:
        if name not in self._costs:
            with self._branch(name, 0), _counted() as steps:
                self.loop.step(self.start)
            self._costs[name] = max(float(len(steps)), 1.0)
        return self._costs[name]

    def value(self, name: str, seed: int, rounds: int) -> Measured:
        with self._branch(name, seed):
            for i in range(rounds):
                self.loop.step(self.start + i)
            for module in self.loop.players.values():
                if not all(bool(torch.isfinite(p).all()) for p in module.parameters()):
                    return None, None
            return self._value(seed), None

    def now(self) -> Measured:
        """What is measured at the audited state."""
        with self._branch(AS_IS, 0):
            return self._value(0), None

    def _value(self, seed: int) -> float | None:
        with seeded(seed, GLOBAL):
            found = float(torch.as_tensor(self._measure(self.loop), dtype=torch.float64).mean())
        return found if np.isfinite(found) else None

    @contextmanager
    def _branch(self, name: str, seed: int) -> Iterator[None]:
        """The audited state with a change, under a seed; afterwards the audited state as it was."""
        undo = None
        rates = [[dict(group, params=None) for group in o.param_groups] for o in self._known()]
        try:
            self._load(copy.deepcopy(self._saved))
            with seeded(seed, GLOBAL):
                if name != AS_IS:
                    undo = self._changes[name](self.loop)
                yield
        finally:
            if callable(undo):
                undo()
            self._load(copy.deepcopy(self._saved))
            for optimizer, groups in zip(self._known(), rates, strict=True):
                for group, kept in zip(optimizer.param_groups, groups, strict=True):
                    group.update({k: v for k, v in kept.items() if k != "params"})

    def _known(self) -> list[torch.optim.Optimizer]:
        return list(getattr(self, "_optimizers", []))

    def _found(self) -> list[torch.optim.Optimizer]:
        """The optimisers that a round of the loop steps."""
        with self._branch(AS_IS, 0), _counted() as steps:
            self.loop.step(self.start)
        return list(dict.fromkeys(steps))

    def _players(self) -> dict[str, list[torch.optim.Optimizer]]:
        """Whose rates can be changed: each player's with optimisers of its own, and all together."""
        found: dict[str, list[torch.optim.Optimizer]] = {}
        for player, module in self.loop.players.items():
            own = {id(p) for p in module.parameters()}
            held = [
                o
                for o in self._optimizers
                if {id(p) for group in o.param_groups for p in group["params"]} <= own
            ]
            if held:
                found[f"the {player}'s rate"] = held
        if self._optimizers:
            found["all rates"] = self._optimizers
        return found

    def _faster(
        self, optimizers: list[torch.optim.Optimizer], factor: float
    ) -> Callable[[Loop], Callable[[], None]]:
        """Multiplies learning rates at every step, so that a schedule that rewrites them goes on below."""

        def change(loop: Loop) -> Callable[[], None]:
            def scaled(by: float) -> Callable[..., None]:
                def hook(optimizer: torch.optim.Optimizer, *_: Any) -> None:
                    for group in optimizer.param_groups:
                        group["lr"] = group["lr"] * by

                return hook

            handles = [o.register_step_pre_hook(scaled(factor)) for o in optimizers]
            handles += [o.register_step_post_hook(scaled(1 / factor)) for o in optimizers]

            def undo() -> None:
                for handle in handles:
                    handle.remove()

            return undo

        return change


@contextmanager
def _counted() -> Iterator[list[torch.optim.Optimizer]]:
    """The optimisers that are stepped within, once for every step."""
    steps: list[torch.optim.Optimizer] = []

    def stepped(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        steps.append(optimizer)

    handle = register_optimizer_step_pre_hook(stepped)
    try:
        yield steps
    finally:
        handle.remove()


def _energy(loop: Loop) -> Callable[[Loop], Any]:
    """The energy distance of the loop's samples to its held-out real ones."""
    if loop.sample is None or loop.real is None:
        raise RecipeError(
            "what shall fall? Give measure(loop), or Loop its sample(n) and real samples that training does not see"
        )
    held = HeldOut(source_of(loop.real), gradients=0)
    sample = loop.sample

    def measure(at: Loop) -> Any:
        values, failed = held.of_samples(sample(held.wanted * held.score.per_row).detach())
        return np.array([np.nan]) if values is None or failed else values.values

    return measure


def fork_of(of: Any, changes: Any, options: dict[str, Any]) -> RunFork | LoopFork:
    """What `prescribe` branches off."""
    made: dict[str, Any]
    if isinstance(of, Run):
        made = {k: options.pop(k) for k in ("by", "seed") if k in options}
        if (out := options.pop("held_out", None)) is not None:
            made["held_out"] = source_of(out)
        fork: Any = RunFork(of, changes, **made)
    elif isinstance(of, Loop):
        made = {k: options.pop(k) for k in ("measure", "start") if k in options}
        options.pop("seed", None)
        fork = LoopFork(of, changes, **made)
    else:
        raise RecipeError(
            f"prescribe needs a run of ours or a Loop with save and load, not {type(of).__name__}"
        )
    if options:
        raise RecipeError(f"prescribe has no option {next(iter(options))!r} here")
    found: RunFork | LoopFork = fork
    return found
