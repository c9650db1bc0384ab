"""Calls of a user's functions that leave no trace in the modules that they call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from equilibrist.nn.noise import GLOBAL, derived, seeded


@contextmanager
def untouched(seed: int = 0, *words: int) -> Iterator[None]:
    """Random states begin at a seed within; they and the buffers of all modules called are as before afterwards.

    Modules work on copies of their buffers meanwhile: a graph of the loop's own may still need the ones that they had,
    unchanged.

    Args:
        seed: at least 0.
        words: further numbers that tell one call from another.
    """
    with fresh_buffers(), seeded(derived(seed, *words), GLOBAL):
        yield


@contextmanager
def fresh_buffers() -> Iterator[None]:
    """Every module that is called within works on copies of its buffers."""
    kept: dict[int, tuple[nn.Module, dict[str, Tensor | None]]] = {}

    def keep(module: nn.Module, _: object) -> None:
        if torch.compiler.is_compiling() or id(module) in kept or not module._buffers:
            return
        kept[id(module)] = (module, dict(module._buffers))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.detach().clone()

    handle = register_module_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
        for module, buffers in kept.values():
            module._buffers.update(buffers)
