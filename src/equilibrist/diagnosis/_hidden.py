"""Weights that a player uses and that are no parameters of it: modules and tensors in plain containers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from equilibrist.diagnosis._seen import Side
from equilibrist.findings import Finding
from equilibrist.nn.wrapped import unwrapped

DEEPEST = 3  # containers within containers
OWN = frozenset(vars(nn.Module()))  # what every module has


class Hidden:
    """The weights of a player in lists, dictionaries and attributes that torch does not look into.

    Args:
        side: the player, before it is watched.
    """

    def __init__(self, side: Side) -> None:
        self._side = side
        self._marks = {id(t): (t, _mark(t)) for _, t in _hidden(side)}

    def unstepped(self, stepped: set[int]) -> dict[str, Tensor]:
        """Those that a backward pass has reached and that nothing moves, by name.

        Args:
            stepped: identities of what the loop's optimisers hold.
        """
        found: dict[str, Tensor] = {}
        for name, t in _hidden(self._side):
            before = self._marks.get(id(t))
            still = before is None or before[1] == _mark(t)
            if t.grad is not None and id(t) not in stepped and still:
                found[name] = t
        return found


def judge_hidden(side: Side, hidden: Mapping[str, Tensor]) -> list[Finding]:
    """The finding that a player uses weights which no optimiser can have been given by `parameters()`.

    Args:
        side: the player.
        hidden: `Hidden.unstepped`.
    """
    if not hidden:
        return []
    names = list(hidden)
    shapes = " and ".join("x".join(map(str, t.shape)) or "()" for t in list(hidden.values())[:2])
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    size = sum(t.numel() for t in hidden.values())
    text = (
        f"{len(names)} tensors of the {side.name} ({', '.join(names[:2])}{more}; the first of shape {shapes}) get "
        f"gradients and are no parameters of it, so that no optimiser steps them: a plain list or dictionary holds "
        "them, which parameters() does not look into."
    )
    cure = "hold layers in nn.ModuleList or nn.ModuleDict and tensors as nn.Parameter, then make the optimiser"
    evidence = {"weights": names[:20], "entries": size}
    where = f"{side.name}: {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else "")
    return [Finding("frozen-part", where, text, evidence=evidence, cure=cure)]


def _hidden(side: Side) -> Iterator[tuple[str, Tensor]]:
    """Leaves that want a gradient and are no parameters of the player, by name."""
    met: set[int] = set(side.names)
    for i, module in enumerate(side.modules):
        start = "" if len(side.modules) == 1 else f"{i}."
        for path, layer in unwrapped(module).named_modules():
            for key, value in vars(layer).items():
                if key in OWN:
                    continue
                for name, t in _leaves(f"{start}{path}{'.' if path else ''}{key}", value, DEEPEST):
                    if id(t) not in met and t.requires_grad and t.is_leaf and t.is_floating_point():
                        met.add(id(t))
                        yield name, t


def _leaves(name: str, value: object, depth: int) -> Iterator[tuple[str, Tensor]]:
    """Tensors in plain containers. A module that is no entry of a container was put aside on purpose."""
    if isinstance(value, Tensor):
        yield name, value
    elif depth and isinstance(value, Mapping):
        for key, part in value.items():
            yield from _inside(f"{name}[{key!r}]", part, depth)
    elif depth and isinstance(value, list | tuple | set | frozenset | deque):
        for place, part in enumerate(value):
            yield from _inside(f"{name}[{place}]", part, depth)


def _inside(name: str, part: object, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(part, nn.Module):
        yield from ((f"{name}.{path}", p) for path, p in part.named_parameters())
    else:
        yield from _leaves(name, part, depth - 1)


def _mark(t: Tensor) -> tuple[float, float]:
    """Two numbers that a step changes."""
    with torch.no_grad():
        values = t.detach().double()
        return float(values.sum()), float(values.norm())
