"""Random numbers that modules draw for themselves (dropout, Gumbel noise, noise injection), under a seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

TORCH, NUMPY, PYTHON = "torch", "numpy", "python"
GLOBAL = (TORCH, NUMPY, PYTHON)

RandomStates = dict[str, object]  # by source, as values that can be compared
_MASK = 2**64 - 1


def derived(seed: int, *words: int) -> int:
    """One seed of a seed and further numbers, each bit of which depends on all of them.

    Torch's generators on the CPU read the lowest 32 bits of a seed alone, so that seeds which differ above those would
    give the same numbers. The mixing is that of SplitMix64 (Steele, Lea and Flood 2014).

    Returns: a number of 63 bits.
    """
    state = seed & _MASK
    for word in (0, *words):
        state = (state + 0x9E3779B97F4A7C15 * (2 * word + 1)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def sources_to_seed(seen: Collection[str]) -> tuple[str, ...]:
    """The sources to seed where random numbers were seen to be drawn from these.

    Python's and NumPy's numbers often decide whether others are drawn at all (an augmentation with some probability):
    with them come all.
    """
    return GLOBAL if set(seen) - {TORCH} else tuple(s for s in GLOBAL if s in seen)


@contextmanager
def seeded(seed: int, sources: Sequence[str] = (TORCH,)) -> Iterator[None]:
    """The global random states begin at `seed` within, and are afterwards what they were.

    Args:
        seed: at least 0.
        sources: which states: torch's (CPU, and every CUDA device in use), NumPy's, Python's.
    """
    generators = _torch_generators() if TORCH in sources else []
    before = [g.get_state() for g in generators]
    numpy_state = np.random.get_state() if NUMPY in sources else None
    python_state = random.getstate() if PYTHON in sources else None
    try:
        for g in generators:
            g.manual_seed(seed)
        if numpy_state is not None:
            np.random.seed(seed % 2**32)
        if python_state is not None:
            random.seed(seed)
        yield
    finally:
        for g, state in zip(generators, before, strict=True):
            g.set_state(state)
        if numpy_state is not None:
            np.random.set_state(numpy_state)
        if python_state is not None:
            random.setstate(python_state)


def random_states() -> RandomStates:
    """The global random states as values that can be compared (`drawn_since`)."""
    numpy_state: Any = np.random.get_state()
    return {
        TORCH: torch.cat([g.get_state() for g in _torch_generators()]),
        NUMPY: (numpy_state[1].tobytes(), *numpy_state[2:]),
        PYTHON: random.getstate(),
    }


def drawn_since(before: RandomStates) -> tuple[str, ...]:
    """The sources from which random numbers were drawn since `random_states()` was called."""
    now = random_states()
    return tuple(name for name in GLOBAL if not _equal(before[name], now[name]))


def _equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return bool(a == b)


def _torch_generators() -> list[torch.Generator]:
    ready = torch.cuda.is_available() and torch.cuda.is_initialized()
    cuda: Sequence[torch.Generator] = torch.cuda.default_generators if ready else ()
    return [torch.default_generator, *cuda]
