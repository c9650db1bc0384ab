"""Branches of a user's loop that has save and load."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from equilibrist.checkpoints import EnergyScore, HeldOut
from equilibrist.checkpoints.intervals import Array
from equilibrist.data.loaders import source_of
from equilibrist.diagnosis import Loop, first_of, modules_of
from equilibrist.errors import RecipeError
from equilibrist.nn.noise import GLOBAL, seeded
from equilibrist.prescriptions.fork import AS_IS, Measured

FACTORS = {"a quarter of": 0.25, "four times": 4.0}


class LoopFork:
    """Branches of a user's loop.

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
        changes: Mapping[str, Callable[[Loop], object]] | None = None,
        measure: Callable[[Loop], object] | None = None,
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
        self._changes: dict[str, Callable[[Loop], object]] = {**own, **(changes or {})}
        self.names = tuple(self._changes)

    def cost(self, name: str) -> float:
        if name not in self._costs:
            with self._branch(name, 0), _counted() as steps:
                self.loop.step(self.start)
            self._costs[name] = max(float(len(steps)), 1.0)
        return self._costs[name]

    def values(self, name: str, seeds: Sequence[int], rounds: int) -> list[Measured]:
        """As `Fork` has it, one after the other."""
        return [self._one(name, seed, rounds) for seed in seeds]

    def _one(self, name: str, seed: int, rounds: int) -> Measured:
        with self._branch(name, seed):
            for i in range(rounds):
                self.loop.step(self.start + i)
            for module in (m for held in self.loop.players.values() for m in modules_of(held)):
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
        for player, modules in self.loop.players.items():
            own = {id(p) for module in modules_of(modules) for p in module.parameters()}
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
                def hook(optimizer: torch.optim.Optimizer, *_: object) -> None:
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

    def stepped(optimizer: torch.optim.Optimizer, *_: object) -> None:
        steps.append(optimizer)

    handle = register_optimizer_step_pre_hook(stepped)
    try:
        yield steps
    finally:
        handle.remove()


def _energy(loop: Loop) -> Callable[[Loop], object]:
    """The energy distance of the loop's samples to its held-out real ones."""
    if loop.sample is None or loop.real is None:
        raise RecipeError(
            "what shall fall? Give measure(loop), or Loop its sample(n) and real samples that training does not see"
        )
    held = HeldOut(source_of(first_of(loop.real)), gradients=0)
    made = loop.sample

    def sample(n: int) -> torch.Tensor:
        return first_of(made(n))

    def measure(at: Loop) -> Array:
        values, failed = held.of_samples(sample(held.wanted * held.score.per_row).detach())
        return np.array([np.nan]) if values is None or failed else values.values

    return measure
