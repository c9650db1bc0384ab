"""Calls of a user's functions that leave no trace in the modules that they call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from equilibrist.nn.noise import GLOBAL, derived, seeded


@contextmanager
def untouched(seed: int = 0, *words: int) -> Iterator[None]:
    """Random states begin at a seed within; they and the buffers of all modules called are put back afterwards.

    Args:
        seed: at least 0.
        words: further numbers that tell one call from another.
    """
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, _: Any) -> None:
        if torch.compiler.is_compiling():
            return
        for buffer in module.buffers(recurse=False):
            if id(buffer) not in kept:
                kept[id(buffer)] = (buffer, buffer.detach().clone())

    handle = register_module_forward_pre_hook(keep)
    try:
        with seeded(derived(seed, *words), GLOBAL):
            yield
    finally:
        handle.remove()
        with torch.no_grad():
            for buffer, value in kept.values():
                buffer.copy_(value)
