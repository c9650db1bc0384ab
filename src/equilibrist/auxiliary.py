"""Further terms of a player's loss, beside the game's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from equilibrist.core.draws import Draw
from equilibrist.formulations import Critic


class Auxiliary(Protocol):
    """A 0-d tensor added to the loss of `player`. A game with one is not zero-sum.

    Called with the critic at the current parameters, the generated samples [B, ...] and the draw
    (real, latent, condition); a mean over the batch keeps the game separable.
    """

    @property
    def player(self) -> str: ...

    def __call__(self, critic: Critic, fake: Tensor, draw: Draw) -> Tensor: ...


@dataclass(frozen=True)
class Reconstruction:
    """weight * mean |G(z, c) - x|^power over samples and their entries; x is the real sample of the
    condition c. power 1 is pix2pix's term (Isola et al. 2017, equation 3, weight 100)."""

    weight: float = 100.0
    power: int = 1
    player: str = "generator"

    def __post_init__(self) -> None:
        if self.power not in (1, 2):
            raise ValueError(f"Reconstruction.power must be 1 or 2, not {self.power}")
        if not 0 <= self.weight < float("inf"):
            raise ValueError(
                f"Reconstruction.weight must be finite and not negative, not {self.weight}"
            )

    def __call__(self, critic: Critic, fake: Tensor, draw: Draw) -> Tensor:
        distance = fake - draw["real"]
        return self.weight * (distance.abs() if self.power == 1 else distance.square()).mean()


@dataclass(frozen=True)
class Term:
    """weight * function(critic, fake, draw), any differentiable function of the three.

    `name` stands for it in records, where a function has no spelling.
    """

    player: str
    function: Callable[[Critic, Tensor, Draw], Tensor]
    weight: float = 1.0
    name: str = "term"

    def __repr__(self) -> str:
        return f"Term({self.player}, {self.name}, weight={self.weight})"

    def __call__(self, critic: Critic, fake: Tensor, draw: Draw) -> Tensor:
        return self.weight * self.function(critic, fake, draw)
