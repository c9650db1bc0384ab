"""Counting what a check spends, and stopping where its budget ends."""

from __future__ import annotations

import math
from typing import Protocol


class Tick(Protocol):
    """Called with the minibatch gradients that were spent since the last call."""

    def __call__(self, gradients: float = 1.0, /) -> None: ...


def no_tick(gradients: float = 1.0, /) -> None:
    """Spending that nobody counts."""


class SpentError(Exception):
    """No more minibatch gradients may be spent."""


class Meter:
    """A tick that counts what it passes on, and raises `SpentError` above `most`."""

    def __init__(self, tick: Tick, most: float = math.inf) -> None:
        self.tick, self.most, self.spent = tick, most, 0.0

    def __call__(self, gradients: float = 1.0) -> None:
        self.spent += gradients
        self.tick(gradients)
        if self.spent > self.most:
            raise SpentError
