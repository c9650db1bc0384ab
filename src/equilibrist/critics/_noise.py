"""Random numbers that a user's own code draws, under a seed of ours."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's, NumPy's and Python's global generators begin at `seed` within, and go on as they were after."""
    ready = torch.cuda.is_available() and torch.cuda.is_initialized()
    kept, held = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if ready else []):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        random.setstate(kept)
        np.random.set_state(held)
