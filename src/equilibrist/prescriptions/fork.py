"""What `prescribe` asks of training that can be branched off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Measured = tuple[float | None, float | None]  # None for what is not finite, or not measured
AS_IS = ""  # the branch without a change


class Fork(Protocol):
    """A state of training from which branches go.

    Attributes:
        names: of the changes that can be tried.
        quantity, unit: what is to fall.
        other: what is measured beside it; empty where nothing is.
        measuring: minibatch gradients that measuring it once costs.
    """

    names: tuple[str, ...]
    quantity: str
    other: str
    unit: str
    measuring: int

    def cost(self, name: str) -> float:
        """Minibatch gradients of a round with this change (`AS_IS`: without)."""
        ...

    def values(self, name: str, seeds: Sequence[int], rounds: int) -> list[Measured]:
        """The quantity, and the other, after so many rounds with this change from the audited state, for each seed.

        Branches of one seed see the same random numbers.
        """
        ...

    def now(self) -> Measured:
        """The same at the audited state."""
        ...
