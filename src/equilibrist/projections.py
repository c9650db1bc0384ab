"""Feasible sets. A projection maps one player's parameters to the nearest feasible ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Projection(Protocol):
    """Maps the parameters of `player` into its feasible set."""

    @property
    def player(self) -> str: ...

    def __call__(self, params: dict[str, Tensor]) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class WeightClipping:
    """w <- min(max(w, -limit), limit), entry by entry (Arjovsky et al. 2017, Algorithm 1).

    Clips every parameter of `player`, scales of batch norm included, as the original does.
    """

    limit: float = 0.01
    player: str = "critic"

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ValueError(f"WeightClipping.limit must be positive, not {self.limit}")

    def __call__(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.clamp(-self.limit, self.limit) for name, value in params.items()}
