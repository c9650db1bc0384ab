"""Hooks on the layers of a player, and on what DistributedDataParallel wraps around it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from equilibrist.diagnosis._seen import ModuleHook, Side
from equilibrist.nn.wrapped import unwrapped


def layers_used(side: Side) -> Iterator[Any]:
    """Hooks that note in `side.used` which layers with weights of their own are called."""
    for i, module in enumerate(side.modules):
        for name, layer in unwrapped(module).named_modules():
            if next(layer.parameters(recurse=False), None) is None:
                continue
            full = name if len(side.modules) == 1 else f"{i}.{name}"

            def called(*_: object, full: str = full) -> None:
                side.used.add(full)

            with contextlib.suppress(RuntimeError):
                yield layer.register_forward_pre_hook(ModuleHook(called))


def wrappers_called(side: Side, counts: dict[str, list[int]]) -> Iterator[Any]:
    """Hooks that count calls with gradients of DistributedDataParallel around a player, and of the module inside.

    Args:
        side: the player.
        counts: [calls of the wrapper, calls of the module] by role, which are counted on.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    for module in side.modules:
        inner = unwrapped(module)
        for thing in gc.get_objects():
            if type(thing).__name__ == "DistributedDataParallel" and (
                thing.__dict__.get("_modules", {}).get("module") is inner
            ):
                mine = counts.setdefault(side.role, [0, 0])
                yield thing.register_forward_pre_hook(ModuleHook(_counter(mine, 0)))
                yield inner.register_forward_pre_hook(ModuleHook(_counter(mine, 1)))


def _counter(counts: list[int], place: int) -> Any:
    def called(module: nn.Module, *_: object) -> None:
        counts[place] += torch.is_grad_enabled()

    return called
