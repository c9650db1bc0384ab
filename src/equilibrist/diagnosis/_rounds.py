"""Rounds of a training loop, watched: the state after each of them, and what its optimisers did first."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._pytree import tree_leaves

from equilibrist.diagnosis._reach import reached
from equilibrist.diagnosis._state import Roles, State, bits, digest, look, look_at

ROUNDING = 1e-5  # of the largest gradient: entries below are none
ALIKE = 0.01  # an update is the learning rate where it is within one per cent of it
INPUTS = 32  # calls of a round whose inputs are looked at


@dataclass
class FirstStep:
    """An optimiser's first step of a round.

    Attributes:
        rates: its learning rates.
        equal: the share of its weights with a gradient that moved by the learning rate, to 1%.
    """

    rates: tuple[float, ...]
    equal: float = 0.0


@dataclass
class Watched:
    """A loop that is run round by round.

    Attributes:
        loop: what `make` gave.
        given: the name of its average, where it has one.
        roles: which modules are players and averages.
        states: by how many rounds are done: after making it, after saving or loading it, after every round since.
        first: the first step of every optimiser in the round that was watched closely, by name.
        inputs: digests of what modules were called with in that round.
        late: objects that nothing refers to, met at work.
        saved: the state right before it was saved.
    """

    loop: Any
    given: str | None = None
    roles: Roles | None = None
    states: dict[int, State] = field(default_factory=dict)
    first: dict[str, FirstStep] = field(default_factory=dict)
    inputs: list[tuple[str, bytes]] = field(default_factory=list)
    late: dict[str, Any] = field(default_factory=dict)
    saved: State = field(default_factory=dict)

    def found(self) -> dict[str, Any]:
        """What the loop refers to, and what was only seen at work."""
        near = reached(self.loop)
        known = {id(value) for value in near.values()}
        return near | {n: value for n, value in self.late.items() if id(value) not in known}

    def look(self, done: int, keep: bool = False) -> State:
        """Notes the state after `done` rounds."""
        found = self.found()
        if self.roles is None and done:
            self.roles = Roles(found, self.given)
        self.states[done] = look(found, self.roles, keep)
        return self.states[done]

    def round(self, i: int, closely: bool = False, keep: bool = False) -> None:
        """Runs round i.

        Args:
            closely: whether the first steps of its optimisers and the inputs of its modules are noted.
            keep: whether the tensors after it are copied.
        """
        with _hooks(self, i, closely):
            call(self.loop.step, i)
        self.look(i + 1, keep)


@contextlib.contextmanager
def _hooks(run: Watched, i: int, closely: bool) -> Iterator[None]:
    found = run.found()
    known = {id(v): n for n, v in found.items()}
    parts = {id(p) for m in found.values() if isinstance(m, nn.Module) for p in m.modules()}
    stepped: dict[int, tuple[str, list[tuple[Tensor, Tensor]]]] = {}

    def meet(value: object, kind: str) -> str:
        """An object that is in nobody's reach is named by its place among those of its kind."""
        if isinstance(value, torch.optim.Optimizer):
            kind = f"{kind}{_whose(value, found)}"
        name, count = kind, 1
        while name in run.late or name in found:
            count += 1
            name = f"{kind} {count}"
        known[id(value)] = name
        run.late[name] = value
        start = run.states.get(i)
        if start is not None:  # its state now is that before the round
            start.update(look_at(name, value, run.found()))
        return name

    def called(module: nn.Module, arguments: object) -> None:
        if torch.compiler.is_compiling():
            return
        if id(module) not in parts and any(True for _ in module.state_dict(keep_vars=True)):
            meet(module, type(module).__name__)
            parts.update(id(part) for part in module.modules())
        if closely and id(module) in known and len(run.inputs) < INPUTS:
            tensors = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
            run.inputs.append(
                (known[id(module)], digest(repr([bits(t) for t in tensors]).encode()))
            )

    def before(optimizer: torch.optim.Optimizer, *_: object) -> None:
        name = known.get(id(optimizer)) or meet(optimizer, type(optimizer).__name__)
        if closely and name not in run.first:
            rates = tuple(float(g["lr"]) for g in optimizer.param_groups if "lr" in g)
            run.first[name] = FirstStep(rates)
            own = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
            stepped[id(optimizer)] = (name, [(p, p.detach().clone()) for p in own])

    def after(optimizer: torch.optim.Optimizer, *_: object) -> None:
        name, weights = stepped.pop(id(optimizer), ("", []))
        if name:
            run.first[name].equal = _share(weights, run.first[name].rates)

    whole = [m for m in found.values() if isinstance(m, nn.Module)]
    # Compiled modules would be compiled anew under every hook on all modules.
    compiled = any(type(part).__name__ == "OptimizedModule" for m in whole for part in m.modules())
    handles = [
        *([] if compiled else [register_module_forward_pre_hook(called)]),
        register_optimizer_step_pre_hook(before),
        register_optimizer_step_post_hook(after),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _whose(optimizer: torch.optim.Optimizer, found: Mapping[str, object]) -> str:
    """Whose weights it steps, as the end of its name."""
    own = {id(p) for group in optimizer.param_groups for p in group["params"]}
    names = []
    for name, module in found.items():
        inside = {id(p) for p in module.parameters()} if isinstance(module, nn.Module) else set()
        if inside and inside <= own:
            names.append(name)
            own -= inside  # what holds this module as well adds nothing
    return f" of {' and '.join(names[:2])}" if names else ""


def _share(weights: list[tuple[Tensor, Tensor]], rates: tuple[float, ...]) -> float:
    """The share of entries with a gradient that moved by a learning rate.

    A gradient that is rounding alone, such as that of a bias before batch norm, counts as none: it may be below Adam's
    epsilon.
    """
    moved, count = 0, 0
    largest = max((float(p.grad.abs().max()) for p, _ in weights if p.grad is not None), default=0)
    for p, before in weights:
        assert p.grad is not None
        step = (p.detach() - before).abs().double()
        reached = p.grad.abs() > ROUNDING * largest
        near = torch.zeros_like(reached)
        for rate in rates:
            near |= (step - rate).abs() <= ALIKE * rate
        moved += int((near & reached).sum())
        count += int(reached.sum())
    return moved / count if count else 0.0


def required(function: Callable[..., object]) -> int:
    """How many arguments a function needs."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters
    )


def call(function: Callable[..., object], value: object) -> object:
    """Calls it with the value, unless it takes none."""
    try:
        takes = bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        takes = True
    return function(value) if takes else function()
