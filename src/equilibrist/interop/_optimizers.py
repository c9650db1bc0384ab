"""Which modules an optimiser steps, and what is known of its steps."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from equilibrist.nn.wrapped import unwrapped

if TYPE_CHECKING:
    from equilibrist.interop._root import Root

RATES = 512  # learning rates kept of a player before every other one is dropped


@dataclass
class Stepped:
    """An optimiser that was seen to step.

    Attributes:
        optimizer: a weak reference.
        name: its class.
        params: its parameters by id, weakly: ids are used again, so they are looked up, never trusted.
        steps: how often it stepped.
        rates: learning rates of its groups after some steps, [(step, (rate, ...)), ...].
        bare: parameters that have had no gradient at any step so far.
        stride: after how many steps rates are looked at.
        begun: steps when the last new optimiser appeared.
        size: how many tensors it steps.
        echo: whether it steps what another has just stepped, with no call in between.
        roots: the players that it steps.
    """

    optimizer: weakref.ref[torch.optim.Optimizer]
    name: str
    params: set[int]
    steps: int = 0
    rates: list[tuple[int, tuple[float, ...]]] = field(default_factory=list)
    bare: dict[int, weakref.ref[nn.Parameter]] = field(default_factory=dict)
    stride: int = 1
    begun: int = 0
    size: int = 0
    echo: bool = False
    roots: list[Root] = field(default_factory=list)

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer) -> Stepped:
        """The record of an optimiser at its first step."""
        own = {id(p): p for p in stepped_parameters(optimizer)}
        bare = {key: weakref.ref(p) for key, p in own.items()}
        return cls(
            weakref.ref(optimizer),
            type(optimizer).__name__,
            set(own),
            bare=bare,
            size=size_of(optimizer),
        )

    def widen(self, optimizer: torch.optim.Optimizer) -> None:
        """Takes in parameters that were added since."""
        new = {id(p): p for p in stepped_parameters(optimizer) if id(p) not in self.params}
        self.params |= set(new)
        self.size = size_of(optimizer)
        self.bare.update({key: weakref.ref(p) for key, p in new.items()})

    def before(self) -> None:
        """Looks at the gradients."""
        if self.bare:
            found = [k for k, p in self.bare.items() if getattr(p(), "grad", None) is not None]
            for key in found:
                del self.bare[key]

    def after(self, optimizer: torch.optim.Optimizer) -> None:
        """Counts the step, and notes the learning rates where they have changed."""
        self.steps += 1
        if self.steps % self.stride:
            return
        rates = tuple([float(group["lr"]) for group in optimizer.param_groups if "lr" in group])
        if not self.rates or self.rates[-1][1] != rates:
            self.rates.append((self.steps, rates))
            if len(self.rates) > RATES:
                self.rates = self.rates[::2]
                self.stride *= 2


def stepped_parameters(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    """The tensors that an optimiser steps."""
    for group in optimizer.param_groups:
        yield from group["params"]


def size_of(optimizer: torch.optim.Optimizer) -> int:
    """How many tensors it steps: another number means that it was given more."""
    return sum([len(group["params"]) for group in optimizer.param_groups])


def roots(modules: Iterable[nn.Module], params: set[int], others: set[int]) -> list[nn.Module]:
    """The outermost of `modules` that hold some of `params` and none of `others`.

    A module that holds both players, as a LightningModule does, is nobody's root; one player may have
    several roots (two critics under one optimiser).
    """
    theirs = others - params
    found = []
    for module in modules:
        own = {id(p) for p in module.parameters()}
        if own & params and not own & theirs:
            found.append(module)
    inner = {id(part) for module in found for part in module.modules() if part is not module}
    return [module for module in found if id(module) not in inner]


def layers_of(module: nn.Module) -> Iterator[nn.Module]:
    """A module and what it wraps."""
    yield module
    inner = unwrapped(module)
    if inner is not module:
        yield inner


def idle(modules: Sequence[nn.Module], stepped: set[int]) -> dict[str, int]:
    """Outermost modules that hold parameters, none of which was stepped: class, count of parameters."""
    seen = [m for m in modules if next(m.parameters(), None) is not None]
    found = [m for m in seen if not any(id(p) in stepped for p in m.parameters())]
    inner = {id(part) for m in seen for part in m.modules() if part is not m}
    return {
        type(m).__name__: sum(p.numel() for p in m.parameters())
        for m in found
        if id(m) not in inner
    }
